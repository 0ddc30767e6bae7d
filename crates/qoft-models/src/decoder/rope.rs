//! Frequencies and tables of rotary positions.

use std::f64::consts::TAU;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::Tensor;
use qoft_core::kernels::ops::Rope;
use qoft_core::ops;

use crate::positions::Positions;

use super::rope_config::{RopeConfig, RopePairs, RopeScaling};

/// Makes the tables of a model and keeps the last one: all blocks use the same one, and batches
/// often have the same length.
#[derive(Debug)]
pub struct RopeTables {
    config: RopeConfig,
    last: Mutex<Option<Table>>,
}

#[derive(Debug)]
struct Table {
    positions: Positions,
    rope: Rope,
}

impl RopeTables {
    /// For a model's configuration.
    pub fn new(config: RopeConfig) -> Self {
        Self {
            config,
            last: Mutex::default(),
        }
    }

    /// Queries or keys, `[batch, time, heads, head_dim]`, rotated by a table of theirs.
    pub fn rotate(&self, x: Tensor<4>, table: &Rope) -> Tensor<4> {
        let x = match self.config.pairs {
            RopePairs::Halves => x,
            RopePairs::Neighbours => halved(x, self.config.dim),
        };
        ops::rope(x, table.clone())
    }

    /// The table of some positions.
    pub fn table(&self, positions: &Positions) -> Rope {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some(table) if table.positions == *positions => table.rope.clone(),
            _ => {
                let rope = table(&self.config, positions);
                *last = Some(Table {
                    positions: positions.clone(),
                    rope: rope.clone(),
                });
                rope
            }
        }
    }
}

/// Queries or keys, `[batch, time, heads, head_dim]`, with the features of each pair at the same place of both
/// halves. Scores are sums over features: they stay the same where queries and keys are reordered alike.
fn halved(x: Tensor<4>, dim: usize) -> Tensor<4> {
    let [batch, time, heads, width] = x.dims();
    let pairs = x.clone().narrow(3, 0, dim);
    let pairs = pairs.reshape([batch, time, heads, dim / 2, 2]);
    let halves = pairs.swap_dims(3, 4).reshape([batch, time, heads, dim]);
    match width - dim {
        0 => halves,
        rest => Tensor::cat(vec![halves, x.narrow(3, dim, rest)], 3),
    }
}

fn table(config: &RopeConfig, positions: &Positions) -> Rope {
    let scale = config.attention_factor();
    // The product is rounded to f32, as in transformers: at far positions it is the angle's error.
    let angle = |position: usize, frequency: &f32| f64::from(position as f32 * frequency);
    // Frequencies depend on where a sequence ends.
    let angles = |range: &Range<usize>| {
        let frequencies = config.frequencies(range.end);
        let of = |p| frequencies.iter().map(move |f| angle(p, f));
        range.clone().flat_map(of).collect::<Vec<f64>>()
    };
    let angles: Vec<f64> = positions.sequences().iter().flat_map(angles).collect();
    let scaled = |f: fn(f64) -> f64| angles.iter().map(|&a| (f(a) * scale) as f32).collect();
    Rope::new(
        Arc::new(scaled(f64::cos)),
        Arc::new(scaled(f64::sin)),
        config.dim / 2,
    )
}

impl RopeConfig {
    /// Angles per position, for a sequence of `length` positions.
    fn frequencies(&self, length: usize) -> Vec<f32> {
        let theta = match self.scaling {
            RopeScaling::Dynamic {
                factor,
                max_position_embeddings: max,
            } => self.stretched(factor * length.max(max) as f64 / max as f64 - (factor - 1.0)),
            RopeScaling::Alpha { alpha } => self.stretched(alpha),
            _ => self.theta,
        };
        let plain = (0..self.dim / 2).map(|i| theta.powf(-(2.0 * i as f64) / self.dim as f64));
        plain
            .enumerate()
            .map(|(i, frequency)| self.scaled(i, frequency, length) as f32)
            .collect()
    }

    /// The base with which the longest wavelength is `stretch` times as long.
    fn stretched(&self, stretch: f64) -> f64 {
        self.theta * stretch.powf(self.dim as f64 / (self.dim as f64 - 2.0))
    }

    /// Frequency `i` after scaling.
    fn scaled(&self, i: usize, frequency: f64, length: usize) -> f64 {
        match &self.scaling {
            RopeScaling::Default | RopeScaling::Dynamic { .. } | RopeScaling::Alpha { .. } => {
                frequency
            }
            RopeScaling::Linear { factor } => frequency / factor,
            &RopeScaling::Proportional { factor, turning } => match i < turning {
                true => frequency / factor,
                false => 0.0,
            },
            RopeScaling::Yarn { factor, .. } => {
                let divided = self.yarn_ramp(i);
                frequency / factor * divided + frequency * (1.0 - divided)
            }
            &RopeScaling::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings: original,
            } => {
                // How often the frequency turns within the length of pretraining.
                let turns = original as f64 * frequency / TAU;
                let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                (1.0 - kept) * frequency / factor + kept * frequency
            }
            RopeScaling::LongRope {
                short_factor,
                long_factor,
                original_max_position_embeddings: original,
                ..
            } => {
                let long = length > *original;
                frequency
                    / if long {
                        long_factor[i]
                    } else {
                        short_factor[i]
                    }
            }
        }
    }

    /// Yarn: from 0 for frequencies that are kept to 1 for those that are divided.
    fn yarn_ramp(&self, i: usize) -> f64 {
        let &RopeScaling::Yarn {
            original_max_position_embeddings: original,
            beta_fast,
            beta_slow,
            truncate,
            ..
        } = &self.scaling
        else {
            return 0.0;
        };
        let dim = self.dim as f64;
        // The feature that turns so often within the length of pretraining.
        let feature =
            |turns: f64| dim * (original as f64 / (turns * TAU)).ln() / (2.0 * self.theta.ln());
        let (mut low, mut high) = (feature(beta_fast), feature(beta_slow));
        if truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        let low = low.max(0.0);
        let high = high.min(dim - 1.0);
        // transformers' way around a division by zero.
        let high = if low == high { high + 0.001 } else { high };
        ((i as f64 - low) / (high - low)).clamp(0.0, 1.0)
    }

    /// Multiplies cosines and sines.
    fn attention_factor(&self) -> f64 {
        match self.scaling {
            RopeScaling::Yarn {
                attention_factor, ..
            }
            | RopeScaling::LongRope {
                attention_factor, ..
            } => attention_factor,
            _ => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::rope_config::RopeDefaults;
    use super::*;
    use crate::json::Object;

    fn config(rope: Value) -> RopeConfig {
        let root = json!({ "rope_parameters": rope });
        RopeConfig::read(Object::root(&root), &RopeDefaults::USUAL, 16, 256).unwrap()
    }

    fn check(rope: Value, attention_factor: f64, frequencies: [f32; 8]) {
        let config = config(rope);
        assert!((config.attention_factor() - attention_factor).abs() < 1e-9);
        for (found, expected) in config.frequencies(1).iter().zip(frequencies) {
            assert!(
                (found - expected).abs() <= 1e-6 * expected,
                "{found} {expected}"
            );
        }
    }

    /// Options that no fixture has; values of transformers 5's `LlamaRotaryEmbedding`.
    #[test]
    fn yarn_equals_transformers() {
        let long = json!({"rope_type": "yarn", "rope_theta": 10000.0, "factor": 16.0,
            "original_max_position_embeddings": 64});
        let expected = [
            1.0,
            2.174_065_7e-1,
            3.749_999_8e-2,
            1.976_423_7e-3,
            6.25e-4,
            1.976_423_7e-4,
            6.25e-5,
            1.976_423_7e-5,
        ];
        check(long, 1.277_258_872_223_978_2, expected);
        let options = json!({"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0,
            "original_max_position_embeddings": 64, "truncate": false,
            "mscale": 0.707, "mscale_all_dim": 1.2});
        let expected = [
            1.0,
            1.985_835_3e-1,
            2.559_525e-2,
            7.905_695e-3,
            2.5e-3,
            7.905_695e-4,
            2.5e-4,
            7.905_695e-5,
        ];
        check(options, 0.941_403_523_749_669, expected);
    }

    /// As transformers 5.23's `Gemma3TextConfig` and `Olmo3Config` read files with both keys.
    #[test]
    fn one_kind_of_layers_is_changed_by_the_old_key() {
        let read = |scaling: Value| {
            let root = json!({
                "rope_parameters": {
                    "full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5},
                    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
                },
                "rope_scaling": scaling,
            });
            let full = RopeDefaults {
                layer_type: Some("full_attention"),
                ..RopeDefaults::USUAL
            };
            let config = RopeConfig::read(Object::root(&root), &full, 16, 256).unwrap();
            (config.theta, config.scaling)
        };
        let linear = |factor| (5e5, RopeScaling::Linear { factor });
        assert_eq!(read(json!(null)), linear(2.0));
        assert_eq!(read(json!({"factor": 4.0})), linear(4.0));
        assert_eq!(read(json!({"type": "dynamic", "factor": 8.0})), linear(8.0));
        let default = (5e5, RopeScaling::Default);
        assert_eq!(read(json!({"rope_type": "default"})), default);
    }

    #[test]
    fn later_positions_continue_the_table() {
        let tables = RopeTables::new(config(json!({"rope_type": "default"})));
        let table = |range| tables.table(&Positions::new(range));
        let (whole, tail) = (table(0..5), table(3..5));
        assert_eq!(whole.width, 8);
        assert_eq!(whole.cos[24..], tail.cos[..]);
        assert_eq!(whole.sin[24..], tail.sin[..]);
        assert!(Arc::ptr_eq(&tail.cos, &table(3..5).cos));
    }

    #[test]
    fn dynamic_frequencies_depend_on_the_length() {
        let config = config(json!({"rope_type": "dynamic", "factor": 2.0}));
        assert_eq!(config.frequencies(1), config.frequencies(256));
        assert!(config.frequencies(512)[7] < config.frequencies(256)[7]);
    }
}

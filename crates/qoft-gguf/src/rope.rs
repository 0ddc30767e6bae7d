//! Rotary positions: keys and tensors of files, and what configurations have for them.

use qoft_scheme::{Dtype, Error, Result};
use serde_json::{Map, Value, json};

use crate::file::{Entry, File, Metadata, TensorType};
use crate::model::Kind;

/// Divisors of the frequencies, one for each of half a head.
pub const FACTORS: &str = "rope_freqs.weight";
/// The same for long and for short sequences.
pub const LONG_FACTORS: &str = "rope_factors_long.weight";
/// See [`LONG_FACTORS`].
pub const SHORT_FACTORS: &str = "rope_factors_short.weight";

/// Adds the keys of rotary positions to a configuration.
pub fn read(
    kind: &Kind,
    files: &[File],
    width: usize,
    config: &mut Map<String, Value>,
) -> Result<()> {
    let metadata = &files[0].metadata;
    let key = |name: &str| kind.key(&format!("rope.{name}"));
    let float = |name: &str| metadata.float(&key(name));
    let base = float("freq_base")?.unwrap_or(10_000.0);
    config.insert("rope_theta".into(), base.into());
    if let Some(rotated) = metadata.size(&key("dimension_count"))?
        && rotated < width
    {
        let share = rotated as f64 / width as f64;
        config.insert("partial_rotary_factor".into(), share.into());
    }
    let positions = config["max_position_embeddings"].clone();
    let original = metadata.size(&key("scaling.original_context_length"))?;
    let original = original.map_or(positions, Value::from);
    if let Some(factors) = factors(files, FACTORS)? {
        let scaling = scaling_of(&factors, base, &original);
        config.insert("rope_scaling".into(), scaling);
        return Ok(());
    }
    if let (Some(long), Some(short)) = (
        factors(files, LONG_FACTORS)?,
        factors(files, SHORT_FACTORS)?,
    ) {
        let mut scaling = json!({
            "rope_type": "longrope",
            "long_factor": long,
            "short_factor": short,
            "original_max_position_embeddings": original,
        });
        if let Some(factor) = float("scaling.attn_factor")? {
            scaling["attention_factor"] = factor.into();
        }
        config.insert("original_max_position_embeddings".into(), original);
        config.insert("rope_scaling".into(), scaling);
        return Ok(());
    }
    let name = key("scaling.type");
    let scaling = match metadata.text(&name)? {
        None | Some("none") => return Ok(()),
        Some("linear") => json!({
            "rope_type": "linear",
            "factor": metadata.require(&key("scaling.factor"), float("scaling.factor"))?,
        }),
        Some("yarn") => {
            let mut scaling = json!({
                "rope_type": "yarn",
                "factor": metadata.require(&key("scaling.factor"), float("scaling.factor"))?,
                "original_max_position_embeddings": original,
            });
            let optional = [
                ("attention_factor", "scaling.yarn_attn_factor"),
                ("attention_factor", "scaling.attn_factor"),
                ("beta_fast", "scaling.yarn_beta_fast"),
                ("beta_slow", "scaling.yarn_beta_slow"),
            ];
            for (ours, stored) in optional {
                if let Some(value) = float(stored)? {
                    scaling[ours] = value.into();
                }
            }
            scaling
        }
        Some(other) => {
            let reason = format!("`{other}` is not supported; those that are: none, linear, yarn");
            return Err(metadata.error(&name, reason));
        }
    };
    config.insert("rope_scaling".into(), scaling);
    Ok(())
}

/// Adds the rotary positions of a model that has others in layers with a window.
pub fn read_by_layer(
    kind: &Kind,
    metadata: &Metadata,
    config: &mut Map<String, Value>,
) -> Result<()> {
    let key = |name: &str| kind.key(&format!("rope.{name}"));
    let base = metadata.float(&key("freq_base"))?.unwrap_or(1_000_000.0);
    let local = metadata.float(&key("freq_base_swa"))?.unwrap_or(10_000.0);
    let mut full = json!({"rope_type": "default", "rope_theta": base});
    let name = key("scaling.type");
    match metadata.text(&name)? {
        None | Some("none") => {}
        Some("linear") => {
            let factor = key("scaling.factor");
            let factor = metadata.require(&factor, metadata.float(&factor))?;
            full = json!({"rope_type": "linear", "rope_theta": base, "factor": factor});
        }
        Some(other) => {
            let reason = format!("`{other}` is not supported; those that are: none, linear");
            return Err(metadata.error(&name, reason));
        }
    }
    let sliding = json!({"rope_type": "default", "rope_theta": local});
    let both = json!({"full_attention": full, "sliding_attention": sliding});
    config.insert("rope_parameters".into(), both);
    Ok(())
}

/// The values of a tensor of divisors.
fn factors(files: &[File], name: &str) -> Result<Option<Vec<f32>>> {
    let all = files.iter().flat_map(|file| {
        let tensors = file.tensors.iter();
        tensors.map(move |tensor| (file, tensor))
    });
    let Some((file, tensor)) = { all }.find(|(_, tensor)| tensor.name == name) else {
        return Ok(None);
    };
    let Entry { kind, shape, .. } = tensor;
    if *kind != TensorType::Float(Dtype::F32) || shape.len() != 1 {
        let reason = format!("tensor `{name}`: expected a vector of F32, found {kind:?} {shape:?}");
        return Err(Error::file(file.mapped.path(), reason));
    }
    let bytes = &file.mapped.bytes()[tensor.range.clone()];
    let values = bytes.as_chunks::<4>().0.iter();
    let values: Vec<f32> = values.map(|value| f32::from_le_bytes(*value)).collect();
    if values
        .iter()
        .any(|value| !value.is_finite() || *value <= 0.0)
    {
        let reason = format!("tensor `{name}`: expected positive numbers");
        return Err(Error::file(file.mapped.path(), reason));
    }
    Ok(Some(values))
}

/// The divisors of `llama3` scaling, as llama.cpp's converter computes them in `f32`.
pub fn llama3_factors(
    base: f64,
    width: usize,
    factor: f64,
    [low, high]: [f64; 2],
    original: f64,
) -> Vec<f32> {
    (0..width / 2)
        .map(|i| {
            let exponent = (2 * i) as f32 / width as f32;
            let frequency = 1.0 / (base as f32).powf(exponent);
            let wavelength = 2.0 * std::f64::consts::PI / f64::from(frequency);
            if wavelength < original / high {
                1.0
            } else if wavelength > original / low {
                factor as f32
            } else {
                let smooth = (original / wavelength - low) / (high - low);
                (1.0 / ((1.0 - smooth) / factor + smooth)) as f32
            }
        })
        .collect()
}

/// What a configuration has for divisors: the scaling by which they were made where that is the
/// usual one, or else the divisors themselves.
fn scaling_of(factors: &[f32], base: f64, positions: &Value) -> Value {
    let factor = factors
        .iter()
        .fold(1.0f32, |most, factor| most.max(*factor));
    let usual = llama3_factors(base, 2 * factors.len(), factor.into(), [1.0, 4.0], 8192.0);
    let pairs = || usual.iter().zip(factors);
    if factor > 1.0 && pairs().all(|(usual, factor)| (usual - factor).abs() <= 1e-5 * factor) {
        return json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        });
    }
    json!({
        "rope_type": "longrope",
        "long_factor": factors,
        "short_factor": factors,
        "attention_factor": 1.0,
        "original_max_position_embeddings": positions,
    })
}

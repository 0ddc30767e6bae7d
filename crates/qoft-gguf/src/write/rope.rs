//! Rotary positions of configurations, as keys and tensors of files.

use qoft_scheme::{Keys, Result};

use super::config::Config;
use super::config::required;
use super::keys::NewKeys;
use crate::rope::{FACTORS, LONG_FACTORS, SHORT_FACTORS, llama3_factors};

/// The base in layers with a window unless a file says otherwise.
const LOCAL_THETA: f64 = 10_000.0;

/// A configuration's rotary positions: an object of their own, and what stands beside it.
struct Rope<'a> {
    inner: Keys,
    /// Those of layers with a window, where the others are not for them.
    sliding: Option<Keys>,
    root: &'a Keys,
}

impl<'a> Rope<'a> {
    fn of(root: &'a Keys) -> Self {
        let inner = ["rope_scaling", "rope_parameters"];
        let inner = inner.iter().find_map(|key| root.object(key));
        let inner = inner.unwrap_or_else(|| root.clone());
        let sliding = inner.object("sliding_attention");
        let inner = inner.object("full_attention").unwrap_or(inner);
        Self {
            inner,
            sliding,
            root,
        }
    }

    /// The base in layers with a window, where it is another one.
    fn local_theta(&self) -> Result<f64> {
        let nested = self.sliding.as_ref().map(|keys| keys.get("rope_theta"));
        let nested: Option<f64> = nested.transpose()?.flatten();
        let beside: Option<f64> = self.root.get("rope_local_base_freq")?;
        Ok(nested.or(beside).unwrap_or(LOCAL_THETA))
    }

    fn float(&self, key: &str) -> Result<Option<f64>> {
        match self.inner.get(key)? {
            Some(value) => Ok(Some(value)),
            None => self.root.get(key),
        }
    }

    fn required(&self, key: &str) -> Result<f64> {
        let value = self.float(key)?;
        value.ok_or_else(|| self.inner.error(key, "is missing"))
    }

    fn kind(&self) -> Result<String> {
        let kind = self.inner.first::<String>(&["rope_type", "type"])?;
        Ok(kind.map_or_else(|| "default".to_owned(), |(_, kind)| kind))
    }

    fn theta(&self, config: &Config) -> Result<f64> {
        let default = match config.kind.name {
            "smollm3" => 2_000_000.0,
            "gemma3" => 1_000_000.0,
            _ => 10_000.0,
        };
        Ok(self.float("rope_theta")?.unwrap_or(default))
    }

    /// Features of a head that turn.
    fn width(&self, config: &Config) -> Result<usize> {
        let share = self.float("partial_rotary_factor")?.unwrap_or(1.0);
        let width = config.heads.width;
        let turned = (width as f64 * share) as usize;
        if !(0.0..=1.0).contains(&share) || turned == 0 || !turned.is_multiple_of(2) {
            let reason = format!("{share} of heads of {width} features");
            return Err(self.inner.error("partial_rotary_factor", reason));
        }
        if turned < width && !config.kind.fused {
            let reason = format!("llama.cpp turns whole heads of `{}`", config.kind.name);
            return Err(self.inner.error("partial_rotary_factor", reason));
        }
        Ok(turned)
    }
}

/// Writes the keys of rotary positions.
///
/// # Errors
/// If files have no way to say what the configuration asks for.
pub fn write(config: &Config, out: &mut NewKeys) -> Result<()> {
    let rope = Rope::of(&config.keys);
    let key = |name: &str| config.kind.key(&format!("rope.{name}"));
    out.float(&key("freq_base"), rope.theta(config)?);
    out.size(&key("dimension_count"), rope.width(config)?);
    if config.kind.gemma {
        let local = rope.local_theta()?;
        if local != LOCAL_THETA {
            out.float(&key("freq_base_swa"), local);
        }
        let kind = rope.kind()?;
        if !matches!(kind.as_str(), "default" | "linear") {
            let reason = format!("`{kind}` is not written for this kind of model");
            return Err(rope.inner.error("rope_type", reason));
        }
    }
    match rope.kind()?.as_str() {
        "default" => {
            // Phi's converter writes the length that its factors would be for.
            if let Some(original) = original(&rope)?.filter(|_| config.kind.fused) {
                out.size(&key("scaling.original_context_length"), original);
            }
        }
        // In a tensor, see [`tensors`].
        "llama3" => {}
        "linear" => {
            out.text(&key("scaling.type"), "linear");
            out.float(&key("scaling.factor"), rope.required("factor")?);
        }
        "yarn" => {
            out.text(&key("scaling.type"), "yarn");
            out.float(&key("scaling.factor"), rope.required("factor")?);
            let original = original(&rope)?;
            let original =
                original.map_or_else(|| required(&config.keys, "max_position_embeddings"), Ok)?;
            out.size(&key("scaling.original_context_length"), original);
            let optional = [
                ("attention_factor", "scaling.yarn_attn_factor"),
                ("beta_fast", "scaling.yarn_beta_fast"),
                ("beta_slow", "scaling.yarn_beta_slow"),
            ];
            for (theirs, stored) in optional {
                if let Some(value) = rope.float(theirs)? {
                    out.float(&key(stored), value);
                }
            }
        }
        "longrope" | "su" => {
            out.text(&key("scaling.type"), "longrope");
            let (longest, original) = lengths(config, &rope)?;
            out.size(&key("scaling.original_context_length"), original);
            let scale = longest as f64 / original as f64;
            let usual = match scale > 1.0 {
                true => (1.0 + scale.ln() / (original as f64).ln()).sqrt(),
                false => 1.0,
            };
            let factor = rope.float("attention_factor")?.unwrap_or(usual);
            out.float(&key("scaling.attn_factor"), factor);
        }
        other => {
            let reason = format!(
                "`{other}` is not written to GGUF files, only default, linear, yarn, llama3 and \
                 longrope are"
            );
            return Err(rope.inner.error("rope_type", reason));
        }
    }
    Ok(())
}

fn original(rope: &Rope) -> Result<Option<usize>> {
    let key = "original_max_position_embeddings";
    Ok(rope.float(key)?.map(|value| value as usize))
}

/// The longest sequences, and those before they became longer.
fn lengths(config: &Config, rope: &Rope) -> Result<(usize, usize)> {
    let longest = required(&config.keys, "max_position_embeddings")?;
    let original = original(rope)?.filter(|original| *original > 1);
    Ok((longest, original.unwrap_or(longest)))
}

/// Tensors that say how positions turn.
///
/// # Errors
/// If a value is missing, or factors are not one for each pair of features.
pub fn tensors(config: &Config) -> Result<Vec<(&'static str, Vec<f32>)>> {
    let rope = Rope::of(&config.keys);
    match rope.kind()?.as_str() {
        "llama3" => {
            let factor = rope.required("factor")?;
            let low = rope.float("low_freq_factor")?.unwrap_or(1.0);
            let high = rope.float("high_freq_factor")?.unwrap_or(4.0);
            let original = rope.float("original_max_position_embeddings")?;
            let original = original.unwrap_or(8192.0);
            let (base, width) = (rope.theta(config)?, config.heads.width);
            let factors = llama3_factors(base, width, factor, [low, high], original);
            Ok(vec![(FACTORS, factors)])
        }
        "longrope" | "su" => {
            let pairs = rope.width(config)? / 2;
            let factors = |key: &str| {
                let factors: Option<Vec<f32>> = rope.inner.get(key)?;
                let factors = factors.unwrap_or_default();
                match factors.len() == pairs {
                    true => Ok(factors),
                    false => {
                        let reason = format!("{} factors, expected {pairs}", factors.len());
                        Err(rope.inner.error(key, reason))
                    }
                }
            };
            let (long, short) = (factors("long_factor")?, factors("short_factor")?);
            Ok(vec![(LONG_FACTORS, long), (SHORT_FACTORS, short)])
        }
        _ => Ok(Vec::new()),
    }
}

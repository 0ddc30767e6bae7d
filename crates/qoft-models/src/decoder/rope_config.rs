//! Rotary positions as `config.json` describes them.
//!
//! Transformers 5 writes `rope_parameters`; before, there were `rope_theta`, `rope_scaling` and
//! `partial_rotary_factor` side by side.

use qoft_core::Result;
use serde_json::json;

use crate::json::Object;

/// Rotary positions of a model.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RopeConfig {
    /// Base of the wavelengths.
    pub theta: f64,
    /// Rotated features of a head, an even number.
    pub dim: usize,
    /// Which two of them turn together.
    pub pairs: RopePairs,
    /// How the frequencies are changed for long sequences.
    pub scaling: RopeScaling,
}

/// Which two features of a head turn together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RopePairs {
    /// One of the first half and the one at its place in the second half.
    Halves,
    /// Neighbours.
    Neighbours,
}

/// Changes of the frequencies, named as `rope_type` names them.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the fields are the keys of config.json")]
#[non_exhaustive]
pub enum RopeScaling {
    /// `default`: none.
    Default,
    /// `linear`: positions divided by a factor.
    Linear { factor: f64 },
    /// `dynamic`: a base that grows with sequences beyond `max_position_embeddings`.
    Dynamic {
        factor: f64,
        max_position_embeddings: usize,
    },
    /// `dynamic` with an `alpha`: another base, whatever the length.
    Alpha { alpha: f64 },
    /// `yarn`: a ramp between kept and divided frequencies.
    Yarn {
        factor: f64,
        original_max_position_embeddings: usize,
        attention_factor: f64,
        beta_fast: f64,
        beta_slow: f64,
        truncate: bool,
    },
    /// `proportional`: of all frequencies of a head only the first ones turn, by positions divided by a
    /// factor.
    Proportional { factor: f64, turning: usize },
    /// `llama3`: low frequencies divided, high ones kept.
    Llama3 {
        factor: f64,
        low_freq_factor: f64,
        high_freq_factor: f64,
        original_max_position_embeddings: usize,
    },
    /// `longrope`: a divisor for each frequency, one set for short and one for long sequences.
    LongRope {
        short_factor: Vec<f64>,
        long_factor: Vec<f64>,
        original_max_position_embeddings: usize,
        attention_factor: f64,
    },
}

/// What a model type's files may leave out or call otherwise.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct RopeDefaults {
    /// Base of the wavelengths.
    pub theta: f64,
    /// The rotated share of a head's features, for model types that have such a choice.
    pub partial_rotary_factor: Option<f64>,
    /// The length in pretraining, unless it is `max_position_embeddings`.
    pub original_positions: Option<usize>,
    /// Words that stand for `longrope`, too.
    pub longrope_names: &'static [&'static str],
    /// Whether `dynamic` with an `alpha` means another base, whatever the length.
    pub alpha: bool,
    /// The kind of layers whose positions these are, where `rope_parameters` has an object for each
    /// kind.
    pub layer_type: Option<&'static str>,
    /// The key of the base where the file has no `rope_parameters`; without one it is `theta`.
    pub theta_key: Option<&'static str>,
    /// Whether `rope_scaling` is about these layers.
    pub scaled: bool,
    /// Which two features of a head turn together.
    pub pairs: RopePairs,
}

impl RopeDefaults {
    /// Those of most model types.
    pub const USUAL: Self = Self {
        theta: 10_000.0,
        partial_rotary_factor: None,
        original_positions: None,
        longrope_names: &[],
        alpha: false,
        layer_type: None,
        theta_key: Some("rope_theta"),
        scaled: true,
        pairs: RopePairs::Halves,
    };

    /// With another base of the wavelengths.
    #[must_use]
    pub const fn with_theta(self, theta: f64) -> Self {
        Self { theta, ..self }
    }

    /// With a share of a head's features that is rotated unless the file has another one.
    #[must_use]
    pub const fn with_partial_rotary_factor(self, factor: f64) -> Self {
        Self {
            partial_rotary_factor: Some(factor),
            ..self
        }
    }
}

impl RopeConfig {
    /// Reads the rotary positions of heads of `head_dim` features, in a model that is meant for
    /// `max_positions`.
    ///
    /// # Errors
    /// If a value is missing, impossible or asks for something that is not implemented.
    pub fn read(
        root: Object,
        defaults: &RopeDefaults,
        head_dim: usize,
        max_positions: usize,
    ) -> Result<Self> {
        let legacy = root.object("rope_scaling", "rope_scaling.")?;
        let legacy = legacy.filter(|_| defaults.scaled);
        let both;
        let scaling = match (legacy, parameters(root, defaults.layer_type)?) {
            // Where kinds of layers have their own, transformers changes those of one kind.
            (Some(scaling), of_layers) if defaults.layer_type.is_some() => {
                both = scaling.over(match of_layers {
                    Some(of_layers) => of_layers.over(json!({})),
                    None => json!({"rope_type": "default"}),
                });
                Some(scaling.with_value(&both))
            }
            (Some(scaling), _) => Some(scaling),
            (None, parameters) => parameters,
        };
        // Keys that are not in the inner object are looked for beside it.
        let rope = scaling.unwrap_or(root);
        if let Some(key) = scaling.and_then(|s| s.nested().next()) {
            return Err(rope.error(key, "rotary positions by layer type are not supported"));
        }
        let beside = |key| if rope.has(key) { rope } else { root };
        let theta = match scaling.filter(|rope| rope.has("rope_theta")) {
            Some(rope) => rope.positive("rope_theta")?,
            None => match defaults.theta_key {
                Some(key) => root.positive(key)?,
                None => None,
            },
        };
        let theta = theta.unwrap_or(defaults.theta);
        if theta <= 1.0 {
            let reason = format!("must be greater than 1, found {theta}");
            return Err(rope.error("rope_theta", reason));
        }
        let partial = beside("partial_rotary_factor").positive("partial_rotary_factor")?;
        let partial = partial.or(defaults.partial_rotary_factor).unwrap_or(1.0);
        let is_proportional =
            scaling.is_some_and(|rope| kind_of(rope).is_ok_and(|kind| kind == PROPORTIONAL));
        let has_part = is_proportional || defaults.partial_rotary_factor.is_some();
        if partial > 1.0 || (partial != 1.0 && !has_part) {
            let reason = format!("{partial} is not supported for this model_type");
            return Err(rope.error("partial_rotary_factor", reason));
        }
        let turning = (head_dim as f64 * partial) as usize;
        let dim = if is_proportional { head_dim } else { turning };
        if dim == 0 || !dim.is_multiple_of(2) {
            let reason = format!("rotary positions need an even number of features, found {dim}");
            return Err(root.error("head_dim", reason));
        }
        let scaling = match scaling {
            None => RopeScaling::Default,
            Some(rope) => Scaling {
                root,
                rope,
                defaults,
                max_positions,
                dim,
                turning,
            }
            .parse()?,
        };
        Ok(Self {
            theta,
            dim,
            pairs: defaults.pairs,
            scaling,
        })
    }
}

/// `rope_parameters`, those of a kind of layers where there are several.
fn parameters<'a>(root: Object<'a>, layer_type: Option<&str>) -> Result<Option<Object<'a>>> {
    let Some(all) = root.object("rope_parameters", "rope_parameters.")? else {
        return Ok(None);
    };
    let Some(layer_type) = layer_type else {
        return Ok(Some(all));
    };
    if all.nested().next().is_none() {
        let reason =
            format!("expected an object for each kind of layers, `{layer_type}` among them");
        return Err(root.error("rope_parameters", reason));
    }
    all.object(layer_type, "rope_parameters.")
}

/// What the parser of a scaling works with.
struct Scaling<'a> {
    root: Object<'a>,
    rope: Object<'a>,
    defaults: &'a RopeDefaults,
    max_positions: usize,
    dim: usize,
    /// Features that are rotated where all frequencies of a head are divided among fewer.
    turning: usize,
}

/// The word for rotary positions of a part of a head whose frequencies are those of the whole head.
const PROPORTIONAL: &str = "proportional";

/// The kind of scaling that is asked for.
fn kind_of(rope: Object) -> Result<String> {
    let key = kind_key(rope);
    let kind: Option<String> = key.map_or(Ok(None), |key| rope.get(key))?;
    Ok(kind.unwrap_or_else(|| "default".to_owned()))
}

/// The key that has it.
fn kind_key(rope: Object) -> Option<&'static str> {
    ["rope_type", "type"].into_iter().find(|key| rope.has(key))
}

impl Scaling<'_> {
    fn parse(&self) -> Result<RopeScaling> {
        let rope = self.rope;
        let (key, kind) = (kind_key(rope), kind_of(rope)?);
        let kind = kind.as_str();
        if self.defaults.longrope_names.contains(&kind) {
            return self.long_rope();
        }
        match kind {
            "default" => Ok(RopeScaling::Default),
            "longrope" => self.long_rope(),
            "linear" => Ok(RopeScaling::Linear {
                factor: rope.require_positive("factor")?,
            }),
            PROPORTIONAL => Ok(RopeScaling::Proportional {
                factor: rope.positive("factor")?.unwrap_or(1.0),
                turning: self.turning / 2,
            }),
            "dynamic" => self.dynamic(),
            "yarn" => self.yarn(),
            "llama3" => self.llama3(),
            _ => {
                let known = [
                    "default",
                    "linear",
                    "dynamic",
                    "yarn",
                    "llama3",
                    "longrope",
                    PROPORTIONAL,
                ];
                Err(rope.unsupported(key.unwrap_or("rope_type"), kind, known))
            }
        }
    }

    /// The length in pretraining. Some model types keep it at the root of the file; what they have
    /// by default stands there, too, and goes before the object's.
    fn original_positions(&self) -> Result<usize> {
        let key = "original_max_position_embeddings";
        let at_root = self.root.size(key)?.or(self.defaults.original_positions);
        match at_root {
            Some(length) => Ok(length),
            None => Ok(self.rope.size(key)?.unwrap_or(self.max_positions)),
        }
    }

    fn dynamic(&self) -> Result<RopeScaling> {
        // As in Python, 0 is as good as none.
        let alpha = match self.defaults.alpha {
            true => self.rope.get::<f64>("alpha")?,
            false => None,
        };
        let alpha = alpha.filter(|&alpha| alpha != 0.0);
        if alpha.is_some_and(|alpha| alpha < 0.0) {
            return Err(self.rope.error("alpha", "must be positive"));
        }
        if self.dim == 2 {
            let reason = "dynamic scaling needs more than two rotated features";
            return Err(self.root.error("head_dim", reason));
        }
        if let Some(alpha) = alpha {
            return Ok(RopeScaling::Alpha { alpha });
        }
        let factor = self.rope.require_positive("factor")?;
        if factor < 1.0 {
            let reason = format!("must be at least 1, found {factor}");
            return Err(self.rope.error("factor", reason));
        }
        Ok(RopeScaling::Dynamic {
            factor,
            max_position_embeddings: self.max_positions,
        })
    }

    fn yarn(&self) -> Result<RopeScaling> {
        let rope = self.rope;
        let original = self.original_positions()?;
        let factor = rope.positive("factor")?;
        let factor = factor.unwrap_or(self.max_positions as f64 / original as f64);
        let scale = |mscale: f64| match factor <= 1.0 {
            true => 1.0,
            false => 0.1 * mscale * factor.ln() + 1.0,
        };
        // Zero means "not given", as in Python's `if mscale and mscale_all_dim`.
        let given = |key| Ok::<_, qoft_core::Error>(rope.get::<f64>(key)?.filter(|&v| v != 0.0));
        let attention_factor = match rope.positive("attention_factor")? {
            Some(given) => given,
            None => match (given("mscale")?, given("mscale_all_dim")?) {
                (Some(mscale), Some(all)) => scale(mscale) / scale(all),
                _ => scale(1.0),
            },
        };
        Ok(RopeScaling::Yarn {
            factor,
            original_max_position_embeddings: original,
            attention_factor,
            beta_fast: given("beta_fast")?.unwrap_or(32.0),
            beta_slow: given("beta_slow")?.unwrap_or(1.0),
            truncate: rope.get("truncate")?.unwrap_or(true),
        })
    }

    fn llama3(&self) -> Result<RopeScaling> {
        let rope = self.rope;
        let low_freq_factor = rope.require_positive("low_freq_factor")?;
        let high_freq_factor = rope.require_positive("high_freq_factor")?;
        if high_freq_factor <= low_freq_factor {
            let reason = format!("must be greater than low_freq_factor, {low_freq_factor}");
            return Err(rope.error("high_freq_factor", reason));
        }
        Ok(RopeScaling::Llama3 {
            factor: rope.require_positive("factor")?,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings: self.original_positions()?,
        })
    }

    fn long_rope(&self) -> Result<RopeScaling> {
        let rope = self.rope;
        let factors = |key| {
            let factors: Vec<f64> = rope.require(key)?;
            let width = self.dim / 2;
            if factors.len() != width || factors.iter().any(|&f| f <= 0.0) {
                return Err(rope.error(key, format!("expected {width} positive numbers")));
            }
            Ok(factors)
        };
        let original = self.original_positions()?;
        let factor = rope.positive("factor")?;
        let factor = factor.unwrap_or(self.max_positions as f64 / original as f64);
        let default = match factor <= 1.0 || original == 1 {
            true => 1.0,
            false => (1.0 + factor.ln() / (original as f64).ln()).sqrt(),
        };
        Ok(RopeScaling::LongRope {
            short_factor: factors("short_factor")?,
            long_factor: factors("long_factor")?,
            original_max_position_embeddings: original,
            attention_factor: rope.positive("attention_factor")?.unwrap_or(default),
        })
    }
}

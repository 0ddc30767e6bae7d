//! How each module is quantized, as mlx-lm writes it.

use qoft_scheme::{Checkpoint, Error, Keys, LayerSource, Result, TensorView};
use serde_json::Value;

/// The key of `config.json`; newer versions repeat its value as `quantization_config`.
const KEY: &str = "quantization";
/// Keys of the parameters.
pub const GROUP_SIZE: &str = "group_size";
/// As before.
pub const BITS: &str = "bits";
/// As before.
pub const MODE: &str = "mode";

/// What codes and scales stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Unsigned integers with a scale and an offset for each group.
    Affine,
    /// E2M1 with powers of two.
    Mxfp4,
    /// E4M3 with powers of two.
    Mxfp8,
    /// E2M1 with scales in E4M3.
    Nvfp4,
}

impl Mode {
    const ALL: [(&str, Self); 4] = [
        ("affine", Self::Affine),
        ("mxfp4", Self::Mxfp4),
        ("mxfp8", Self::Mxfp8),
        ("nvfp4", Self::Nvfp4),
    ];

    /// The library's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Affine => "affine",
            Self::Mxfp4 => "mxfp4",
            Self::Mxfp8 => "mxfp8",
            Self::Nvfp4 => "nvfp4",
        }
    }

    /// The parameters where they are not given; other modes than affine have no others.
    fn defaults(self) -> Parameters {
        let (group_size, bits) = match self {
            Self::Affine => (64, 4),
            Self::Mxfp4 => (32, 4),
            Self::Mxfp8 => (32, 8),
            Self::Nvfp4 => (16, 4),
        };
        Parameters {
            mode: self,
            group_size,
            bits,
        }
    }
}

/// How a module is quantized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameters {
    /// What codes and scales stand for.
    pub mode: Mode,
    /// Input features that share a scale.
    pub group_size: usize,
    /// Width of a code.
    pub bits: u32,
}

impl Parameters {
    /// Reads an object with the keys `group_size`, `bits` and `mode`.
    ///
    /// # Errors
    /// If the library has no such parameters.
    pub fn read(keys: &Keys) -> Result<Self> {
        let mode = keys.choice(MODE, &Mode::ALL)?.unwrap_or(Mode::Affine);
        let defaults = mode.defaults();
        let found = Self {
            mode,
            group_size: keys.get(GROUP_SIZE)?.unwrap_or(defaults.group_size),
            bits: keys.get(BITS)?.unwrap_or(defaults.bits),
        };
        found
            .check()
            .map_err(|(key, reason)| keys.error(key, reason))?;
        Ok(found)
    }

    /// What is wrong with the parameters, and under which key.
    fn check(self) -> std::result::Result<(), (&'static str, String)> {
        let Self {
            mode,
            group_size,
            bits,
        } = self;
        let only = mode.defaults();
        if mode != Mode::Affine && self != only {
            let name = mode.name();
            return Err(match bits == only.bits {
                true => (
                    GROUP_SIZE,
                    format!(
                        "{name} has groups of {}, found {group_size}",
                        only.group_size
                    ),
                ),
                false => (BITS, format!("{name} has {} bits, found {bits}", only.bits)),
            });
        }
        if group_size == 0 {
            return Err((GROUP_SIZE, "expected more than 0, found 0".to_owned()));
        }
        match bits {
            1..=6 | 8 => Ok(()),
            _ => Err((BITS, format!("expected 1 to 6 or 8, found {bits}"))),
        }
    }
}

/// What the configuration says of the modules.
#[derive(Debug, Clone)]
pub struct MlxConfig {
    keys: Keys,
}

impl MlxConfig {
    /// Finds the configuration; `None` where it is another scheme's.
    pub fn find(checkpoint: &Checkpoint) -> Result<Option<Self>> {
        let own = checkpoint.config().get(KEY).filter(|own| own.is_object());
        let keys = match own {
            Some(own) => Keys::new(KEY, own.clone()),
            None => Keys::quantization(checkpoint, &[])?,
        };
        let foreign = own.is_none() && keys.method().is_some();
        Ok((!foreign).then_some(Self { keys }))
    }

    /// How the module of a layer with such codes and scales is quantized. What stands under its path
    /// comes first, then the values for all modules. Without any configuration the tensors tell, where
    /// the model's sizes are known.
    ///
    /// # Errors
    /// If the configuration is wrong, or says that the module is dense.
    pub fn of(
        &self,
        layer: &LayerSource,
        codes: &TensorView,
        scales: &TensorView,
    ) -> Result<Parameters> {
        let path = layer.path();
        match self.keys.value(path) {
            Some(Value::Object(_)) => {
                let own = self.keys.object(path);
                return own.map_or_else(
                    || Parameters::read(&self.keys),
                    |own| Parameters::read(&own),
                );
            }
            Some(Value::Bool(true)) => return Parameters::read(&self.keys),
            Some(value) => return Err(self.not_for_codes(path, value)),
            None => {}
        }
        match layer.expected_shape() {
            Some([_, k]) if self.keys.all().is_none() => inferred(k, codes, scales),
            _ => Parameters::read(&self.keys),
        }
    }

    fn not_for_codes(&self, path: &str, value: &Value) -> Error {
        let reason = format!("expected parameters, since the module has scales, found {value}");
        self.keys.error(path, reason)
    }
}

/// The parameters that fit tensors of a module with `k` input features.
fn inferred(k: usize, codes: &TensorView, scales: &TensorView) -> Result<Parameters> {
    let ([_, words], [_, groups]) = (codes.matrix()?, scales.matrix()?);
    let bits = words.checked_mul(32).filter(|_| k > 0).map(|bits| bits / k);
    let found = Parameters {
        mode: Mode::Affine,
        group_size: k / groups,
        bits: bits.and_then(|bits| u32::try_from(bits).ok()).unwrap_or(0),
    };
    if scales.float_format().is_ok() {
        let wrong = |(_, reason)| codes.error(format!("codes of {k} input features"), reason);
        return found.check().map_err(wrong).map(|()| found);
    }
    let modes = [Mode::Nvfp4, Mode::Mxfp4, Mode::Mxfp8].map(Mode::defaults);
    let fits = |mode: &Parameters| (mode.bits, mode.group_size) == (found.bits, found.group_size);
    modes.into_iter().find(fits).ok_or_else(|| {
        let what = format!("{} bits in groups of {}", found.bits, found.group_size);
        scales.error("scales of mxfp4, mxfp8 or nvfp4", what)
    })
}

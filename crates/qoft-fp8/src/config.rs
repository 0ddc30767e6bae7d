//! What `quantization_config` says of an FP8 checkpoint.

use qoft_scheme::{Dtype, Keys, LayerSource, Result, TensorView};

use crate::tensors::{SCALES, WEIGHT};

/// Rows and columns of a block where the configuration does not say.
pub const DEFAULT_BLOCK: [usize; 2] = [128, 128];
/// The key of their sizes.
pub const BLOCK: &str = "weight_block_size";
/// What transformers takes for the bound of FBGEMM's input scales.
const DEFAULT_BOUND: f32 = 1200.0;

/// What the configuration calls the scheme of a checkpoint that may be of this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// `fp8`: blocks, or whatever the scales' shape says.
    FineGrained,
    /// `fbgemm_fp8`: a scale for each row.
    Fbgemm,
    /// It has no name: the tensors have to tell.
    Nothing,
}

impl Named {
    /// `None` where it is another scheme's.
    pub fn of(keys: &Keys) -> Option<Self> {
        match keys.method().as_deref() {
            Some("fp8") => Some(Self::FineGrained),
            Some("fbgemm_fp8") => Some(Self::Fbgemm),
            Some(_) => None,
            None => Some(Self::Nothing),
        }
    }

    /// Whether a layer is of the scheme. Layers that transformers left dense may have scales too,
    /// which mean nothing.
    pub fn claims(self, layer: &LayerSource) -> bool {
        let weight = layer.get(WEIGHT);
        let is_fp8 = |weight: &TensorView| weight.dtype() == Dtype::F8_E4M3;
        match (self, &weight) {
            (_, Some(weight)) if weight.float_format().is_ok() => false,
            (Self::Nothing, weight) => weight.as_ref().is_some_and(is_fp8) && layer.has(SCALES[0]),
            (_, Some(weight)) if is_fp8(weight) => true,
            // The weight is missing, or is none that the scheme has.
            _ => SCALES[..2].iter().any(|name| layer.has(name)),
        }
    }
}

/// The keys that matter to a reader.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fp8Config {
    /// Rows and columns that share a scale; `None` if that is for the scales' shape to say.
    pub blocks: Option<[usize; 2]>,
    /// How inputs are quantized; `None` if they are left as they are.
    pub activations: Option<Activations>,
}

/// How the scales of inputs are found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activations {
    /// A fixed one, in the file.
    Static,
    /// From the input, for each token and each block of input features.
    Dynamic,
    /// From the input, for each token, and no larger than for a value of this size.
    Bounded(f32),
}

impl Fp8Config {
    /// Reads the keys; `activations` says whether inputs are to be quantized at all.
    ///
    /// # Errors
    /// If a value is of the wrong kind.
    pub fn read(keys: &Keys, named: Named, activations: bool) -> Result<Self> {
        let (blocks, scheme) = match named {
            Named::Fbgemm => (None, Activations::Bounded(activation_bound(keys)?)),
            _ => (block_size(keys)?, activation_scheme(keys)?),
        };
        Ok(Self {
            blocks,
            activations: activations.then_some(scheme),
        })
    }
}

/// How transformers finds the scales of inputs.
///
/// # Errors
/// If it is another word.
pub fn activation_scheme(keys: &Keys) -> Result<Activations> {
    let schemes = [
        ("dynamic", Activations::Dynamic),
        ("static", Activations::Static),
    ];
    let scheme = keys.choice("activation_scheme", &schemes)?;
    Ok(scheme.unwrap_or(Activations::Dynamic))
}

/// The largest input that FBGEMM makes a scale of.
///
/// # Errors
/// If it is no positive number.
pub fn activation_bound(keys: &Keys) -> Result<f32> {
    const KEY: &str = "activation_scale_ub";
    match keys.get::<f32>(KEY)? {
        None => Ok(DEFAULT_BOUND),
        Some(bound) if bound > 0.0 && bound.is_finite() => Ok(bound),
        Some(bound) => Err(keys.error(KEY, format!("expected a positive number, found {bound}"))),
    }
}

/// Rows and columns that share a scale; `None` if that is null.
///
/// # Errors
/// If it is neither null nor two positive numbers.
pub fn block_size(keys: &Keys) -> Result<Option<[usize; 2]>> {
    // Null is not the default here, as it is elsewhere.
    let Some(value) = keys.all().and_then(|all| all.get(BLOCK)) else {
        return Ok(Some(DEFAULT_BLOCK));
    };
    if value.is_null() {
        return Ok(None);
    }
    match keys.get::<[usize; 2]>(BLOCK) {
        Ok(Some([rows, cols])) if rows > 0 && cols > 0 => Ok(Some([rows, cols])),
        _ => {
            let reason = format!("expected null or two positive numbers, found {value}");
            Err(keys.error(BLOCK, reason))
        }
    }
}

//! MLX's tensors ↔ our packed form.
//!
//! | tensor | dtype | shape |
//! |---|---|---|
//! | `weight` | U32 | `[out, in · bits / 32]`: a stream of bits along each row, lowest first |
//! | `scales` | F32, F16, BF16; U8 in the modes of small floats | `[out, in / group_size]` |
//! | `biases` (affine) | as `scales` | `[out, in / group_size]` |
//!
//! Affine: `W = round(round(code · scale) + bias)` in the dtype of the scales, as the library computes
//! on a CPU. The other modes have `W = number · scale`.

use qoft_scheme::kernels::{
    CodeMap, Codes, FP4, Fp8Format, GroupedWeight, Groups, Scales, Zeros, integer_name,
    powers_of_two,
};
use qoft_scheme::{Dtype, LayerSource, Result, TensorView};

use crate::config::{MlxConfig, Mode, Parameters};

/// Name of the codes.
pub const WEIGHT: &str = "weight";
/// Name of the scales.
pub const SCALES: &str = "scales";
/// Name of the offsets; a layer's own bias has its plain name.
pub const BIASES: &str = "biases";
/// Bits of a word of codes.
pub const WORD: usize = 32;

/// A layer's tensors and what they are, checked against each other.
pub struct MlxLayer {
    /// `[out_features, in_features]`.
    pub shape: [usize; 2],
    /// How it is quantized.
    pub parameters: Parameters,
    /// The scales.
    pub scales: TensorView,
    /// The offsets, where the mode has some.
    pub biases: Option<TensorView>,
    codes: TensorView,
}

impl MlxLayer {
    /// Whether the tensors are such a layer's, perhaps damaged.
    pub fn claims(layer: &LayerSource) -> bool {
        let words = |weight: TensorView| weight.dtype() == Dtype::U32;
        let beside = [SCALES, BIASES].map(|name| layer.has(name));
        beside == [true; 2] || beside != [false; 2] && layer.get(WEIGHT).is_some_and(words)
    }

    /// Finds a layer's tensors.
    ///
    /// # Errors
    /// If one is missing or does not fit the others or the configuration.
    pub fn parse(layer: &LayerSource, config: &MlxConfig) -> Result<Self> {
        let codes = layer.tensor(WEIGHT)?;
        let [n, words] = codes.expect_dtype(&[Dtype::U32])?.matrix()?;
        let scales = layer.tensor(SCALES)?;
        let parameters = config.of(layer, &codes, &scales)?;
        let Parameters {
            mode,
            group_size,
            bits,
        } = parameters;
        let k = words
            .checked_mul(WORD)
            .filter(|all| all.is_multiple_of(bits as usize))
            .map(|all| all / bits as usize)
            .filter(|k| k.is_multiple_of(group_size))
            .ok_or_else(|| {
                let expected = format!("rows of whole groups of {group_size} codes of {bits} bits");
                codes.error(expected, codes.shown_shape())
            })?;
        let shape = [n, k / group_size];
        scales.expect_shape(&shape)?;
        let biases = match mode {
            Mode::Affine => {
                scales.float_format()?;
                let biases = layer.tensor(BIASES)?;
                biases
                    .expect_shape(&shape)?
                    .expect_dtype(&[scales.dtype()])?;
                Some(biases)
            }
            _ => {
                scales.expect_dtype(&[Dtype::U8])?;
                None
            }
        };
        Ok(Self {
            shape: [n, k],
            parameters,
            scales,
            biases,
            codes,
        })
    }

    /// Codes, scales and offsets stay on the memory map.
    ///
    /// # Errors
    /// If a scale, an offset or a weight is not finite.
    pub fn packed(&self) -> Result<GroupedWeight> {
        let codes = Codes::new(self.codes.bytes().clone(), self.parameters.bits);
        let groups = Groups::Blocks([1, self.parameters.group_size]);
        let mode = self.parameters.mode;
        let Some(biases) = &self.biases else {
            let scales = Scales::coded(self.scales.bytes().clone(), scale_table(mode))?;
            let map = match mode {
                Mode::Mxfp8 => CodeMap::Table256(Fp8Format::E4m3.table()),
                _ => CodeMap::Table16(Box::new(FP4)),
            };
            let parts = GroupedWeight::builder(self.shape, codes, map, groups, scales);
            return Ok(parts.build(mode.name())?);
        };
        let (scales, offsets) = (self.scales.floats()?, Zeros::Offsets(biases.floats()?));
        let rounding = scales.format();
        let (map, scales) = (CodeMap::Unsigned, Scales::Plain(scales));
        let parts = GroupedWeight::builder(self.shape, codes, map, groups, scales);
        let parts = parts.zeros(offsets).rounding(rounding);
        Ok(parts.build(integer_name(self.parameters.bits as usize))?)
    }
}

/// The scales that bytes stand for, in a mode that has bytes.
pub fn scale_table(mode: Mode) -> Box<[f32; 256]> {
    match mode {
        Mode::Nvfp4 => Fp8Format::E4m3.table(),
        _ => powers_of_two(),
    }
}

//! The scheme's tensors as our packed form.

use qoft_core::kernels::{
    CodeMap, Codes, FloatFormat, Floats, GroupedWeight, Groups, Scales, Zeros,
};
use qoft_core::{Dtype, LayerSource, LoadedLinear, ParsedLayer, Purpose, Result, TensorView};

use crate::config::Scale;
use crate::input::TokenInt8;

/// Name of the codes: four rows of the weight in one of bytes, `[out_features / 4, in_features]`.
pub const WEIGHT: &str = "weight";
/// Name of the scale of the whole matrix.
pub const SCALE: &str = "weight_scale";

/// Codes in a byte.
const IN_BYTE: usize = 4;
/// Bits of a code.
const BITS: u32 = 2;
/// The code of 0.
const ZERO: u8 = 1;

/// The tensors of a layer, checked.
pub struct BitLayer {
    shape: [usize; 2],
    codes: TensorView,
    scale: f32,
}

impl BitLayer {
    /// Finds the tensors; `meaning` is what the stored scale stands for.
    ///
    /// # Errors
    /// If a tensor is missing, or of another dtype or shape, or the scale is no positive number.
    pub fn parse(layer: &LayerSource, meaning: Scale) -> Result<Self> {
        let codes = layer.tensor(WEIGHT)?;
        let [rows, in_features] = codes.expect_dtype(&[Dtype::U8])?.matrix()?;
        let stored = layer.tensor(SCALE)?;
        let scale = match stored.to_finite_f32()?[..] {
            [scale] if scale > 0.0 => scale,
            _ => return Err(stored.error("one positive number", stored.shown_shape())),
        };
        Ok(Self {
            shape: [rows.saturating_mul(IN_BYTE), in_features],
            codes,
            scale: match meaning {
                Scale::Divides => scale.recip(),
                Scale::Multiplies => scale,
            },
        })
    }

    /// The codes row by row. A byte has those of four rows that are a quarter of the matrix apart,
    /// the first one in the lowest bits.
    fn packed(&self) -> Codes {
        let ([n, k], bytes) = (self.shape, self.codes.bytes());
        let rows = n / IN_BYTE;
        let row = |n: usize| {
            let bits = BITS * (n / rows) as u32;
            let bytes = &bytes[n % rows * k..][..k];
            bytes.iter().map(move |byte| byte >> bits & 0b11)
        };
        Codes::pack(BITS, (0..n).flat_map(row))
    }
}

impl ParsedLayer for BitLayer {
    fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Layers round their inputs whenever they compute; the dense weight alone is made of the codes.
    fn load(&self, purpose: Purpose) -> Result<LoadedLinear> {
        let scales = Scales::Plain(Floats::from_f32(&[self.scale], FloatFormat::F32)?);
        let map = CodeMap::Unsigned;
        let weight = GroupedWeight::builder(self.shape, self.packed(), map, Groups::TENSOR, scales);
        let weight = weight.zeros(Zeros::Integers(vec![ZERO].into()));
        let loaded = LoadedLinear::new(weight.build("ternary")?);
        Ok(match purpose {
            Purpose::Forward => loaded.with_input_quantizer(Some(std::sync::Arc::new(TokenInt8))),
            _ => loaded,
        })
    }
}

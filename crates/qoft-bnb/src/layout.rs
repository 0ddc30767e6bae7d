//! bitsandbytes' tensors ↔ our packed form.

use std::sync::Arc;

use qoft_scheme::kernels::{CodeMap, Codes, GroupedWeight, Groups, Scales};
use qoft_scheme::{Dtype, LayerSource, Purpose, Result, TensorView};

use crate::config::QuantState;
use crate::input::OutlierInt8;
use crate::tables::ONE_127TH;

/// A 4-bit layer.
pub struct FourBit {
    /// `[out_features, in_features]`.
    pub shape: [usize; 2],
    /// What the layer says of itself.
    pub state: QuantState,
    /// The name of the tensor that holds the state.
    pub state_name: String,
    /// The numbers of the codes.
    pub table: [f32; 16],
    /// How the absmax values are stored, if they are quantized themselves.
    pub nested: Option<Nested>,
    weight: TensorView,
    /// The largest magnitudes of the blocks, or their codes.
    pub absmax: TensorView,
}

/// Absmax values that are quantized themselves.
pub struct Nested {
    /// The numbers of the codes.
    pub table: [f32; 256],
    /// Groups that share an absmax.
    pub block: usize,
    /// The absmax values of the absmax values.
    pub absmax: TensorView,
    /// What was subtracted before they were quantized.
    pub offset: f32,
}

impl FourBit {
    /// Finds the tensors of a layer.
    ///
    /// # Errors
    /// If one is missing or does not fit the others.
    pub fn parse(layer: &LayerSource) -> Result<Self> {
        let (state, state_name) = QuantState::read(layer)?;
        let shape = match state.shape.as_deref() {
            Some(&[n, k]) => [n, k],
            Some(other) => {
                let reason = format!("expected a matrix, found shape {other:?}");
                return Err(layer.error(reason));
            }
            None => layer
                .expected_shape()
                .ok_or_else(|| layer.error("the quantization state has no shape"))?,
        };
        let weight = layer.tensor("weight")?;
        let storage = [Dtype::U8, Dtype::I8, Dtype::BF16, Dtype::F16, Dtype::F32];
        weight.expect_dtype(&storage)?;
        let table = fixed(&layer.tensor("weight.quant_map")?)?;
        let absmax = layer.tensor("weight.absmax")?;
        absmax.expect_dtype(&[Dtype::U8, Dtype::F32])?;
        let nested = match absmax.dtype() {
            Dtype::F32 => None,
            _ => Some(Nested::parse(layer, &state, &absmax)?),
        };
        Ok(Self {
            shape,
            state,
            state_name,
            table,
            nested,
            weight,
            absmax,
        })
    }

    /// Two weights share a byte, the first in the high half. The codes stay on the memory map, and nested
    /// absmax values do so as well.
    ///
    /// # Errors
    /// If the sizes do not fit each other, or a scale is not finite.
    pub fn packed(&self, purpose: Purpose) -> Result<GroupedWeight> {
        let scales = match &self.nested {
            None => Scales::Plain(self.absmax.floats()?),
            Some(nested) => Scales::Nested {
                codes: self.absmax.bytes().clone(),
                table: Box::new(nested.table),
                absmax: nested.absmax.floats()?,
                block: nested.block,
                offset: nested.offset,
            },
        };
        let parts = GroupedWeight::builder(
            self.shape,
            Codes::high_first(self.weight.bytes().clone()),
            CodeMap::Table16(Box::new(self.table)),
            Groups::Flat(self.state.blocksize),
            scales,
        );
        // The reference computes with the unrounded products; only its dequantization rounds.
        let parts = match purpose {
            Purpose::Dequantize => parts.rounding(self.state.dtype.format()),
            _ => parts,
        };
        Ok(parts.build(self.state.format())?)
    }

    /// Bytes of the packed codes, and what fills the last word of their storage dtype up.
    pub fn packed_len(&self) -> usize {
        self.weight.bytes().len()
    }
}

impl Nested {
    fn parse(layer: &LayerSource, state: &QuantState, codes: &TensorView) -> Result<Self> {
        let missing = |key: &str| layer.error(format!("nested absmax without `{key}`"));
        let block = state
            .nested_blocksize
            .filter(|&block| block > 0)
            .ok_or_else(|| missing("nested_blocksize"))?;
        let offset = state
            .nested_offset
            .ok_or_else(|| missing("nested_offset"))? as f32;
        let absmax = layer.tensor("weight.nested_absmax")?;
        absmax.expect_shape(&[codes.elements().div_ceil(block)])?;
        Ok(Self {
            table: fixed(&layer.tensor("weight.nested_quant_map")?)?,
            block,
            absmax,
            offset,
        })
    }
}

/// A vector of so many finite `f32` values.
fn fixed<const N: usize>(tensor: &TensorView) -> Result<[f32; N]> {
    tensor.expect_dtype(&[Dtype::F32])?;
    let values = tensor.to_finite_f32()?;
    let found = values.len();
    values
        .try_into()
        .map_err(|_| tensor.error(format!("{N} values"), found))
}

/// An int8 layer: rows of codes and their absmax. The codes stay on the memory map.
pub struct EightBit {
    /// `[out_features, in_features]`.
    pub shape: [usize; 2],
    weight: TensorView,
    scb: TensorView,
    /// The quantization of the input.
    pub quantizer: Option<Arc<OutlierInt8>>,
}

impl EightBit {
    /// Finds the tensors of a layer, whose input is quantized by `quantizer`.
    ///
    /// # Errors
    /// If one is missing or does not fit the others.
    pub fn parse(layer: &LayerSource, quantizer: Option<Arc<OutlierInt8>>) -> Result<Self> {
        let weight = layer.tensor("weight")?;
        let shape = weight.expect_dtype(&[Dtype::I8])?.matrix()?;
        if let Some(format) = layer.get("weight_format") {
            format.expect_dtype(&[Dtype::U8])?;
            if format.bytes().iter().any(|&b| b != 0) {
                return Err(format.error("0 (row-major)", format!("{:?}", format.bytes())));
            }
        }
        let scb = layer.tensor("SCB")?;
        scb.expect_dtype(&[Dtype::F32])?.expect_shape(&shape[..1])?;
        Ok(Self {
            shape,
            weight,
            scb,
            quantizer,
        })
    }

    /// # Errors
    /// If a scale is not finite.
    pub fn packed(&self) -> Result<GroupedWeight> {
        let codes = Codes::new(self.weight.bytes().clone(), 8);
        let scales = Scales::Plain(self.scb.floats()?);
        let parts = GroupedWeight::builder(self.shape, codes, CodeMap::Int8, Groups::ROW, scales);
        Ok(parts.factor(ONE_127TH).build("int8")?)
    }
}

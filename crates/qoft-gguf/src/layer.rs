//! Layers of blocks. A weight of the type `Q4_K` is the tensor `weight.Q4_K` of a layer, of as many
//! rows as the weight and of the bytes of a row.

use qoft_scheme::kernels::Matrix;
use qoft_scheme::{
    Dtype, LayerSource, LoadedLinear, NewTensor, ParsedLayer, Purpose, Requantize, Result,
    TensorView,
};

use crate::block::BlockType;
use crate::quantize::quantize;

/// The beginning of the names of tensors that have blocks.
pub const WEIGHT: &str = "weight.";

/// The type of the blocks that a tensor of a layer has, by its name.
pub fn type_of(suffix: &str) -> Option<BlockType> {
    BlockType::ALL
        .into_iter()
        .map(|(_, block)| block)
        .find(|block| suffix.strip_prefix(WEIGHT) == Some(block.name()))
}

/// The type of a layer's weight.
pub fn claimed(layer: &LayerSource) -> Option<BlockType> {
    layer.suffixes().find_map(type_of)
}

/// A layer that was checked.
pub struct BlockLayer {
    tensor: TensorView,
    block: BlockType,
    shape: [usize; 2],
}

impl BlockLayer {
    /// Checks the tensor of a layer.
    pub fn parse(layer: &LayerSource) -> Result<Self> {
        let Some(block) = claimed(layer) else {
            return Err(layer.error("no tensor of blocks"));
        };
        let tensor = layer.tensor(&format!("{WEIGHT}{}", block.name()))?;
        let [rows, bytes] = tensor.expect_dtype(&[Dtype::U8])?.matrix()?;
        if !bytes.is_multiple_of(block.bytes()) {
            let expected = format!("rows of {} bytes for each block", block.bytes());
            return Err(tensor.error(expected, format!("{bytes} bytes")));
        }
        Ok(Self {
            shape: [rows, bytes / block.bytes() * block.values()],
            tensor,
            block,
        })
    }
}

impl ParsedLayer for BlockLayer {
    fn shape(&self) -> [usize; 2] {
        self.shape
    }

    fn load(&self, _purpose: Purpose) -> Result<LoadedLinear> {
        let weight = self.block.weight(self.shape, self.tensor.bytes().clone())?;
        Ok(LoadedLinear::shared(weight))
    }

    fn requantize(&self, weight: &Matrix, how: &Requantize) -> Result<Vec<NewTensor>> {
        let mut blocks = quantize(self.block, &weight.values);
        // Scales beyond half precision would be infinite.
        self.block.weight(self.shape, blocks.clone().into())?;
        let before = self.block.weight(self.shape, self.tensor.bytes().clone())?;
        let before = Matrix::decode(&*before).values;
        let (values, size) = (self.block.values(), self.block.bytes());
        let weights = weight.values.chunks(values).zip(before.chunks(values));
        let stored = blocks
            .chunks_mut(size)
            .zip(self.tensor.bytes().chunks(size));
        for ((block, old), (weight, before)) in stored.zip(weights) {
            // Not every type finds the same numbers for its own values again.
            if weight == before {
                block.copy_from_slice(old);
            }
        }
        let name = format!("{WEIGHT}{}", self.block.name());
        Ok(vec![how.current.rewritten(&name, blocks)?])
    }
}

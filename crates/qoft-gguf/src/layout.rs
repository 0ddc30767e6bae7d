//! Layers of blocks. A weight of the type `Q4_K` is the tensor `weight.Q4_K` of a layer, of as many
//! rows as the weight and of the bytes of a row.

use std::sync::Arc;

use qoft_scheme::kernels::PackedWeight;
use qoft_scheme::{Dtype, LayerSource, Result, TensorView};

use crate::block::BlockType;

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
    /// `[out_features, in_features]`.
    pub shape: [usize; 2],
    /// The type of its blocks.
    pub block: BlockType,
    /// The blocks, row by row.
    pub tensor: TensorView,
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

    /// The weight as it lies in the file.
    ///
    /// # Errors
    /// If a scale is not finite.
    pub fn packed(&self) -> Result<Arc<dyn PackedWeight>> {
        Ok(self.block.weight(self.shape, self.tensor.bytes().clone())?)
    }
}

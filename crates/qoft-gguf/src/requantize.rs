//! Quantizing a changed weight of a layer. Blocks that have not changed keep their bytes.

use qoft_scheme::kernels::Matrix;
use qoft_scheme::{NewTensor, Requantize, Result};

use crate::layout::{BlockLayer, WEIGHT};
use crate::quantize::quantize;

/// The layer again, in blocks of its type.
///
/// # Errors
/// If a scale is not finite, or the tensor is missing.
pub fn requantize(
    parsed: &BlockLayer,
    weight: &Matrix,
    how: &Requantize,
) -> Result<Vec<NewTensor>> {
    let block = parsed.block;
    let mut blocks = quantize(block, &weight.values);
    // Scales beyond half precision would be infinite.
    block.weight(parsed.shape, blocks.clone().into())?;
    let before = Matrix::decode(&*parsed.packed()?).values;
    let (values, size) = (block.values(), block.bytes());
    let weights = weight.values.chunks(values).zip(before.chunks(values));
    let stored = parsed.tensor.bytes().chunks(size);
    let stored = blocks.chunks_mut(size).zip(stored);
    for ((block, old), (weight, before)) in stored.zip(weights) {
        // Not every type finds the same numbers for its own values again.
        if weight == before {
            block.copy_from_slice(old);
        }
    }
    let name = format!("{WEIGHT}{}", block.name());
    Ok(vec![how.current.rewritten(&name, blocks)?])
}

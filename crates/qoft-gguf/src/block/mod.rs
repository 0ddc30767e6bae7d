//! The block types that tensors can have, decoded as `gguf-py` does it: fields of 16 bits are
//! widened first, and the arithmetic is that of `f32` in its order.

mod large;
mod small;

use std::sync::Arc;

use bytes::Bytes;
use half::f16;
use qoft_scheme::kernels::{BlockFormat, BlockWeight, PackedWeight, WeightError};

pub use large::scale_and_min;
pub use small::{FP4_LEVELS, IQ4_LEVELS, half_power};

/// A type of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockType {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Iq4Nl,
    Iq4Xs,
    Mxfp4,
}

/// Runs code for the format of a type.
macro_rules! of_type {
    ($type:expr, $format:ident => $body:expr) => {
        match $type {
            BlockType::Q4_0 => {
                type $format = small::Q4_0;
                $body
            }
            BlockType::Q4_1 => {
                type $format = small::Q4_1;
                $body
            }
            BlockType::Q5_0 => {
                type $format = small::Q5_0;
                $body
            }
            BlockType::Q5_1 => {
                type $format = small::Q5_1;
                $body
            }
            BlockType::Q8_0 => {
                type $format = small::Q8_0;
                $body
            }
            BlockType::Q2K => {
                type $format = large::Q2K;
                $body
            }
            BlockType::Q3K => {
                type $format = large::Q3K;
                $body
            }
            BlockType::Q4K => {
                type $format = large::Q4K;
                $body
            }
            BlockType::Q5K => {
                type $format = large::Q5K;
                $body
            }
            BlockType::Q6K => {
                type $format = large::Q6K;
                $body
            }
            BlockType::Iq4Nl => {
                type $format = small::Iq4Nl;
                $body
            }
            BlockType::Iq4Xs => {
                type $format = large::Iq4Xs;
                $body
            }
            BlockType::Mxfp4 => {
                type $format = small::Mxfp4;
                $body
            }
        }
    };
}

impl BlockType {
    /// All of them, with their numbers in files.
    pub const ALL: [(u32, Self); 13] = [
        (2, Self::Q4_0),
        (3, Self::Q4_1),
        (6, Self::Q5_0),
        (7, Self::Q5_1),
        (8, Self::Q8_0),
        (10, Self::Q2K),
        (11, Self::Q3K),
        (12, Self::Q4K),
        (13, Self::Q5K),
        (14, Self::Q6K),
        (20, Self::Iq4Nl),
        (23, Self::Iq4Xs),
        (39, Self::Mxfp4),
    ];

    /// `Q4_K` and the like.
    pub fn name(self) -> &'static str {
        of_type!(self, F => F::NAME)
    }

    /// Values in a block.
    pub fn values(self) -> usize {
        of_type!(self, F => F::VALUES)
    }

    /// Bytes of a block.
    pub fn bytes(self) -> usize {
        of_type!(self, F => F::BYTES)
    }

    /// A weight of `[out_features, in_features]`.
    pub fn weight(
        self,
        shape: [usize; 2],
        blocks: Bytes,
    ) -> Result<Arc<dyn PackedWeight>, WeightError> {
        of_type!(self, F => Ok(Arc::new(BlockWeight::<F>::new(shape, blocks)?)))
    }
}

/// The number of 16 bits at byte `at`.
#[inline(always)]
fn f16_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

fn f16_is_finite(block: &[u8], at: usize) -> bool {
    f16::from_le_bytes([block[at], block[at + 1]]).is_finite()
}

/// Decodes codes of 4 bits: the low ones of all bytes, then the high ones. `value` is told the
/// number of the element and its code.
#[inline(always)]
fn nibbles(codes: &[u8], out: &mut [f32], value: impl Fn(usize, u8) -> f32) {
    let (low, high) = out.split_at_mut(codes.len());
    for (j, (out, code)) in low.iter_mut().zip(codes).enumerate() {
        *out = value(j, code & 15);
    }
    for (j, (out, code)) in high.iter_mut().zip(codes).enumerate() {
        *out = value(j + codes.len(), code >> 4);
    }
}

#[cfg(test)]
mod tests {
    use qoft_scheme::kernels::Matrix;
    use safetensors::SafeTensors;

    use super::*;
    use crate::quantize::quantize;

    fn floats(bytes: &[u8]) -> Vec<f32> {
        let values = bytes.as_chunks::<4>().0.iter();
        values.map(|value| f32::from_le_bytes(*value)).collect()
    }

    #[test]
    fn blocks_decode_as_gguf_py_decodes_them() {
        let file = std::fs::read(qoft_fixtures::path("gguf/blocks.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&file).unwrap();
        for (_, block) in BlockType::ALL {
            let name = block.name();
            let blocks = file.tensor(&format!("{name}.blocks")).unwrap();
            let values = file.tensor(&format!("{name}.values")).unwrap();
            let (rows, bytes) = (blocks.shape()[0], blocks.data().to_vec());
            let weight = block.weight([rows, block.values()], bytes.into()).unwrap();
            let found: Vec<u32> = Matrix::decode(&*weight)
                .values
                .iter()
                .map(|v| v.to_bits())
                .collect();
            let expected: Vec<u32> = floats(values.data()).iter().map(|v| v.to_bits()).collect();
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn values_become_the_blocks_that_ggml_makes() {
        let file = std::fs::read(qoft_fixtures::path("gguf/quantized.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&file).unwrap();
        for (_, block) in BlockType::ALL {
            for number in ["0", "1", "2"] {
                let name = block.name();
                let values = floats(file.tensor(number).unwrap().data());
                let expected = file.tensor(&format!("{name}.{number}")).unwrap();
                let found = quantize(block, &values);
                let pairs = found
                    .chunks(block.bytes())
                    .zip(expected.data().chunks(block.bytes()));
                for (at, (found, expected)) in pairs.enumerate() {
                    assert_eq!(found, expected, "{name}, values {number}, block {at}");
                }
            }
        }
    }

    #[test]
    fn scales_that_are_not_finite_are_refused() {
        for (_, block) in BlockType::ALL {
            let blocks = vec![0xff; block.bytes()];
            assert!(
                block.weight([1, block.values()], blocks.into()).is_err(),
                "{}",
                block.name()
            );
        }
    }
}

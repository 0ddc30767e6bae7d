//! What operands of products are made of.

#[cfg(target_arch = "x86_64")]
use crate::simd::{Arch, arch};

/// An element of the operands of a product: 32 bits with numbers that follow each other along the inner
/// dimension. Sums are always `f32`.
pub(crate) trait Unit: Copy + Send + Sync + bytemuck::Pod {
    /// How many numbers it has.
    const NUMBERS: usize;
}

impl Unit for f32 {
    const NUMBERS: usize = 1;
}

/// Two numbers in bfloat16, the first one in the low half.
pub(crate) type Pair = u32;

impl Unit for Pair {
    const NUMBERS: usize = 2;
}

/// Whether this machine has an instruction for the product of pairs.
pub(crate) fn multiplies_pairs() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("avx512bf16") && matches!(arch(), Arch::V4(_))
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

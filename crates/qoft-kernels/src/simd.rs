//! The instruction set of this machine, looked up once.

use std::sync::LazyLock;

#[doc(hidden)]
pub use pulp::Arch;

static ARCH: LazyLock<Arch> = LazyLock::new(Arch::new);

/// What this machine has.
pub fn arch() -> Arch {
    *ARCH
}

/// Computes an expression with the widest vectors that there are.
///
/// It is repeated for each instruction set: a single closure, called in several places, would be
/// compiled for the least of them instead of being inlined. For the same reason, functions that
/// the expression calls are only compiled for them if they are `#[inline(always)]`.
#[macro_export]
macro_rules! wide {
    ($body:expr) => {
        match $crate::simd::arch() {
            #[cfg(target_arch = "x86_64")]
            $crate::simd::Arch::V4(simd) => simd.vectorize(|| $body),
            #[cfg(target_arch = "x86_64")]
            $crate::simd::Arch::V3(simd) => simd.vectorize(|| $body),
            #[cfg(target_arch = "aarch64")]
            $crate::simd::Arch::Neon(simd) => simd.vectorize(|| $body),
            _ => $body,
        }
    };
}

//! The instruction set of this machine, looked up once.

use std::sync::LazyLock;

use pulp::Arch;

static ARCH: LazyLock<Arch> = LazyLock::new(Arch::new);

/// What this machine has.
pub(crate) fn arch() -> Arch {
    *ARCH
}

/// Computes an expression with the widest vectors that there are.
///
/// It is repeated for each instruction set: a single closure, called in several places, would be
/// compiled for the least of them instead of being inlined.
macro_rules! wide {
    ($body:expr) => {
        match $crate::simd::arch() {
            #[cfg(target_arch = "x86_64")]
            pulp::Arch::V4(simd) => simd.vectorize(|| $body),
            #[cfg(target_arch = "x86_64")]
            pulp::Arch::V3(simd) => simd.vectorize(|| $body),
            #[cfg(target_arch = "aarch64")]
            pulp::Arch::Neon(simd) => simd.vectorize(|| $body),
            _ => $body,
        }
    };
}

pub(crate) use wide;

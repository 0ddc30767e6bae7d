//! The instruction set of this machine, looked up once.

use std::sync::LazyLock;

#[doc(hidden)]
pub use pulp::Arch;

static ARCH: LazyLock<Arch> = LazyLock::new(Arch::new);

/// What this machine has.
pub fn arch() -> Arch {
    *ARCH
}

/// Asks for the memory some bytes behind `at`, which will be read soon: the machine looks ahead by
/// itself, but not across the end of a page.
#[inline(always)]
pub(crate) fn prefetch<T>(at: &T, bytes: usize) {
    prefetch_at(std::ptr::from_ref(at).wrapping_byte_add(bytes));
}

/// Asks for the memory at an address, which will be used soon.
#[inline(always)]
pub(crate) fn prefetch_at<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint: nothing happens where there is no memory.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
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

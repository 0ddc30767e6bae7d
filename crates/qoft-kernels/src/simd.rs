//! The instruction set of this machine, looked up once.

use std::sync::LazyLock;

use pulp::Arch;

static ARCH: LazyLock<Arch> = LazyLock::new(Arch::new);

/// Runs code with the widest vectors that there are; what is inlined into it uses them too.
pub(crate) fn arch() -> Arch {
    *ARCH
}

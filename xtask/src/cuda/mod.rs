//! CUDA on machines without a GPU: the compiler that its build needs, and kernels as NVIDIA assembles them.

mod compile;
mod llvm;
mod pip;

pub use compile::run as test_compile;
pub use llvm::set_up;

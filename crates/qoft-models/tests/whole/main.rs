//! What `qoft-models` does as a whole, in one program that is linked once.

mod architectures;
mod checkpointing;
mod common;
mod compute_dtype;
mod continuation;
mod hybrid;
mod packing;
mod reference;
mod training;
mod unsupported;

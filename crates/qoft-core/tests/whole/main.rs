//! What `qoft-core` does as a whole, in one program that is linked once.

mod packed;
mod walk;

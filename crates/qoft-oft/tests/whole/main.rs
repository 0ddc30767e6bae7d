//! What `qoft-oft` does as a whole, in one program that is linked once.

mod adapters;
mod common;
mod conv2d;
mod families;
mod merging;
mod own;

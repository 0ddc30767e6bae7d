//! What `qoft-scheme` does as a whole, in one program that is linked once.

mod containers;
mod files;

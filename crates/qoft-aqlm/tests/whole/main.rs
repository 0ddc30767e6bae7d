//! What `qoft-aqlm` does as a whole, in one program that is linked once.

mod errors;
mod requantize;

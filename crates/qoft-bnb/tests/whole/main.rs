//! What `qoft-bnb` does as a whole, in one program that is linked once.

mod errors;
mod means;
mod quantize;
mod reference;
mod requantize;

//! What `qoft-compressed-tensors` does as a whole, in one program that is linked once.

mod auto_round;
mod errors;
mod quantize;
mod requantize;

//! What `qoft-mlx` does as a whole, in one program that is linked once.

mod errors;
mod quantize;
mod requantize;

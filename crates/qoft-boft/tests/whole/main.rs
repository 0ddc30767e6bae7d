//! What `qoft-boft` does as a whole, in one program that is linked once.

mod layers;
mod peft;

//! Training against transformers' `Trainer` with PEFT, and what a run leaves behind.

mod case;
mod own;
mod reference;
mod runs;

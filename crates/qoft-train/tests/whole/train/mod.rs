//! Training against transformers' `Trainer` with PEFT, and what a run leaves behind.

mod case;
mod failures;
mod group;
mod own;
mod reference;
mod runs;

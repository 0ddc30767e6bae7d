//! What `qoft-train` does as a whole, in one program that is linked once.

mod choices;
mod data;
mod data_tokenizer;
mod fixture_model;
mod own_model;
mod preference;
mod sft;
mod train;
mod train_generate;

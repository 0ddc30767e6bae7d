//! Training of quantized models with OFT: data, the training loop and its reports.

pub mod chat;
pub mod data;
pub mod tokenizer;

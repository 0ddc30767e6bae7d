//! Training of quantized models with OFT: data, the training loop and its reports, evaluation and
//! generation of text.

pub mod data;
mod error;
mod eval;
mod generate;
pub mod group;
mod inputs;
mod isolated;
mod measured;
mod metrics;
mod model;
pub mod multiple_choice;
pub mod preference;
mod regularization;
pub mod tokenizer;
pub mod train;

pub use qoft_chat as chat;

pub use error::{GenerateError, NotFinite, TrainError};
pub use eval::{Evaluation, evaluate, evaluate_among};
pub use generate::{
    End, GenerateOptions, Generated, GenerationConfig, Logprobs, SequenceKey, WriteRequest, Writer,
    Written, WrittenText, generate, generate_each,
};
pub use inputs::{check_lengths, input_ids, targets};
pub use measured::MeasuredData;
pub use metrics::{BatchLoss, Metrics};
pub use model::{
    GenerateModel, TokenModel, TrainBatch, TrainBlocks, TrainData, TrainModel, model_facts,
};
pub use regularization::Regularization;

//! What `qoft` does as a whole, in one program that is linked once.

#[cfg(feature = "all-schemes")]
mod calibrate;
mod capabilities;
mod checkpointing;
mod common;
#[cfg(feature = "all-schemes")]
mod export;
#[cfg(feature = "all-schemes")]
mod foreign;
#[cfg(feature = "gguf")]
mod gguf;
#[cfg(feature = "all-schemes")]
mod gpt2;
#[cfg(all(feature = "bnb", feature = "mxfp4"))]
mod gpt_oss;
mod many_layers;
#[cfg(feature = "all-schemes")]
mod merge;
#[cfg(feature = "all-schemes")]
mod merge_cut;
#[cfg(feature = "bnb")]
mod merge_embedding;
#[cfg(feature = "all-schemes")]
mod mixed;
#[cfg(feature = "all-schemes")]
mod mixtures;
#[cfg(feature = "bnb")]
mod own;
#[cfg(feature = "inc-fp8")]
mod own_cards;
#[cfg(all(feature = "bnb", feature = "mxfp4"))]
mod packed;
#[cfg(feature = "bnb")]
mod peft;
mod peft_table;
#[cfg(feature = "bnb")]
mod plan;
#[cfg(feature = "all-schemes")]
mod quantize;
mod quantize_layer;
#[cfg(feature = "awq")]
mod scale_inputs;
#[cfg(feature = "all-schemes")]
mod schemes;
#[cfg(feature = "all-schemes")]
mod text_parts;
#[cfg(feature = "all-schemes")]
mod told;

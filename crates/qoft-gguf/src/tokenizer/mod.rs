//! The tokenizer of a file, as the files of transformers' `PreTrainedTokenizerFast`.

mod byte_level;
mod pieces;
pub mod split;
mod vocabulary;

use qoft_scheme::{Error, Result};
use serde_json::{Map, Value, json};

use crate::file::Metadata;
use vocabulary::Vocabulary;

pub use vocabulary::kind;

/// The key that says how text becomes tokens.
const MODEL: &str = "tokenizer.ggml.model";

/// The small files beside the configuration `config`: tokenizer, chat template and generation.
///
/// # Errors
/// If a key has a value of the wrong type, or they do not fit each other.
pub fn files(metadata: &Metadata, config: &Value) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    let mut add = |name: &str, value: &Value| {
        let text = serde_json::to_vec_pretty(value).map_err(|e| Error::file(name, e))?;
        files.push((name.to_owned(), text));
        Ok::<_, Error>(())
    };
    add("generation_config.json", &generation(metadata, config)?)?;
    if let Some(vocabulary) = Vocabulary::read(metadata)? {
        if let Some(tokenizer) = tokenizer(metadata, &vocabulary)? {
            add("tokenizer.json", &tokenizer)?;
        }
        add("tokenizer_config.json", &settings(&vocabulary, config))?;
    }
    if let Some(template) = metadata.text("tokenizer.chat_template")? {
        files.push(("chat_template.jinja".into(), template.into()));
    }
    Ok(files)
}

fn tokenizer(metadata: &Metadata, vocabulary: &Vocabulary) -> Result<Option<Value>> {
    let parts = match metadata.text(MODEL)? {
        Some("gpt2") => byte_level::parts(metadata, vocabulary)?,
        Some("llama") => pieces::parts(metadata, vocabulary)?,
        other => {
            tracing::warn!(
                "the tokenizer `{}` is not supported, only gpt2 and llama are: text cannot be used \
                 with this model",
                other.unwrap_or("without a name")
            );
            return Ok(None);
        }
    };
    let special = vocabulary.ends(metadata, parts.begins)?;
    Ok(Some(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": vocabulary.added(),
        "normalizer": parts.normalizer,
        "pre_tokenizer": parts.pre_tokenizer,
        "post_processor": special.or(parts.post_processor),
        "decoder": parts.decoder,
        "model": parts.model,
    })))
}

/// What the kinds of tokenizers differ in, in the terms of `tokenizer.json`.
struct Parts {
    model: Value,
    normalizer: Value,
    pre_tokenizer: Value,
    post_processor: Option<Value>,
    decoder: Value,
    /// Whether texts begin with a token unless the file says otherwise.
    begins: bool,
}

fn settings(vocabulary: &Vocabulary, config: &Value) -> Value {
    let mut settings = Map::new();
    settings.insert("tokenizer_class".into(), "PreTrainedTokenizerFast".into());
    settings.insert("clean_up_tokenization_spaces".into(), false.into());
    settings.insert(
        "model_max_length".into(),
        config["max_position_embeddings"].clone(),
    );
    for (name, token) in vocabulary.named() {
        settings.insert(name.into(), token.into());
    }
    settings.into()
}

fn generation(metadata: &Metadata, config: &Value) -> Result<Value> {
    let mut generation = Map::new();
    for name in ["bos_token_id", "eos_token_id", "pad_token_id"] {
        generation.insert(name.into(), config[name].clone());
    }
    // Where turns end with another token than texts.
    let turn = metadata.size("tokenizer.ggml.eot_token_id")?;
    if let (Some(turn), Some(end)) = (turn, config["eos_token_id"].as_u64())
        && turn as u64 != end
    {
        generation.insert("eos_token_id".into(), json!([end, turn]));
    }
    Ok(generation.into())
}

//! Classes of tokenizers in transformers that split text by rules of their own, whatever
//! `tokenizer.json` says: its rules may have been saved by another class. Which class it is the
//! configurations of tokenizer and model say together.

use serde_json::{Value, json};

/// How `Qwen2Tokenizer` splits text.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// What transformers has for a type of models.
#[derive(Clone, Copy)]
enum OfModel {
    /// The rules of the file, whatever class is named.
    File,
    /// This class, unless another one is named.
    Class(&'static str),
    /// This class, whatever is named: files of such models often name a wrong one.
    Only(&'static str),
}

/// Types of models that transformers has something for. With all others the class counts that is
/// named.
const MODELS: &[(&str, OfModel)] = &[
    ("cohere", OfModel::Class("CohereTokenizer")),
    ("glm4", OfModel::File),
    ("gpt2", OfModel::Class("GPT2Tokenizer")),
    ("granite", OfModel::File),
    ("granitemoe", OfModel::File),
    ("ministral3", OfModel::File),
    ("mistral", OfModel::File),
    ("mixtral", OfModel::File),
    ("olmo", OfModel::Class("GPTNeoXTokenizer")),
    ("olmo2", OfModel::File),
    ("olmo3", OfModel::File),
    ("olmoe", OfModel::Class("GPTNeoXTokenizer")),
    ("phi3", OfModel::File),
    ("qwen2", OfModel::Only("Qwen2Tokenizer")),
    ("qwen2_moe", OfModel::Class("Qwen2Tokenizer")),
    ("qwen3", OfModel::Class("Qwen2Tokenizer")),
    ("qwen3_moe", OfModel::Class("Qwen2Tokenizer")),
    ("starcoder2", OfModel::Class("GPT2Tokenizer")),
];

/// The class that transformers takes for a tokenizer with this configuration, beside a model's;
/// `None` where it goes by the file.
fn class<'a>(config: &'a Value, model: &'a Value) -> Option<&'a str> {
    let text = |json: &'a Value, key: &str| json.get(key).and_then(Value::as_str);
    let named = text(config, "tokenizer_class").or_else(|| text(model, "tokenizer_class"));
    let named = named.map(|class| class.trim_end_matches("Fast"));
    let of_model = text(model, "model_type").and_then(|model_type| {
        let found = MODELS.iter().find(|(name, _)| *name == model_type);
        found.map(|(_, of_model)| *of_model)
    });
    match of_model {
        Some(OfModel::File) => None,
        Some(OfModel::Only(class)) => Some(class),
        Some(OfModel::Class(class)) => Some(named.unwrap_or(class)),
        None => named,
    }
}

/// Parts of `tokenizer.json` as a class has them.
pub(super) struct Rules {
    pub(super) normalizer: Value,
    pub(super) pre_tokenizer: Value,
}

/// The rules of the class that transformers takes; `None` where they are those of the file. `config` is
/// that of the tokenizer, `model` that of the model, and `splits` what splits text by the file. A file
/// whose text is not split into bytes is none of these classes', whatever it is called.
pub(super) fn rules(config: &Value, model: &Value, splits: &Value) -> Option<Rules> {
    let class = class(config, model)?;
    let is_prefixed = config.get("add_prefix_space").and_then(Value::as_bool);
    let byte_level = |use_regex: bool| {
        json!({
            "type": "ByteLevel",
            "add_prefix_space": is_prefixed.unwrap_or(false),
            "trim_offsets": true,
            "use_regex": use_regex,
        })
    };
    let sequence = |parts: [Value; 2]| json!({"type": "Sequence", "pretokenizers": parts});
    let composed = json!({"type": "NFC"});
    let (normalizer, pre_tokenizer) = match class {
        "CodeGenTokenizer" | "GPT2Tokenizer" | "RobertaTokenizer" => {
            (Value::Null, byte_level(true))
        }
        "GPTNeoXTokenizer" => (composed, byte_level(true)),
        "CohereTokenizer" => {
            let digits = json!({"type": "Digits", "individual_digits": true});
            (composed, sequence([digits, byte_level(true)]))
        }
        "Qwen2Tokenizer" => {
            let split = json!({
                "type": "Split",
                "pattern": {"Regex": QWEN2},
                "behavior": "Isolated",
                "invert": false,
            });
            (composed, sequence([split, byte_level(false)]))
        }
        _ => return None,
    };
    let rules = Rules {
        normalizer,
        pre_tokenizer,
    };
    is_byte_level(splits).then_some(rules)
}

/// Whether a part or one inside of it turns text into bytes.
fn is_byte_level(part: &Value) -> bool {
    let inside = part.get("pretokenizers").and_then(Value::as_array);
    part.get("type").and_then(Value::as_str) == Some("ByteLevel")
        || inside.is_some_and(|parts| parts.iter().any(is_byte_level))
}

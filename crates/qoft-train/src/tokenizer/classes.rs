//! Classes of tokenizers in transformers that split text by rules of their own, whatever
//! `tokenizer.json` says: its rules may have been saved by another class.

use serde_json::{Value, json};

/// How `Qwen2Tokenizer` splits text.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The part of `tokenizer.json` that splits text, as the class that the configuration names has it;
/// `None` where it is that of the file. A file whose text is not split into bytes is none of these
/// classes', whatever it is called.
pub(super) fn pre_tokenizer(config: &Value, of_file: &Value) -> Option<Value> {
    let class = config.get("tokenizer_class")?.as_str()?;
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
    let own = match class.trim_end_matches("Fast") {
        "CodeGenTokenizer" | "GPT2Tokenizer" | "GPTNeoXTokenizer" | "RobertaTokenizer" => {
            byte_level(true)
        }
        "CohereTokenizer" => sequence([
            json!({"type": "Digits", "individual_digits": true}),
            byte_level(true),
        ]),
        "Qwen2Tokenizer" => sequence([
            json!({
                "type": "Split",
                "pattern": {"Regex": QWEN2},
                "behavior": "Isolated",
                "invert": false,
            }),
            byte_level(false),
        ]),
        _ => return None,
    };
    is_byte_level(of_file).then_some(own)
}

/// Whether a part or one inside of it turns text into bytes.
fn is_byte_level(part: &Value) -> bool {
    let inside = part.get("pretokenizers").and_then(Value::as_array);
    part.get("type").and_then(Value::as_str) == Some("ByteLevel")
        || inside.is_some_and(|parts| parts.iter().any(is_byte_level))
}

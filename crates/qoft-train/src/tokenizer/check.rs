//! What is wrong with a `tokenizer.json` that the crate `tokenizers` takes at its word.
//!
//! It panics, asks for memory without end, or loops on some parts. These are found before it
//! sees them.

mod bounds;
mod charsmap;

use serde::Deserialize;
use serde_json::{Map, Value};

/// The parts of `tokenizer.json` around the model.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Parts {
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pub(super) pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    decoder: Value,
    #[serde(default)]
    pub(super) padding: Value,
    #[serde(default)]
    pub(super) added_tokens: Value,
}

impl Parts {
    /// Checks the parts; the error names the part and what is wrong with it.
    pub(super) fn check(&self) -> Result<(), String> {
        let parts = [
            ("normalizer", &self.normalizer),
            ("pre_tokenizer", &self.pre_tokenizer),
            ("post_processor", &self.post_processor),
            ("decoder", &self.decoder),
        ];
        for (name, part) in parts {
            bounds::check(part).map_err(|reason| format!("{name}: {reason}"))?;
            check(part).map_err(|reason| format!("{name}: {reason}"))?;
        }
        Ok(())
    }
}

/// Checks a part and the parts inside of it.
fn check(part: &Value) -> Result<(), String> {
    match part {
        Value::Array(parts) => parts.iter().try_for_each(check),
        Value::Object(fields) => {
            match fields.get("type").and_then(Value::as_str) {
                Some("FixedLength") if fields.get("length").and_then(Value::as_u64) == Some(0) => {
                    return Err("FixedLength needs a length above 0".to_owned());
                }
                Some(kind @ ("Replace" | "Split")) => pattern(kind, fields)?,
                Some("TemplateProcessing") => template(fields)?,
                _ => {}
            }
            fields.values().try_for_each(check)
        }
        _ => Ok(()),
    }
}

fn pattern(kind: &str, fields: &Map<String, Value>) -> Result<(), String> {
    let pattern = fields.get("pattern");
    let text = pattern.and_then(|pattern| pattern.get("String").or(pattern.get("Regex")));
    if text.and_then(Value::as_str) == Some("") {
        return Err(format!("{kind} has an empty pattern"));
    }
    Ok(())
}

/// The texts around a row: its tokens must be known, and there is only one row.
fn template(fields: &Map<String, Value>) -> Result<(), String> {
    let pieces = |name: &str| {
        fields
            .get(name)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
    };
    let tokens = fields.get("special_tokens").and_then(Value::as_object);
    for piece in pieces("single").chain(pieces("pair")) {
        let id = |kind: &str| piece.get(kind)?.get("id")?.as_str();
        if let Some(id) = id("SpecialToken")
            && !tokens.is_some_and(|tokens| tokens.contains_key(id))
        {
            return Err(format!(
                "TemplateProcessing uses the token '{id}', which its special_tokens lack"
            ));
        }
    }
    let is_second = |piece: &Value| {
        piece
            .get("Sequence")
            .and_then(|piece| piece.get("id")?.as_str())
            == Some("B")
    };
    if pieces("single").any(is_second) {
        return Err("TemplateProcessing uses the second row B for a single row".to_owned());
    }
    for (name, token) in tokens.into_iter().flatten() {
        let count = |list: &str| token.get(list).and_then(Value::as_array).map(Vec::len);
        if count("ids").is_none() || count("ids") != count("tokens") {
            return Err(format!(
                "TemplateProcessing has not one id for each text of '{name}'"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_would_panic_or_abort_is_named() {
        let charsmap = |bytes: &[u8]| json!({"type": "Precompiled", "precompiled_charsmap": STANDARD.encode(bytes)});
        let template = |single: Value, tokens: Value| json!({"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": tokens});
        let token = |id: &str| json!([{"SpecialToken": {"id": id, "type_id": 0}}]);
        let cases = [
            (
                json!({"type": "Precompiled", "precompiled_charsmap": "!!"}),
                "not base64",
            ),
            (charsmap(&[255, 255, 255, 255, 0]), "header says 4294967295"),
            (charsmap(&[]), "has 0 bytes"),
            (charsmap(&[0, 0, 0, 0]), "header says 0"),
            (json!({"type": "FixedLength", "length": 0}), "above 0"),
            (
                json!({"type": "Split", "pattern": {"String": ""}}),
                "Split has an empty pattern",
            ),
            (
                json!({"type": "Sequence", "normalizers": [{"type": "Replace", "pattern": {"Regex": ""}}]}),
                "Replace has an empty pattern",
            ),
            (template(token("<s>"), json!({})), "the token '<s>'"),
            (
                template(json!([{"Sequence": {"id": "B", "type_id": 0}}]), json!({})),
                "second row",
            ),
            (
                template(
                    token("<s>"),
                    json!({"<s>": {"id": "<s>", "ids": [1, 2], "tokens": ["<s>"]}}),
                ),
                "not one id",
            ),
        ];
        for (part, expected) in cases {
            let parts = Parts {
                normalizer: part.clone(),
                ..Parts::default()
            };
            let reason = parts.check().unwrap_err();
            assert!(reason.contains(expected), "{part}: {reason}");
        }
        let sound = Parts {
            normalizer: charsmap(&[4, 0, 0, 0, 1, 2, 3, 4, b'a', 0]),
            ..Parts::default()
        };
        assert_eq!(sound.check(), Ok(()));
    }
}

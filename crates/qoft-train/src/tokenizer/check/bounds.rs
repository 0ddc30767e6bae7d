//! How much the parts of a `tokenizer.json` may make of a text.
//!
//! Parts run one after the other, so what each of them makes of a byte is multiplied. The bounds are
//! far above what published tokenizers have.

use serde_json::{Map, Value};

use super::charsmap::Charsmap;

/// The most parts of one kind.
const MOST_PARTS: usize = 256;
/// The most bytes or tokens that become of one.
const MOST_GROWTH: u64 = 4_096;
/// The most bytes or tokens that are added to a text.
const MOST_ADDED: usize = 1 << 16;

/// What parts add up to.
struct Growth {
    parts: usize,
    factor: u64,
    added: usize,
}

/// Fails for parts that make more of a text than any tokenizer has to.
pub(super) fn check(part: &Value) -> Result<(), String> {
    let mut growth = Growth {
        parts: 0,
        factor: 1,
        added: 0,
    };
    growth.add(part)
}

impl Growth {
    fn add(&mut self, part: &Value) -> Result<(), String> {
        match part {
            Value::Array(parts) => parts.iter().try_for_each(|part| self.add(part)),
            Value::Object(fields) => {
                if let Some(kind) = fields.get("type").and_then(Value::as_str) {
                    self.add_part(kind, fields)?;
                }
                let lists = ["normalizers", "pretokenizers", "processors", "decoders"];
                let lists = lists.iter().filter_map(|name| fields.get(*name));
                lists.into_iter().try_for_each(|parts| self.add(parts))
            }
            _ => Ok(()),
        }
    }

    fn add_part(&mut self, kind: &str, fields: &Map<String, Value>) -> Result<(), String> {
        let length = |name: &str| fields.get(name).and_then(Value::as_str).map_or(0, str::len);
        let (factor, added) = match kind {
            "Replace" => (replaced(fields, length("content")), 0),
            "Prepend" => (1, length("prepend")),
            "Precompiled" => (Charsmap::read(fields)?.growth() as u64, 0),
            // A byte is a character of one or two bytes.
            "ByteLevel" => (2, 1),
            // A space is a character of up to four bytes, one is put in front of each piece.
            "Metaspace" => (4, 4),
            "TemplateProcessing" => template(fields),
            _ => (1, 0),
        };
        self.parts += 1;
        self.factor = self.factor.saturating_mul(factor);
        self.added = self.added.saturating_add(added);
        if self.parts > MOST_PARTS {
            return Err(format!("it has more than {MOST_PARTS} parts"));
        }
        if self.factor > MOST_GROWTH {
            return Err(format!(
                "with its {kind} (part {}) a text may grow more than {MOST_GROWTH} times",
                self.parts
            ));
        }
        if self.added > MOST_ADDED {
            return Err(format!(
                "with its {kind} (part {}) more than {MOST_ADDED} bytes are added to each text",
                self.parts
            ));
        }
        Ok(())
    }
}

/// The bytes that may become of one when a pattern is replaced by `length` bytes.
fn replaced(fields: &Map<String, Value>, length: usize) -> u64 {
    let pattern = fields
        .get("pattern")
        .and_then(|pattern| pattern.get("String"));
    let growth = match pattern.and_then(Value::as_str).map(str::len) {
        Some(found @ 1..) => length.div_ceil(found),
        // An expression may match nothing, in front of each byte.
        _ => length + 1,
    };
    growth.max(1) as u64
}

/// How often a template writes the text, and the tokens that it adds.
fn template(fields: &Map<String, Value>) -> (u64, usize) {
    let pieces = fields.get("single").and_then(Value::as_array);
    let pieces = pieces.map_or(&[][..], Vec::as_slice);
    let tokens = fields.get("special_tokens");
    let mut texts = 0;
    let mut added = 0_usize;
    for piece in pieces {
        match piece
            .get("SpecialToken")
            .and_then(|token| token.get("id")?.as_str())
        {
            None => texts += 1,
            Some(id) => {
                let ids = tokens.and_then(|tokens| tokens.get(id)?.get("ids")?.as_array());
                added = added.saturating_add(ids.map_or(1, Vec::len));
            }
        }
    }
    (texts.max(1), added)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_grows_without_end_is_refused() {
        let replace = |pattern: Value, content: &str| json!({"type": "Replace", "pattern": pattern, "content": content});
        let l = json!({"String": "l"});
        let sequence = |part: Value, count: usize| json!({"type": "Sequence", "normalizers": vec![part; count]});
        let text = json!({"Sequence": {"id": "A", "type_id": 0}});
        let template = |count: usize| json!({"type": "TemplateProcessing", "single": vec![text.clone(); count], "pair": [], "special_tokens": {}});
        let token = json!({"SpecialToken": {"id": "s", "type_id": 0}});
        let tokens = json!({"s": {"id": "s", "ids": vec![1; 100], "tokens": vec!["s"; 100]}});
        let charsmap = |longest: usize| {
            let mut map = vec![4, 0, 0, 0, 1, 2, 3, 4, b'a', 0];
            map.resize(map.len() + longest, b'x');
            json!({"type": "Precompiled", "precompiled_charsmap": STANDARD.encode(map)})
        };
        let cases = [
            (charsmap(5_000), "Precompiled (part 1)"),
            (sequence(charsmap(30), 4), "Precompiled (part 4)"),
            (
                json!({"type": "Precompiled", "precompiled_charsmap": "A".repeat(23_000_000)}),
                "more than 16777216 bytes",
            ),
            (
                sequence(replace(l.clone(), &"l".repeat(50)), 12),
                "Replace (part 4)",
            ),
            (
                replace(json!({"Regex": "x*"}), &"l".repeat(5_000)),
                "grow more",
            ),
            (
                json!({"type": "Prepend", "prepend": "a".repeat(100_000)}),
                "are added",
            ),
            (
                sequence(json!({"type": "Lowercase"}), 300),
                "more than 256 parts",
            ),
            (
                json!({"type": "Sequence", "pretokenizers": vec![json!({"type": "ByteLevel"}); 30]}),
                "ByteLevel",
            ),
            (template(100_000), "TemplateProcessing"),
            (
                json!({"type": "Sequence", "processors": vec![template(2); 20]}),
                "TemplateProcessing",
            ),
            (
                json!({"type": "TemplateProcessing", "single": vec![token; 1_000], "special_tokens": tokens}),
                "are added",
            ),
        ];
        for (part, expected) in cases {
            let reason = check(&part).unwrap_err();
            assert!(reason.contains(expected), "{reason}");
        }
        let llama = json!([
            {"type": "Prepend", "prepend": "▁"}, replace(json!({"String": " "}), "▁"),
            replace(json!({"Regex": " {2,}"}), " "), {"type": "ByteLevel"}, {"type": "Metaspace"},
            charsmap(33),
        ]);
        assert_eq!(check(&llama), Ok(()));
    }
}

//! SentencePiece's tables of replacements.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

/// The most bytes of a table: some fifty times as many as published tokenizers have.
const MOST_BYTES: usize = 1 << 24;

/// A table: the size of a trie, the trie, and texts with zeros between them.
pub(super) struct Charsmap {
    bytes: Vec<u8>,
    texts: usize,
}

impl Charsmap {
    /// That of a part `Precompiled`.
    pub(super) fn read(fields: &Map<String, Value>) -> Result<Self, String> {
        let map = fields.get("precompiled_charsmap").and_then(Value::as_str);
        let Some(map) = map else {
            return Err("Precompiled has no precompiled_charsmap".to_owned());
        };
        // Four characters are three bytes.
        if map.len() / 4 * 3 > MOST_BYTES {
            return Err(format!(
                "precompiled_charsmap has more than {MOST_BYTES} bytes"
            ));
        }
        let bytes = STANDARD
            .decode(map)
            .map_err(|error| format!("precompiled_charsmap is not base64: {error}"))?;
        let size = bytes
            .first_chunk()
            .map_or(0, |size| u32::from_le_bytes(*size) as usize);
        let texts = size.saturating_add(4);
        match size > 0 && size.is_multiple_of(4) && texts <= bytes.len() {
            true => Ok(Self { bytes, texts }),
            false => Err(format!(
                "precompiled_charsmap has {} bytes, but its header says {size} for the trie alone",
                bytes.len()
            )),
        }
    }

    /// The bytes that may become of one: those of the longest text.
    pub(super) fn growth(&self) -> usize {
        let texts = self.bytes[self.texts..].split(|byte| *byte == 0);
        texts.map(<[u8]>::len).max().unwrap_or(0).max(1)
    }
}

//! Training data of exactly so many tokens.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;

/// Writes `rows` rows of `length` token ids, the same in every run, and gives the file's path.
///
/// # Errors
///
/// If the file cannot be written.
pub fn write(folder: &Path, rows: usize, length: usize, vocab_size: usize) -> Result<PathBuf> {
    let path = folder.join(format!("{rows}x{length}.jsonl"));
    let mut ids = Ids(1);
    let row = |_| {
        let ids: Vec<usize> = (0..length).map(|_| ids.next(vocab_size)).collect();
        format!("{}\n", json!({ "input_ids": ids }))
    };
    let text: String = (0..rows).map(row).collect();
    std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    Ok(path)
}

/// Numbers that look random (Knuth's MMIX).
struct Ids(u64);

impl Ids {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = self.0.wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % below
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_their_length_and_known_ids() {
        let work = tempfile::tempdir().unwrap();
        let path = write(work.path(), 3, 5, 7).unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(text.lines().count(), 3);
        for line in text.lines() {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            let ids = row["input_ids"].as_array().unwrap();
            assert_eq!(ids.len(), 5);
            assert!(ids.iter().all(|id| id.as_u64().unwrap() < 7));
        }
    }
}

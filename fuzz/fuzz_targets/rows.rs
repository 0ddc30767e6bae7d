//! A data file: what its name ends with, its content.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use qoft::train::data::{Dataset, DatasetOptions};
use qoft::train::tokenizer::Tokenizer;
use qoft_fuzz::{folder, parts, small, write};
use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(folder);
static TOKENIZER: LazyLock<Tokenizer> =
    LazyLock::new(|| Tokenizer::from_dir(&small::fixture("tokenizer")).expect("a tokenizer"));

fuzz_target!(|input: &[u8]| {
    let [kind, content] = parts(input);
    let name = match kind.first() {
        Some(b't') => "rows.txt",
        Some(b'a') => "rows.json",
        _ => "rows.jsonl",
    };
    write(FOLDER.path(), name, content);
    for max_length in [None, Some(8)] {
        let options = DatasetOptions::new(320).with_max_length(max_length);
        let _ = Dataset::load(&FOLDER.path().join(name), &TOKENIZER, &options, None);
    }
});

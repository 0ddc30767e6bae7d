//! Data files as examples: what is read, what is learned and what is refused.

mod classes;
mod files;
mod forms;
mod learned;
mod published;
mod refused;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use qoft_train::data::{
    DataError, Dataset, DatasetOptions, Example, IGNORED, RowError, RowNumber, TrainOn,
};
use qoft_train::tokenizer::{Tokenizer, TokenizerError};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The ids of the fixture's tokenizer that open and close a text.
const BOS: u32 = 1;
const EOS: u32 = 4;

const OPTIONS: DatasetOptions = DatasetOptions::new(320);

fn tokenizer() -> Tokenizer {
    Tokenizer::from_dir(&qoft_fixtures::path("tokenizer")).unwrap()
}

/// A data file in a folder that goes away with it.
struct DataFile {
    path: PathBuf,
    _folder: TempDir,
}

fn file(name: &str, content: impl AsRef<[u8]>) -> DataFile {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, content).unwrap();
    DataFile {
        path,
        _folder: folder,
    }
}

fn lines(rows: &[Value]) -> DataFile {
    let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
    file("rows.jsonl", lines.join("\n"))
}

fn load(file: &DataFile) -> Result<Dataset, DataError> {
    Dataset::load(&file.path, &tokenizer(), &OPTIONS, None)
}

/// The example of the only row in a file.
fn example(row: Value) -> Example {
    load(&lines(&[row])).unwrap().examples.remove(0)
}

/// The text of the ids that are learned.
fn learned(example: &Example) -> String {
    let labels = example.labels.iter().filter(|&&label| label != IGNORED);
    let ids: Vec<u32> = labels.map(|&label| label as u32).collect();
    tokenizer().decode(&ids, false).unwrap()
}

//! Files that can be taken apart, damaged and written again, and commands that have to fail.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::{names, qoft};

/// A tensor as it is stored.
pub struct Entry {
    /// Name of the number format.
    pub dtype: String,
    /// The shape.
    pub shape: Vec<usize>,
    /// The values.
    pub data: Vec<u8>,
}

/// A file of tensors.
pub struct TensorFile {
    path: PathBuf,
    /// The tensors by name, in the order of the file.
    pub tensors: Vec<(String, Entry)>,
}

impl TensorFile {
    /// Reads a sound file.
    pub fn open(path: &Path) -> Self {
        let bytes = std::fs::read(path).expect("a file");
        let length: [u8; 8] = bytes[..8].try_into().expect("a length");
        let start = 8 + usize::try_from(u64::from_le_bytes(length)).expect("a small header");
        let header: Map<String, Value> =
            serde_json::from_slice(&bytes[8..start]).expect("a header");
        let number = |value: &Value| value.as_u64().expect("a number") as usize;
        let tensors = header
            .into_iter()
            .filter(|(name, _)| name != "__metadata__")
            .map(|(name, value)| {
                let [from, to] = [0, 1].map(|i| start + number(&value["data_offsets"][i]));
                let shape = value["shape"].as_array().expect("a shape");
                let entry = Entry {
                    dtype: value["dtype"].as_str().expect("a dtype").to_owned(),
                    shape: shape.iter().map(number).collect(),
                    data: bytes[from..to].to_vec(),
                };
                (name, entry)
            })
            .collect();
        let path = path.to_owned();
        Self { path, tensors }
    }

    /// Number formats and shapes by name.
    pub fn shapes(self) -> BTreeMap<String, (String, Vec<usize>)> {
        let tensors = self.tensors.into_iter();
        let shapes = tensors.map(|(name, entry)| (name, (entry.dtype, entry.shape)));
        shapes.collect()
    }

    /// Changes the first tensor whose name ends with `end` and writes the file.
    pub fn change(self, end: &str, change: impl FnOnce(&mut Entry)) {
        self.edit(|tensors| {
            let found = tensors.iter_mut().find(|(name, _)| name.ends_with(end));
            change(&mut found.expect("the tensor").1);
        });
    }

    /// Changes the list of tensors and writes the file.
    pub fn edit(mut self, edit: impl FnOnce(&mut Vec<(String, Entry)>)) {
        edit(&mut self.tensors);
        self.write();
    }

    /// Removes the first tensor whose name ends with `end` and writes the file.
    pub fn remove(self, end: &str) {
        self.edit(|tensors| {
            let found = tensors.iter().position(|(name, _)| name.ends_with(end));
            tensors.remove(found.expect("the tensor"));
        });
    }

    fn write(&self) {
        let (mut header, mut data) = (Map::new(), Vec::new());
        for (name, entry) in &self.tensors {
            let from = data.len();
            data.extend_from_slice(&entry.data);
            let value = json!({
                "dtype": entry.dtype,
                "shape": entry.shape,
                "data_offsets": [from, data.len()],
            });
            header.insert(name.clone(), value);
        }
        write_raw(&self.path, &Value::Object(header), &data);
    }
}

/// Writes a file with any header.
pub fn write_raw(path: &Path, header: &Value, data: &[u8]) {
    let header = header.to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(data);
    std::fs::write(path, bytes).expect("a written file");
}

/// Runs a command that has to fail, say `needle` and write nothing into `work`.
#[track_caller]
pub fn refused(args: &[&str], work: &Path, needle: &str) {
    let before = names(work);
    let run = qoft(args);
    let says = &run.stderr;
    assert!(
        matches!(run.code, Some(1 | 2)),
        "{args:?}: {:?} {says}",
        run.code
    );
    assert!(says.contains(needle), "{args:?}: no {needle:?} in {says}");
    assert!(!says.contains("panicked"), "{args:?}: {says}");
    assert_eq!(run.stdout, "", "{args:?}");
    assert_eq!(names(work), before, "{args:?}");
}

/// Changes a JSON file.
pub fn edit_json(path: &Path, edit: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&std::fs::read(path).expect("a file")).expect("JSON");
    edit(&mut value);
    std::fs::write(path, value.to_string()).expect("a written file");
}

//! A safetensors file that can be taken apart, damaged and written again.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

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
    tensors: Vec<(String, Entry)>,
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

    /// Changes the first tensor whose name ends with `end` and writes the file.
    pub fn change(mut self, end: &str, change: impl FnOnce(&mut Entry)) {
        let (_, entry) = self
            .tensors
            .iter_mut()
            .find(|(name, _)| name.ends_with(end))
            .expect("the tensor");
        change(entry);
        self.write();
    }

    /// Removes the first tensor whose name ends with `end` and writes the file.
    pub fn remove(mut self, end: &str) {
        let found = self
            .tensors
            .iter()
            .position(|(name, _)| name.ends_with(end));
        self.tensors.remove(found.expect("the tensor"));
        self.write();
    }

    /// Renames tensors, changes their contents and writes the file.
    pub fn map(mut self, map: impl FnMut(&mut (String, Entry))) {
        self.tensors.iter_mut().for_each(map);
        self.write();
    }

    /// Removes all tensors but those that `keep` names and writes the file.
    pub fn retain(mut self, keep: impl Fn(&str) -> bool) -> Self {
        self.tensors.retain(|(name, _)| keep(name));
        self.write();
        self
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

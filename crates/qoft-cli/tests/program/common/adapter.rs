//! What is in the folders of adapters.

use std::path::Path;

use serde_json::Value;

use super::file::TensorFile;

/// A JSON file.
pub fn json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).expect("a file");
    serde_json::from_str(&text).expect("JSON")
}

/// Asserts that two adapters have the same settings, and tensors of the same names and shapes.
#[track_caller]
pub fn assert_same_form(found: &Path, expected: &Path) {
    let config = |folder: &Path| {
        let mut config = json(&folder.join("adapter_config.json"));
        config["base_model_name_or_path"] = Value::Null;
        config
    };
    assert_eq!(config(found), config(expected), "{}", expected.display());
    let tensors =
        |folder: &Path| TensorFile::open(&folder.join("adapter_model.safetensors")).shapes();
    assert_eq!(tensors(found), tensors(expected), "{}", expected.display());
}

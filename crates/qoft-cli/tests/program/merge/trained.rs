//! A trained adapter, and what is in the folders that it is merged into.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

use crate::common::json_of;
use crate::common::{arg, fixture, names};

/// A dense model, rows, and an adapter that was trained on it, quantized while it was loaded by
/// `load`.
pub struct Trained {
    pub work: TempDir,
    pub model: String,
    pub rows: PathBuf,
    pub adapter: PathBuf,
}

impl Trained {
    pub fn new(load: &[&str]) -> Self {
        let work = tempdir().expect("a folder");
        let model = fixture("quantize/llama_f32");
        let row = |seed: u32| {
            let ids: Vec<u32> = (0..24).map(|i| (seed * 31 + i * i * 7) % 97).collect();
            json!({ "input_ids": ids }).to_string()
        };
        let rows = work.path().join("rows.jsonl");
        fs::write(&rows, [row(1), row(2), row(3), row(4)].join("\n")).expect("a data file");
        let adapter = work.path().join("adapter");
        let args = [
            "train",
            "--model",
            &model,
            "--data",
            arg(&rows),
            "--output",
            arg(&adapter),
            "--target-modules",
            "all-linear",
            "--oft-block-size",
            "8",
            "--learning-rate",
            "0.02",
            "--max-steps",
            "5",
        ];
        json_of(&[&args, load].concat());
        Self {
            work,
            model,
            rows,
            adapter,
        }
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    /// Runs a command with the adapter that writes the folder `name`.
    #[track_caller]
    pub fn merged(&self, model: &str, name: &str, more: &[&str]) -> (PathBuf, Value) {
        let out = self.at(name);
        let args = ["merge", "--model", model, "--output", arg(&out)];
        let with = ["--adapter", arg(&self.adapter)];
        let report = json_of(&[&args, &with[..], &ALL, more].concat());
        (out, report)
    }

    #[track_caller]
    pub fn quantized(&self, model: &str, name: &str, more: &[&str]) -> PathBuf {
        let out = self.at(name);
        let args = ["quantize", "--model", model, "--output", arg(&out)];
        json_of(&[&args, more].concat());
        out
    }
}

/// The tensors of a folder's files: dtype, shape and bytes by name.
pub fn tensors(folder: &Path) -> BTreeMap<String, (String, Vec<u8>)> {
    let shards = names(folder).into_iter();
    let shards = shards.filter(|name| name.ends_with(".safetensors"));
    let mut found = BTreeMap::new();
    for shard in shards {
        let bytes = fs::read(folder.join(shard)).expect("a file");
        let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
        for (name, tensor) in file.tensors() {
            let about = format!("{:?} {:?}", tensor.dtype(), tensor.shape());
            let before = found.insert(name, (about, tensor.data().to_vec()));
            assert!(before.is_none(), "a tensor is there twice");
        }
    }
    found
}

/// Fails with the names of the tensors that differ.
#[track_caller]
pub fn same(a: &Path, b: &Path) {
    let (a, b) = (tensors(a), tensors(b));
    let names: Vec<_> = a.keys().chain(b.keys()).collect();
    let differ: Vec<_> = names
        .into_iter()
        .filter(|name| a.get(*name) != b.get(*name))
        .collect();
    assert!(differ.is_empty(), "{differ:?}");
}

pub fn config(folder: &Path) -> Value {
    let text = fs::read_to_string(folder.join("config.json")).expect("a file");
    serde_json::from_str(&text).expect("JSON")
}

/// Which backend has which layer.
#[track_caller]
pub fn backends(folder: &Path) -> BTreeMap<String, String> {
    let inspection = json_of(&["inspect", arg(folder), "--all"]);
    let layers = inspection["layers"].as_array().expect("layers").iter();
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    layers
        .map(|layer| (text(&layer["name"]), text(&layer["backend"])))
        .collect()
}

pub const LOAD_NF4: [&str; 3] = ["--load-in-4bit", "--bnb-4bit-quant-type", "nf4"];
pub const ALL: [&str; 4] = ["--min-kept", "0", "--max-length", "64"];

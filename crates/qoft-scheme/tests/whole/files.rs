//! Which files of a folder are read. The rules are those of transformers 5
//! (`_get_resolved_checkpoint_files`), where they give an answer.

use std::path::Path;

use qoft_scheme::{Checkpoint, Dtype};
use safetensors::tensor::TensorView;
use serde_json::json;
use tempfile::TempDir;

/// Writes a file with vectors of one value each.
fn write(folder: &Path, file: &str, tensors: &[(&str, f32)]) {
    let bytes: Vec<[u8; 4]> = tensors.iter().map(|(_, v)| v.to_le_bytes()).collect();
    let views = tensors.iter().zip(&bytes).map(|((name, _), bytes)| {
        let view = TensorView::new(Dtype::F32, vec![1], bytes).unwrap();
        (*name, view)
    });
    let file = folder.join(file);
    std::fs::write(file, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn index(folder: &Path, map: serde_json::Value) {
    let text = json!({"weight_map": map}).to_string();
    std::fs::write(folder.join("model.safetensors.index.json"), text).unwrap();
}

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), "{}").unwrap();
    folder
}

fn value(folder: &TempDir, name: &str) -> f32 {
    let checkpoint = Checkpoint::open(folder).unwrap();
    checkpoint.tensor(name).unwrap().to_f32().unwrap()[0]
}

fn error(folder: &TempDir) -> String {
    Checkpoint::open(folder).unwrap_err().to_string()
}

#[test]
fn a_single_file_comes_before_an_index() {
    let folder = folder();
    write(folder.path(), "model.safetensors", &[("a", 1.0)]);
    write(
        folder.path(),
        "model-00001-of-00001.safetensors",
        &[("a", 2.0)],
    );
    index(
        folder.path(),
        json!({"a": "model-00001-of-00001.safetensors"}),
    );
    assert_eq!(value(&folder, "a"), 1.0);
}

#[test]
fn the_configuration_may_name_the_file() {
    let folder = folder();
    write(folder.path(), "model.safetensors", &[("a", 1.0)]);
    write(folder.path(), "other.safetensors", &[("a", 2.0)]);
    let config = folder.path().join("config.json");
    std::fs::write(&config, r#"{"transformers_weights": "other.safetensors"}"#).unwrap();
    assert_eq!(value(&folder, "a"), 2.0);
    std::fs::write(&config, r#"{"transformers_weights": "../x.safetensors"}"#).unwrap();
    assert!(error(&folder).contains("`transformers_weights` names `../x.safetensors`"));
}

#[test]
fn tensors_that_an_index_forgets_are_read() {
    let folder = folder();
    write(folder.path(), "x.safetensors", &[("a", 1.0), ("b", 2.0)]);
    index(folder.path(), json!({"a": "x.safetensors"}));
    assert_eq!(value(&folder, "b"), 2.0);
}

#[test]
fn two_files_may_have_the_same_tensor_but_not_two_values_of_it() {
    let folder = folder();
    write(folder.path(), "x.safetensors", &[("a", 1.0), ("b", 2.0)]);
    write(folder.path(), "y.safetensors", &[("b", 2.0), ("c", 3.0)]);
    index(
        folder.path(),
        json!({"a": "x.safetensors", "c": "y.safetensors"}),
    );
    assert_eq!(value(&folder, "b"), 2.0);
    write(folder.path(), "y.safetensors", &[("b", 4.0), ("c", 3.0)]);
    let error = error(&folder);
    for part in ["`b`", "x.safetensors", "y.safetensors"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn an_index_that_names_what_is_not_there_is_refused() {
    let folder = folder();
    write(folder.path(), "x.safetensors", &[("a", 1.0)]);
    index(
        folder.path(),
        json!({"a": "x.safetensors", "b": "x.safetensors"}),
    );
    assert!(error(&folder).contains("tensor `b` is missing"));
    index(folder.path(), json!({"a": "/etc/passwd"}));
    assert!(error(&folder).contains("no file of this folder"));
}

/// As transformers joins the names to the folder.
#[test]
fn an_index_may_name_files_in_folders_of_the_folder() {
    let folder = folder();
    std::fs::create_dir(folder.path().join("sub")).unwrap();
    write(folder.path(), "x.safetensors", &[("a", 1.0)]);
    write(&folder.path().join("sub"), "x.safetensors", &[("b", 2.0)]);
    index(
        folder.path(),
        json!({"a": "./x.safetensors", "b": "sub/./x.safetensors"}),
    );
    assert_eq!((value(&folder, "a"), value(&folder, "b")), (1.0, 2.0));
    for out in ["sub/../../x.safetensors", "./", ".", "", "sub/.."] {
        index(folder.path(), json!({"a": out}));
        assert!(error(&folder).contains("no file of this folder"), "{out}");
    }
}

#[test]
fn the_only_file_is_read_whatever_its_name() {
    let folder = folder();
    write(
        folder.path(),
        "gptq_model-4bit-32g.safetensors",
        &[("a", 1.0)],
    );
    write(folder.path(), "adapter_model.safetensors", &[("a", 2.0)]);
    assert_eq!(value(&folder, "a"), 1.0);
    write(folder.path(), "second.safetensors", &[("a", 2.0)]);
    let error = error(&folder);
    for part in ["gptq_model-4bit-32g.safetensors", "second.safetensors"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn pointers_of_git_lfs_are_named() {
    let folder = folder();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
    std::fs::write(folder.path().join("model.safetensors"), pointer).unwrap();
    assert!(error(&folder).contains("git lfs pull"));
    std::fs::write(folder.path().join("config.json"), pointer).unwrap();
    assert!(error(&folder).contains("git lfs pull"));
}

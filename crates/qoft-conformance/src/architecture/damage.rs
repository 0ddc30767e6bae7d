//! Models whose files do not fit.

use std::path::Path;

use qoft_core::{Checkpoint, Dtype};
use qoft_models::ModelFolder;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

use super::case::Case;

pub fn check(case: &Case) {
    let checkpoint = Checkpoint::open(case.folder).expect("it was loaded");
    tensors(case, &checkpoint);
    configurations(case, checkpoint.config());
}

/// A copy of the case with other tensors and another configuration.
fn copy(config: &Value, tensors: &[Stored]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        let view = TensorView::new(*dtype, shape.clone(), bytes);
        (name, view.expect("bytes that fit the shape"))
    });
    let file = folder.path().join("model.safetensors");
    safetensors::serialize_to_file(views, None, &file).expect("a written file");
    let file = folder.path().join("config.json");
    std::fs::write(file, config.to_string()).expect("a written file");
    folder
}

/// Name, dtype, shape and bytes.
type Stored = (String, Dtype, Vec<usize>, Vec<u8>);

fn stored(checkpoint: &Checkpoint) -> Vec<Stored> {
    let tensors = checkpoint.names().map(|name| {
        let tensor = checkpoint.tensor(name).expect("a listed tensor");
        let (dtype, shape) = (tensor.dtype(), tensor.shape().to_vec());
        (name.to_owned(), dtype, shape, tensor.bytes().to_vec())
    });
    tensors.collect()
}

/// Each tensor of the model's layers is missed, and its shape is checked.
fn tensors(case: &Case, checkpoint: &Checkpoint) {
    let all = stored(checkpoint);
    let folder = ModelFolder::new(checkpoint.clone(), case.architectures);
    let spec = folder.spec().expect("it was loaded");
    let owner = |name: &str| {
        let (path, _) = name.rsplit_once('.')?;
        let base = spec.names().base;
        let layers = [path.to_owned(), format!("{base}.{path}")];
        layers.iter().find_map(|path| spec.layer(path))
    };
    for (number, (name, dtype, shape, _)) in all.iter().enumerate() {
        // Others are a scheme's matter, or another model's part.
        let Some(layer) = owner(name).filter(|layer| layer.tied_to.is_none()) else {
            continue;
        };
        let mut without = all.clone();
        without.remove(number);
        names(
            case,
            &copy(checkpoint.config(), &without),
            &layer.path,
            "is missing",
        );

        if !matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            continue;
        }
        let mut longer = all.clone();
        let row = shape[1..].iter().product::<usize>() * dtype.bitsize() / 8;
        longer[number].2[0] += 1;
        longer[number].3.extend(vec![0; row]);
        names(
            case,
            &copy(checkpoint.config(), &longer),
            &layer.path,
            "is too long",
        );
    }
}

/// The error about a damaged model names the layer.
fn names(case: &Case, damaged: &tempfile::TempDir, layer: &str, what: &str) {
    let folder = case.folder.display();
    match case.load(damaged.path()) {
        Ok(_) => panic!("{folder}: a tensor of `{layer}` {what}, and the model is loaded"),
        Err(error) => {
            let text = error.to_string();
            assert!(
                text.contains(layer),
                "{folder}: a tensor of `{layer}` {what}, but the error is: {text}"
            );
        }
    }
}

/// Values that a key may have by mistake.
fn odd_values() -> [Value; 10] {
    [
        Value::Null,
        json!(true),
        json!(0),
        json!(1),
        json!(-1),
        json!(0.3),
        json!(4_000_000_000_u64),
        json!("odd"),
        json!([1, "two"]),
        json!({"odd": {}}),
    ]
}

/// Whatever is changed, there is a model or an error.
fn configurations(case: &Case, config: &Value) {
    let work = tempfile::tempdir().expect("a temporary folder");
    copy_tensors(case.folder, work.path());
    for path in keys(config) {
        let mut without = config.clone();
        remove(&mut without, &path);
        try_config(case, work.path(), &without);
        for value in odd_values() {
            let mut changed = config.clone();
            changed[path[0].as_str()] = match &path[..] {
                [_, inner] => {
                    let mut object = config[path[0].as_str()].clone();
                    object[inner.as_str()] = value;
                    object
                }
                _ => value,
            };
            try_config(case, work.path(), &changed);
        }
    }
}

/// The paths of all keys, inside objects too.
fn keys(config: &Value) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    for (key, value) in config.as_object().into_iter().flatten() {
        // How layers are quantized is a scheme's matter.
        if key == "quantization_config" {
            continue;
        }
        paths.push(vec![key.clone()]);
        for (inner, _) in value.as_object().into_iter().flatten() {
            paths.push(vec![key.clone(), inner.clone()]);
        }
    }
    paths
}

fn remove(config: &mut Value, path: &[String]) {
    let object = match path {
        [outer, _] => &mut config[outer.as_str()],
        _ => config,
    };
    if let (Some(object), Some(key)) = (object.as_object_mut(), path.last()) {
        object.shift_remove(key);
    }
}

fn try_config(case: &Case, folder: &Path, config: &Value) {
    std::fs::write(folder.join("config.json"), config.to_string()).expect("a written file");
    if let Ok(model) = case.load(folder) {
        let longest = model.config().longest_sequence;
        if longest.is_none_or(|longest| longest >= case.longest().len()) {
            case.loss_of(&model);
        }
    }
}

/// Gives a folder the tensors of another one.
fn copy_tensors(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("a folder").flatten() {
        let name = entry.file_name();
        let text = name.to_string_lossy();
        if text.ends_with(".safetensors") || text.ends_with(".index.json") {
            std::fs::copy(entry.path(), to.join(&name)).expect("a copied file");
        }
    }
}

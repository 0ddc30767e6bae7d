//! Folders that are damaged: an error or an adapter, never a panic.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use qoft_core::{Dtype, Error, Result, read_json};
use qoft_peft::{self as peft, CONFIG, PREFIX, WEIGHTS};
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

use super::case::{ADAPTER, Case, FACTS};
use super::folder::save;
use super::model::{Model, values};
use crate::compute::device;
use crate::damage::{leaves, odd_values, with_value};

pub(super) fn check(case: &Case) {
    let folder = save(case, &case.trained(1, &device()));
    let file = peft::read_tensors(&folder.path().join(WEIGHTS)).expect("it was written");
    tensors(case, folder.path(), &file);
    write(folder.path(), &file);
    configurations(case, folder.path());
    other_layers(case);
}

/// Shape and values.
type Shaped = (Vec<usize>, Vec<f32>);

type File = BTreeMap<String, Shaped>;

fn write(folder: &Path, file: &File) {
    let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let file: Vec<(String, Vec<usize>, Vec<u8>)> = file
        .iter()
        .map(|(name, (shape, values))| (format!("{PREFIX}{name}"), shape.clone(), bytes(values)))
        .collect();
    let views = file.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
        (name, view.expect("bytes that fit the shape"))
    });
    safetensors::serialize_to_file(views, None, &folder.join(WEIGHTS)).expect("a written file");
}

/// Loads a folder and computes with it.
///
/// # Panics
/// If something panics, with the words of `what`.
fn attempt(case: &Case, folder: &Path, what: &str) -> Result<()> {
    let run = || -> Result<()> {
        let mut model = Model::new();
        case.load(&mut model, folder, ADAPTER)?;
        for (_, y) in model.outputs() {
            values(y);
        }
        Ok(())
    };
    let outcome = catch_unwind(AssertUnwindSafe(run));
    let outcome = outcome.unwrap_or_else(|_| panic!("{case}: panics when {what}"));
    if let Err(error) = &outcome {
        let text = error.to_string();
        let named = text.contains("adapter") || text.contains(CONFIG) || text.contains(WEIGHTS);
        assert!(named, "{case}: {what}: the error names no file: {text}");
    }
    outcome
}

fn tensors(case: &Case, folder: &Path, file: &File) {
    let refused = |changed: &File, name: &str, what: &str| {
        write(folder, changed);
        let what = format!("`{name}` {what}");
        let error: Error = match attempt(case, folder, &what) {
            Ok(()) => panic!("{case}: {what}, and that is no error"),
            Err(error) => error,
        };
        let text = error.to_string();
        assert!(
            text.contains(name),
            "{case}: {what}: the error does not name it: {text}"
        );
    };
    for name in file.keys() {
        let with = |change: &dyn Fn(&mut Shaped)| {
            let mut changed = file.clone();
            change(changed.get_mut(name).expect("a name of the file"));
            changed
        };
        let mut missing = file.clone();
        let tensor = missing.remove(name).expect("a name of the file");
        refused(&missing, name, "is missing");
        let mut foreign = file.clone();
        let other = format!("not_there.{name}");
        foreign.insert(other.clone(), tensor);
        refused(&foreign, &other, "belongs to no layer");
        for (bad, what) in [
            (f32::NAN, "is not a number"),
            (f32::INFINITY, "is infinite"),
        ] {
            refused(&with(&|(_, values)| values[0] = bad), name, what);
        }
        let longer = with(&|(shape, values)| {
            values.push(0.0);
            *shape = vec![values.len()];
        });
        refused(&longer, name, "is longer");
        let empty = with(&|(shape, values)| {
            values.clear();
            *shape = vec![0];
        });
        refused(&empty, name, "is empty");
        for changed in shapes(&file[name]) {
            let what = format!("`{name}` has the shape {:?}", changed.0);
            write(folder, &with(&|tensor| tensor.clone_from(&changed)));
            // A family may take a size from the file.
            let _ = attempt(case, folder, &what);
        }
    }
    std::fs::write(folder.join(WEIGHTS), "no tensors").expect("a written file");
    assert!(attempt(case, folder, "the file is text").is_err(), "{case}");
}

/// Other shapes, with as many values as they say.
fn shapes((shape, values): &Shaped) -> Vec<Shaped> {
    let mut all = vec![
        (shape.iter().rev().copied().collect(), values.clone()),
        (vec![values.len()], values.clone()),
        ([shape.as_slice(), &[1]].concat(), values.clone()),
        ([&[1], shape.as_slice()].concat(), values.clone()),
    ];
    for at in 0..shape.len() {
        for size in [1, shape[at] - 1, shape[at] + 1, 2 * shape[at]] {
            let mut shape = shape.clone();
            shape[at] = size;
            let count = shape.iter().product();
            let values = values.iter().cycle().take(count).copied();
            all.push((shape, values.collect()));
        }
    }
    all
}

/// Values that a key may have by mistake.
fn mistakes() -> impl Iterator<Item = Value> {
    let more = [json!(1), json!(true), json!(0.3), json!(4_000_000_000_u64)];
    odd_values().into_iter().chain(more)
}

/// Whatever a configuration says, there is an adapter or an error.
fn configurations(case: &Case, folder: &Path) {
    let path = folder.join(CONFIG);
    let config = read_json(&path).expect("it was written");
    for pointer in leaves(&config) {
        for value in mistakes() {
            let changed = with_value(&config, &pointer, value.clone());
            let what = format!("`{pointer}` is {value}");
            std::fs::write(&path, changed.to_string()).expect("a written file");
            let _ = attempt(case, folder, &what);
            let new = catch_unwind(AssertUnwindSafe(|| {
                let config = case.registration.item().read(changed, "configuration")?;
                let mut model = Model::new();
                peft::attach(&mut model, &*config, FACTS, ADAPTER, 1, &device())
            }));
            assert!(new.is_ok(), "{case}: a new adapter panics when {what}");
        }
    }
    for text in ["", "[]", "{}", r#"{"peft_type": 3}"#, "{"] {
        std::fs::write(&path, text).expect("a written file");
        let what = format!("the configuration is `{text}`");
        assert!(
            attempt(case, folder, &what).is_err(),
            "{case}: {what}, and that is no error"
        );
    }
}

/// A layer that the configuration does not fit is refused before anything is attached.
fn other_layers(case: &Case) {
    for path in ["strips", "conv", "table", "packed"] {
        if case.targets.iter().any(|target| target == path) {
            continue;
        }
        let mut json = case.config.to_json();
        json["target_modules"] = json!([Model::FIRST, path]);
        let config = case.registration.item().read(json, "configuration");
        let config = config.unwrap_or_else(|e| panic!("{case}: {e}"));
        let mut model = Model::new();
        let attached = peft::attach(&mut model, &*config, FACTS, ADAPTER, 1, &device());
        let error = attached.err();
        let error = error.unwrap_or_else(|| panic!("{case}: `{path}` gets an adapter"));
        let text = error.to_string();
        assert!(
            text.contains(path),
            "{case}: the error does not name `{path}`: {text}"
        );
        assert!(
            Case::rotations(&model).is_empty(),
            "{case}: half of a model is adapted"
        );
    }
}

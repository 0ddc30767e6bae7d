//! Adapters in folders.

use std::path::Path;

use qoft_core::Error;
use qoft_peft::{self as peft, AdapterFolder};
use serde_json::json;

use super::case::{ADAPTER, Case, FACTS};
use super::model::Model;
use crate::compute::device;

pub(super) fn check(case: &Case) {
    let trained = case.trained(1, &device());
    let folder = save(case, &trained);
    comes_back(case, &trained, folder.path());
    keys_survive(case, &trained);
    strengths(case, &trained, folder.path());
}

/// A folder with the adapter of a model.
pub(super) fn save(case: &Case, model: &Model) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let saved = peft::save(model, &*case.config, ADAPTER, folder.path());
    saved.unwrap_or_else(|e| panic!("{case}: {e}"));
    folder
}

fn comes_back(case: &Case, trained: &Model, folder: &Path) {
    let mut again = Model::new();
    case.load(&mut again, folder, ADAPTER)
        .unwrap_or_else(|e| panic!("{case}: {e}"));
    case.expect_same(&again, trained, "a saved adapter");
    assert_eq!(
        peft::trained(&again, ADAPTER),
        peft::trained(trained, ADAPTER),
        "{case}: parameters of a saved adapter"
    );
    let opened = AdapterFolder::open(folder, &case.families());
    let opened = opened.unwrap_or_else(|e| panic!("{case}: {e}"));
    let paths: Vec<&str> = opened.paths().collect();
    let mut targets: Vec<&str> = case.targets.iter().map(String::as_str).collect();
    targets.sort_unstable();
    assert_eq!(paths, targets, "{case}: layers of a saved adapter");
    let mut expected = case.config.to_json();
    for (key, value) in [
        ("inference_mode", json!(true)),
        ("target_modules", json!(0)),
    ] {
        expected[key] = value;
    }
    let mut found = opened.config().to_json();
    found["target_modules"] = json!(0);
    assert_eq!(found, expected, "{case}: the saved configuration");
}

fn keys_survive(case: &Case, trained: &Model) {
    let mut json = case.config.to_json();
    json["a_key_of_the_future"] = json!({"a": [1]});
    let config = case.registration.item().read(json, "configuration");
    let config = config.unwrap_or_else(|e| panic!("{case}: {e}"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    peft::save(trained, &*config, ADAPTER, folder.path()).expect("a written folder");
    let opened = AdapterFolder::open(folder.path(), &case.families()).expect("it was written");
    assert_eq!(
        opened.config().to_json()["a_key_of_the_future"],
        json!({"a": [1]}),
        "{case}: an unknown key is lost"
    );
}

/// A strength of 0 is no adapter, one of 1 the whole; where a family has no strengths, the error names
/// it.
fn strengths(case: &Case, trained: &Model, folder: &Path) {
    let opened = AdapterFolder::open(folder, &case.families()).expect("it was written");
    let with = |strength: f64| {
        let mut model = Model::new();
        let attached =
            peft::attach_folder(&mut model, &opened, strength, FACTS, ADAPTER, &device());
        attached.map(|()| model)
    };
    let whole = with(1.0).unwrap_or_else(|e| panic!("{case}: {e}"));
    case.expect_same(&whole, trained, "an adapter with strength 1");
    match (with(0.0), with(0.5)) {
        (Ok(none), Ok(half)) => {
            case.expect_same(&none, &Model::new(), "an adapter with strength 0");
            assert!(
                Case::differ(&half, &none) && Case::differ(&half, &whole),
                "{case}: half of an adapter is all or nothing"
            );
        }
        (none, half) => {
            for error in [none.err(), half.err()].into_iter().flatten() {
                let text = error.to_string();
                let named = matches!(error, Error::Adapter { .. } | Error::Config { .. });
                assert!(named && text.contains("strength"), "{case}: {text}");
            }
        }
    }
}

//! Which backend has which layer: one alone, in all checkpoints of the fixtures. What their layers look
//! like is what the conformance kit shows to every other backend, also to those of other people.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use qoft::core::{BackendOptions, Checkpoint, Containers, LayerSource, Registry};
use serde_json::{Map, Value, json};

/// Set it to write the kit's file.
const WRITE: &str = "WRITE_FOREIGN";

/// The kit's file: a layer in each line.
fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../qoft-conformance/src/foreign.jsonl")
}

/// All models of the fixtures: folders, and files of other formats.
fn models(containers: &Containers) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![qoft_fixtures::path("")];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.ends_with("config.json") {
                found.push(folder.clone());
            } else if containers.find(&path).is_some() {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// What one layer looks like: its tensors' dtypes and shapes.
fn tensors(layer: &LayerSource) -> Map<String, Value> {
    let outline = |suffix: &str| {
        let tensor = layer.tensor(suffix).unwrap();
        let outline = json!([tensor.dtype(), tensor.shape()]);
        (suffix.to_owned(), outline)
    };
    layer.suffixes().map(outline).collect()
}

/// Each kind of layer of a checkpoint once: one for each backend, configuration's method, and names
/// and dtypes of tensors.
fn outlines(checkpoint: &Checkpoint, registry: &Registry, found: &mut BTreeMap<String, Value>) {
    let schemes = registry.open(checkpoint, &BackendOptions::default());
    let schemes = schemes.unwrap();
    for path in checkpoint.modules() {
        let layer = LayerSource::new(checkpoint, path, None);
        let [backend] = schemes.claimants(&layer)[..] else {
            let claimants = schemes.claimants(&layer);
            let at = checkpoint.path().display();
            assert!(claimants.is_empty(), "{at}: {path}: {claimants:?}");
            continue;
        };
        let tensors = tensors(&layer);
        let names = tensors.iter().map(|(name, outline)| (name, &outline[0]));
        let key = json!([backend, schemes.quant_method(), names.collect::<Vec<_>>()]);
        let outline = || json!({"backend": backend, "config": schemes.quantization_config(), "tensors": tensors});
        found.entry(key.to_string()).or_insert_with(outline);
    }
}

#[test]
fn each_layer_has_one_claimant_and_the_kit_knows_what_it_looks_like() {
    let (containers, registry) = (Containers::linked().unwrap(), Registry::linked().unwrap());
    let mut found = BTreeMap::new();
    for model in models(&containers) {
        // Some are damaged, or have a configuration only.
        if let Ok(checkpoint) = containers.open(&model) {
            outlines(&checkpoint, &registry, &mut found);
        }
    }
    let lines: String = found
        .values()
        .map(|outline| format!("{outline}\n"))
        .collect();
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(file(), &lines).unwrap();
    }
    let known = std::fs::read_to_string(file()).unwrap_or_default();
    assert!(
        known == lines,
        "the fixtures have other layers than {}: run this test with {WRITE}=1",
        file().display()
    );
    // Every backend that is linked has layers there, so that the others meet them.
    for backend in registry.backends() {
        let of_it = format!("{{\"backend\":\"{}\",", backend.name());
        assert!(lines.contains(&of_it), "{}", backend.name());
    }
}

/// Their tensors have names that nobody else has.
const UNMISTAKABLE: [&str; 6] = ["aqlm", "bnb-4bit", "bnb-8bit", "dense", "gguf", "inc-fp8"];

#[test]
fn layers_of_an_unknown_method_are_nobodys() {
    let registry = Registry::linked().unwrap();
    let claimed = |checkpoint: &Checkpoint| -> Vec<&str> {
        // Some are damaged.
        let Ok(schemes) = registry.open(checkpoint, &BackendOptions::default()) else {
            return Vec::new();
        };
        let modules = checkpoint.modules().into_iter();
        let layers = modules.map(|path| LayerSource::new(checkpoint, path, None));
        layers.flat_map(|layer| schemes.claimants(&layer)).collect()
    };
    let mut checked = 0;
    for folder in models(&Containers::new([]).unwrap()) {
        let Ok(checkpoint) = Checkpoint::open(&folder) else {
            continue;
        };
        let before = claimed(&checkpoint);
        let unknown = json!({"quant_method": "frobnicate"});
        let after = claimed(&checkpoint.with_quantization_config(unknown));
        let mut after = after.iter();
        let wrong = after.find(|name| !UNMISTAKABLE.contains(name));
        assert_eq!(wrong, None, "{}", folder.display());
        checked += usize::from(before.iter().any(|name| !UNMISTAKABLE.contains(name)));
    }
    assert!(checked > 100, "only {checked} checkpoints");
}

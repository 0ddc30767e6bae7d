//! PEFT's rules, by a table that PEFT wrote: what a configuration means for the modules of a model.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use qoft::core::{Error, LayerKind, Result};
use qoft::peft::{
    AdapterConfig, Families, ModelFacts, ModuleKind, Modules, OneOrMany, PEFT_VERSION, Selection,
    peft_default_targets,
};
use serde_json::{Value, json};

struct Model {
    modules: Modules,
    /// Paths, kinds as the table has them, and whether there is a bias.
    described: Vec<(String, String, bool)>,
    model_type: String,
}

impl Model {
    fn read(described: &Value) -> Self {
        let lines = described["modules"].as_array().unwrap().iter();
        let described_modules: Vec<_> = lines
            .map(|line| {
                let words: Vec<&str> = line.as_str().unwrap().split(' ').collect();
                (words[0].to_owned(), words[1].to_owned(), words.len() > 2)
            })
            .collect();
        let modules = described_modules.iter();
        let modules = modules.map(|(path, kind, _)| (path.as_str(), module_kind(kind)));
        let head = described["head"].as_str().unwrap_or_default();
        Self {
            modules: Modules::new(modules, head),
            model_type: described["type"].as_str().unwrap().to_owned(),
            described: described_modules,
        }
    }

    fn path(&self, index: usize) -> &str {
        &self.described[index].0
    }

    /// The paths that indices as in "0 3-5" stand for.
    fn paths(&self, indices: &Value) -> BTreeSet<&str> {
        let ranges = indices.as_str().unwrap_or_default().split_whitespace();
        let ranges = ranges.map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            first.parse::<usize>().unwrap()..=last.parse().unwrap()
        });
        ranges.flatten().map(|index| self.path(index)).collect()
    }
}

fn module_kind(kind: &str) -> ModuleKind {
    match kind {
        "linear" | "conv1d" => ModuleKind::Layer(LayerKind::Linear),
        "embedding" => ModuleKind::Layer(LayerKind::Embedding),
        "conv2d" => ModuleKind::Layer(LayerKind::Conv2d),
        "norm" => ModuleKind::Layer(LayerKind::Norm),
        "list" => ModuleKind::List,
        "other" => ModuleKind::Other,
        other => panic!("{other}"),
    }
}

/// The configuration of a row; its sizes are no matter of the table.
fn config(row: &Value) -> Result<Arc<dyn AdapterConfig>> {
    let families = Families::linked().unwrap();
    let family = families.find(row["family"].as_str().unwrap(), "table")?;
    let mut json = family.defaults();
    for (key, value) in row["config"].as_object().unwrap() {
        json[key] = value.clone();
    }
    family.read(json, "table")
}

/// PEFT's word for an error of ours.
fn word_of(error: &Error) -> &'static str {
    let text = error.to_string();
    match error {
        Error::NoTarget { .. } => "nothing",
        Error::Config { key, .. } => match key.as_str() {
            _ if text.contains("is no regular expression") => "expression",
            "bias" => "bias",
            "layers_to_transform" | "layers_pattern" => "config",
            "target_modules" if text.contains("no default") => "no_default",
            "target_modules" if text.contains("has no rotation") => "unsupported",
            "modules_to_save" => "not_whole",
            _ => panic!("{text}"),
        },
        _ => panic!("{text}"),
    }
}

fn difference(row: &Value, model: &Model) -> Option<String> {
    let is_conv1d = |index: &Value| {
        let index = index.as_u64().map(|index| index as usize);
        index.is_some_and(|index| model.described[index].1 == "conv1d")
    };
    // GPT-2's layers, which PEFT's OFT and HRA do not know, are linear layers like others here.
    let ours_only = row["error"] == "unsupported" && is_conv1d(&row["module"]);
    let model_type = row["type"].as_str().unwrap_or(&model.model_type);
    let config = config(row);
    let parts = match &config {
        Ok(config) => Selection::new(&**config, ModelFacts::of_type(model_type), &model.modules),
        Err(error) => {
            let found = word_of(error);
            return (row["error"] != found).then(|| format!("found {found}: {error}"));
        }
    };
    let parts = match parts {
        Ok(_) if !row["error"].is_null() && !ours_only => return Some("found no error".into()),
        Ok(parts) => parts,
        Err(error) => {
            let found = word_of(&error);
            let module = row["module"]
                .as_u64()
                .map(|index| model.path(index as usize));
            let names_it =
                module.is_none_or(|path| error.to_string().contains(&format!("`{path}`")));
            let same = row["error"] == found && names_it;
            return (!same).then(|| format!("found {found}: {error}"));
        }
    };
    let rotated: BTreeSet<&str> = parts.rotated().keys().map(String::as_str).collect();
    if rotated != model.paths(&row["matched"]) {
        return Some(format!("matched: found {rotated:?}"));
    }
    if ours_only {
        return None;
    }
    let of_those = |choose: &dyn Fn(&(String, String, bool)) -> bool| -> BTreeSet<&str> {
        let chosen = model.described.iter().filter(|module| choose(module));
        chosen.map(|(path, ..)| path.as_str()).collect()
    };
    let has_tensors = |kind: &str| !matches!(kind, "list" | "other");
    let whole = of_those(&|(path, kind, _)| has_tensors(kind) && parts.is_whole(path));
    if whole != model.paths(&row["whole"]) {
        return Some(format!("whole: found {whole:?}"));
    }
    let bias =
        of_those(&|(path, _, bias)| *bias && !parts.is_whole(path) && parts.trains_bias(path));
    if bias != model.paths(&row["bias"]) {
        return Some(format!("bias: found {bias:?}"));
    }
    let resolved = match row["resolved"].is_null() {
        true => &row["config"]["target_modules"],
        false => &row["resolved"],
    };
    let found = serde_json::to_value(parts.target_modules()).unwrap();
    (sorted(&found) != sorted(resolved)).then(|| format!("resolved: found {found}"))
}

/// PEFT keeps names as a set.
fn sorted(targets: &Value) -> Value {
    match targets.as_array() {
        None => targets.clone(),
        Some(names) => {
            let names: BTreeSet<&str> = names.iter().filter_map(Value::as_str).collect();
            json!(names)
        }
    }
}

fn table() -> Value {
    let path = qoft_fixtures::path("peft_table.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn every_row_of_pefts_table_is_ours() {
    let table = table();
    let models = table["models"].as_object().unwrap().iter();
    let models: BTreeMap<&str, Model> = models
        .map(|(name, described)| (name.as_str(), Model::read(described)))
        .collect();
    assert_eq!(table["peft"], PEFT_VERSION);
    let rows = table["rows"].as_array().unwrap();
    assert!(rows.len() > 2800, "{}", rows.len());
    let mut different = Vec::new();
    for row in rows {
        let model = &models[row["model"].as_str().unwrap()];
        different.extend(difference(row, model).map(|found| format!("{row}\n  {found}")));
    }
    assert!(
        different.is_empty(),
        "{} of {} rows differ:\n{}",
        different.len(),
        rows.len(),
        different.join("\n")
    );
}

#[test]
fn defaults_are_those_of_peft() {
    for (model_type, targets) in table()["defaults"].as_object().unwrap() {
        let targets: OneOrMany = serde_json::from_value(targets.clone()).unwrap();
        assert_eq!(
            peft_default_targets(model_type),
            Some(targets),
            "{model_type}"
        );
    }
    for model_type in ["smollm3", "olmo2", "granite", "phi3", "custom"] {
        assert_eq!(peft_default_targets(model_type), None, "{model_type}");
    }
}

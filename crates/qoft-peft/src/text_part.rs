//! Adapters of a text model by itself, for the same model as a part of a larger one, and the other way
//! round: transformers loads the text part of some folders alone, and its modules have other paths then.

use std::borrow::Cow;
use std::collections::HashSet;

use qoft_core::Result;
use serde_json::{Value, json};

use crate::folder::AdapterFolder;
use crate::modules::Modules;

/// What the paths of the text part's modules begin with.
const TEXT_PARTS: [&str; 3] = ["model.language_model.", "language_model.model.", "model."];
/// Paths of the output head.
const HEADS: [&str; 2] = ["language_model.lm_head", "lm_head"];

/// Paths of a model's modules.
struct Paths<'a>(HashSet<&'a str>);

impl Paths<'_> {
    /// The path of a module in this model, if it has another one in the adapter's.
    fn of(&self, path: &str) -> Option<String> {
        if self.0.contains(path) {
            return None;
        }
        if HEADS.contains(&path) {
            let head = HEADS.iter().find(|head| self.0.contains(**head));
            return head.map(|head| (*head).to_owned());
        }
        let inside = |part: &&str| path.strip_prefix(*part);
        let inside = TEXT_PARTS.iter().find_map(inside)?;
        let mut paths = TEXT_PARTS.iter().map(|part| format!("{part}{inside}"));
        paths.find(|path| self.0.contains(path.as_str()))
    }

    /// The name of one of a module's tensors in this model.
    fn name(&self, name: &str) -> String {
        let split = name.rsplit_once('.');
        let renamed = split.and_then(|(path, tensor)| Some(format!("{}.{tensor}", self.of(path)?)));
        renamed.unwrap_or_else(|| name.to_owned())
    }

    fn path(&self, path: &str) -> String {
        self.of(path).unwrap_or_else(|| path.to_owned())
    }
}

impl AdapterFolder {
    /// The same adapter under the paths that this model has for the modules of its text part.
    ///
    /// # Errors
    /// If the configuration is none with other paths.
    pub fn named_as_in(&self, modules: &Modules) -> Result<Cow<'_, Self>> {
        let layers = modules.iter().map(|(path, _)| path);
        let parts = modules.parameters().map(|(path, _)| path);
        let paths = Paths(layers.chain(parts).collect());
        if self.paths().all(|path| paths.of(path).is_none()) {
            return Ok(Cow::Borrowed(self));
        }
        let targets: Vec<String> = self.paths().map(|path| paths.path(path)).collect();
        let config = self.config();
        let mut json = config.to_json();
        // What the file has is what was meant; nothing has to be left out of it.
        json["target_modules"] = json!(targets);
        for key in ["exclude_modules", "layers_to_transform", "layers_pattern"] {
            json[key] = Value::Null;
        }
        if let Some(Value::Array(names)) = json.get_mut("modules_to_save") {
            for name in names {
                if let Some(path) = name.as_str().and_then(|name| paths.of(name)) {
                    *name = path.into();
                }
            }
        }
        let config = config
            .family()
            .read(json, &self.file().display().to_string())?;
        Ok(Cow::Owned(self.renamed(
            config,
            |name| paths.name(name),
            |path| paths.path(path),
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_in_either_model() {
        let whole = Paths(HashSet::from([
            "lm_head",
            "model.language_model.layers.0.mlp.up_proj",
        ]));
        let alone = Paths(HashSet::from(["lm_head", "model.layers.0.mlp.up_proj"]));
        let inside = "layers.0.mlp.up_proj";
        for part in TEXT_PARTS {
            let path = format!("{part}{inside}");
            assert_eq!(whole.path(&path), format!("model.language_model.{inside}"));
            assert_eq!(alone.path(&path), format!("model.{inside}"));
        }
        assert_eq!(whole.path("language_model.lm_head"), "lm_head");
        let name = whole.name("model.layers.0.mlp.up_proj.bias");
        assert_eq!(name, "model.language_model.layers.0.mlp.up_proj.bias");
        assert_eq!(whole.of("model.visual.blocks.0.attn.qkv"), None);
        assert_eq!(whole.of("model.layers.1.mlp.up_proj"), None);
    }
}

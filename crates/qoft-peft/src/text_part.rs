//! Adapters of a text model by itself, for the same model as a part of a larger one, and the other way
//! round: transformers loads the text part of some folders alone, and its modules have other paths then.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use qoft_core::Result;
use serde_json::{Value, json};

use crate::folder::AdapterFolder;
use crate::modules::Modules;

/// What the paths of the text part's modules begin with.
const TEXT_PARTS: [&str; 3] = ["model.language_model.", "language_model.model.", "model."];
/// Paths of the output head.
const HEADS: [&str; 2] = ["language_model.lm_head", "lm_head"];

/// `target_modules` for PEFT that mean, of the layers whose paths end with these names, those of the text part
/// of a model only: as a part of the whole one, and alone.
pub fn text_expression<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let inside = |name: &'a str| name.strip_prefix(TEXT_PARTS[0]).unwrap_or(name);
    let names = names
        .into_iter()
        .map(|name| inside(name).replace('.', r"\."));
    let names = names.collect::<Vec<_>>().join("|");
    format!(r"(?=model\.(?:language_model\.)?(?:layers\.|[^.]*$)).*\.(?:{names})")
}

/// Whether a path is that of a module in the text part of a whole model.
pub(crate) fn is_in_text_part(path: &str) -> bool {
    path.starts_with(TEXT_PARTS[0])
}

/// Paths of a model's modules.
#[derive(Default)]
struct Paths<'a> {
    known: HashSet<&'a str>,
    /// Paths in PEFT's model, and those of the same layers here.
    elsewhere: HashMap<&'a str, &'a str>,
}

impl Paths<'_> {
    /// The path of a module in this model, if it has another one in the adapter's.
    fn of(&self, path: &str) -> Option<String> {
        if let Some(path) = self.elsewhere.get(path) {
            return Some((*path).to_owned());
        }
        if self.known.contains(path) {
            return None;
        }
        if HEADS.contains(&path) {
            let head = HEADS.iter().find(|head| self.known.contains(**head));
            return head.map(|head| (*head).to_owned());
        }
        let inside = |part: &&str| path.strip_prefix(*part);
        let inside = TEXT_PARTS.iter().find_map(inside)?;
        let mut paths = TEXT_PARTS.iter().map(|part| format!("{part}{inside}"));
        paths.find(|path| self.known.contains(path.as_str()))
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
        let paths = Paths {
            known: layers.chain(parts).collect(),
            elsewhere: modules
                .elsewhere()
                .map(|(here, there)| (there, here))
                .collect(),
        };
        let names = |config| self.renamed(config, |name| paths.name(name), |path| paths.path(path));
        if self.paths().all(|path| paths.of(path).is_none()) {
            let mut own = self.own().keys();
            return Ok(match own.all(|name| paths.name(name) == *name) {
                true => Cow::Borrowed(self),
                false => Cow::Owned(names(self.config().clone())),
            });
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
        Ok(Cow::Owned(names(config)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_in_either_model() {
        let with = |path| Paths {
            known: HashSet::from(["lm_head", path]),
            ..Paths::default()
        };
        let whole = with("model.language_model.layers.0.mlp.up_proj");
        let alone = with("model.layers.0.mlp.up_proj");
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

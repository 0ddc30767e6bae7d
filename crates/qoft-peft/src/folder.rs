//! Saved adapters as PEFT writes them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;
use qoft_core::Matrix;

use crate::facts::ModelFacts;
use crate::family::AdapterConfig;
use crate::mistaken::expect_adapter;
use crate::registry::Families;
use crate::site::Site;
use crate::tensors::{CONFIG, PREFIX, Tensors, WEIGHTS, read_tensors};
use qoft_core::{
    AdapterParam, BIAS, Error, Layer, LayerKind, OftAdapter, ParamPlace, Result, WEIGHT, read_json,
};

/// What PEFT puts between a layer that has a rotation and the layer's own tensors.
const BASE: &str = "base_layer";

/// A saved adapter, read but not attached.
#[derive(Debug, Clone)]
pub struct AdapterFolder {
    config: Arc<dyn AdapterConfig>,
    file: PathBuf,
    /// Parameters of rotations.
    rotations: Tensors,
    /// Tensors instead of the model's, by the names that these have.
    own: BTreeMap<String, OwnValues>,
    /// The tables that PEFT saves with the rotation of an embedding, by the path of the layer.
    tables: Tensors,
}

/// A tensor that an adapter has instead of the model's.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct OwnValues {
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its values, row-major.
    pub values: Vec<f32>,
}

impl AdapterFolder {
    /// Reads `adapter_config.json` and `adapter_model.safetensors` of an adapter of one of these
    /// families.
    ///
    /// # Errors
    /// If the folder is damaged, or of another family.
    pub fn open(folder: &Path, families: &Families) -> Result<Self> {
        expect_adapter(folder)?;
        let path = folder.join(CONFIG);
        let (json, name) = (read_json(&path)?, path.display().to_string());
        let Some(family) = json["peft_type"].as_str() else {
            return Err(Error::config(name).key("peft_type", "it is missing"));
        };
        let config = families.find(family, &name)?.read(json, &name)?;
        let file = folder.join(WEIGHTS);
        let mut folder = Self {
            config,
            rotations: Tensors::new(),
            own: BTreeMap::new(),
            tables: Tensors::new(),
            file: file.clone(),
        };
        for (key, tensor) in read_tensors(&file)? {
            folder.sort_in(key, tensor);
        }
        Ok(folder)
    }

    fn sort_in(&mut self, key: String, (shape, values): (Vec<usize>, Vec<f32>)) {
        let parts: Vec<&str> = key.split('.').collect();
        if self.layer_of(&key).is_some() {
            self.rotations.insert(key, (shape, values));
        } else if let Some(path) = key.strip_suffix(".base_layer.weight") {
            self.tables.insert(path.to_owned(), (shape, values));
        } else if parts
            .iter()
            .any(|&p| p == "original_module" || p == "modules_to_save")
        {
            // With `bias: all` PEFT repeats the biases of modules that it saves whole.
        } else {
            let parts: Vec<&str> = parts.into_iter().filter(|&part| part != BASE).collect();
            self.own
                .insert(parts.join("."), OwnValues { shape, values });
        }
    }

    /// The same with the paths that modules have in the model, and without what it has for parts that are not
    /// computed; `None` if that changes nothing.
    pub fn of_model(&self, facts: ModelFacts) -> Option<Self> {
        let name = |key: &str| {
            let mut older = facts.older_paths.iter();
            let older = older.find_map(|(old, path)| Some((path, below(key, old)?)));
            older.map_or_else(|| key.to_owned(), |(path, rest)| format!("{path}{rest}"))
        };
        let keys = self.rotations.keys().chain(self.own.keys());
        let keys = || keys.clone().chain(self.tables.keys());
        // What there is a second time, for the text part alone.
        let again: BTreeSet<String> = keys().filter_map(|key| facts.name_alone(key)).collect();
        let again: BTreeSet<&String> = keys().filter(|key| again.contains(*key)).collect();
        let is_kept = |key: &str| {
            let mut parts = facts.other_parts.iter();
            !parts.any(|part| below(key, part).is_some())
        };
        let is_kept = |key: &String| !again.contains(key) && is_kept(&name(key));
        if keys().all(|key| name(key) == *key && is_kept(key)) {
            return None;
        }
        fn renamed<V: Clone>(
            values: &BTreeMap<String, V>,
            name: impl Fn(&str) -> String,
            is_kept: impl Fn(&String) -> bool,
        ) -> BTreeMap<String, V> {
            let values = values.iter().filter(|(key, _)| is_kept(key));
            let values = values.map(|(key, value)| (name(key), value.clone()));
            values.collect()
        }
        let found = Self {
            config: self.config.clone(),
            file: self.file.clone(),
            rotations: renamed(&self.rotations, name, is_kept),
            own: renamed(&self.own, name, is_kept),
            tables: renamed(&self.tables, name, is_kept),
        };
        let count = |folder: &Self| folder.rotations.len() + folder.own.len() + folder.tables.len();
        let left = count(self) - again.len() - count(&found);
        if left > 0 {
            tracing::warn!(
                "{}: {left} tensors are for {}, which are not computed and stay as they are",
                self.file.display(),
                facts.other_parts.join(" and ")
            );
        }
        Some(found)
    }

    /// The configuration.
    pub fn config(&self) -> &Arc<dyn AdapterConfig> {
        &self.config
    }

    /// The file with the values.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// The same with another configuration, and other names of tensors and paths of layers.
    pub(crate) fn renamed(
        &self,
        config: Arc<dyn AdapterConfig>,
        name: impl Fn(&str) -> String,
        path: impl Fn(&str) -> String,
    ) -> Self {
        let parameter = |key: &str| match self.layer_of(key) {
            Some(layer) => format!("{}{}", path(layer), &key[layer.len()..]),
            None => key.to_owned(),
        };
        let (rotations, own) = (self.rotations.iter(), self.own.iter());
        let rotations = rotations.map(|(key, value)| (parameter(key), value.clone()));
        let tables = self.tables.iter();
        Self {
            config,
            file: self.file.clone(),
            rotations: rotations.collect(),
            own: own.map(|(key, own)| (name(key), own.clone())).collect(),
            tables: tables
                .map(|(key, table)| (path(key), table.clone()))
                .collect(),
        }
    }

    /// Paths of the layers that it has a rotation for, sorted.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        let paths: BTreeSet<&str> = self
            .rotations
            .keys()
            .filter_map(|k| self.layer_of(k))
            .collect();
        paths.into_iter()
    }

    /// The tensors that it has instead of the model's, by the names that these have in the model's
    /// checkpoint.
    pub fn own(&self) -> &BTreeMap<String, OwnValues> {
        &self.own
    }

    /// The table of the embedding at `path`, `[entries, width]`, which PEFT saves with an adapter
    /// of it.
    pub fn base_weight(&self, path: &str) -> Option<Matrix> {
        let (shape, values) = self.tables.get(path)?;
        Some(Matrix::new(
            values.clone(),
            shape.as_slice().try_into().ok()?,
        ))
    }

    /// The rotation of the layer at `site`, with a strength: 0 is none of it, and 1 all.
    ///
    /// # Errors
    /// If there is none for such a layer, it is made for a layer of another size, or its family has
    /// no such strength.
    pub fn rotation(
        &self,
        site: &Site,
        strength: f64,
        adapter: &str,
        device: &Device,
    ) -> Result<Box<dyn OftAdapter>> {
        let site = &site.with_saved(&self.rotations);
        let names = self.config.param_names(site.kind).iter();
        let shapes = self.config.param_shapes(site);
        let params = names.zip(shapes.map_err(|e| self.of_this_file(e))?);
        let params = params.map(|(name, expected)| {
            let key = format!("{}.{name}", site.path);
            let tensor = self.rotations.get(&key);
            let (shape, values) = tensor.ok_or_else(|| self.missing(&key))?;
            if shape[..] != expected {
                return Err(self.error(wrong_shape(&key, &expected, shape)));
            }
            let id = ParamPlace::of_adapter(adapter)
                .at(site.path)
                .named(name)
                .id();
            let values = values.clone();
            Ok(AdapterParam::new(name, expected, values, id, device))
        });
        let params = params.collect::<Result<_>>()?;
        let rotation = self.config.rotation(site, strength, params);
        rotation.map_err(|e| self.of_this_file(e))
    }

    /// The error of a family, which does not know of the folder: there may be several.
    fn of_this_file(&self, error: Error) -> Error {
        match error {
            Error::Config { key, reason, .. } => self.error(format!("`{key}`: {reason}")),
            other => other,
        }
    }

    /// The values that it has instead of those of the tensor `name`, which has this shape. A bias
    /// may be missing, if all are: PEFT takes such a file, too.
    ///
    /// # Errors
    /// If it has another shape, or is missing.
    pub fn own_values(&self, name: &str, shape: &[usize]) -> Result<Option<&OwnValues>> {
        match self.own.get(name) {
            Some(own) if own.shape != shape => {
                let mut reason = wrong_shape(name, shape, &own.shape);
                if let (&[before, width], &[tokens, same]) = (shape, &own.shape[..])
                    && width == same
                {
                    reason += &format!(
                        "; if these are tokens, the adapter is of a model with {tokens} of them \
                         instead of {before}: give it as many (`resize_token_embeddings({tokens})` \
                         of transformers) and save it"
                    );
                }
                Err(self.error(reason))
            }
            Some(own) => Ok(Some(own)),
            None if is_bias(name) && !self.own.keys().any(|name| is_bias(name)) => Ok(None),
            None => Err(self.missing(name)),
        }
    }

    /// Fails unless its rotation of the layer at `path` is for layers of this kind, with the
    /// weight that this one has.
    pub(super) fn check_layer(&self, path: &str, layer: &dyn Layer) -> Result<()> {
        if !self.has(path, layer.kind()) {
            return Err(self.lacks(path, layer.kind()));
        }
        match self.base_weight(path) {
            Some(_) => self.check_base_weight(path, &layer.base_weight()),
            None => Ok(()),
        }
    }

    /// Fails if the adapter was saved with the weight of the layer at `path`, and `weight` is
    /// another one.
    ///
    /// # Errors
    /// The error names the saved weight.
    pub fn check_base_weight(&self, path: &str, weight: &Matrix) -> Result<()> {
        match self.base_weight(path) {
            Some(saved) if !same_weight(&saved, weight) => {
                let reason = "the adapter was trained on another weight than the model's";
                Err(self.error(format!("`{PREFIX}{path}.{BASE}.weight`: {reason}")))
            }
            _ => Ok(()),
        }
    }

    fn has(&self, path: &str, kind: LayerKind) -> bool {
        let names = self.config.param_names(kind);
        let has = |name: &&str| self.rotations.contains_key(&format!("{path}.{name}"));
        names.iter().any(has)
    }

    /// Fails if it has a value for a layer that is not among `layers`, or instead of a tensor that
    /// is not among `own`.
    ///
    /// # Errors
    /// The error names the first such value.
    pub fn check_unused(
        &self,
        layers: &BTreeMap<String, LayerKind>,
        own: &BTreeSet<String>,
    ) -> Result<()> {
        let unused = |path: Option<&str>| path.is_none_or(|path| !layers.contains_key(path));
        // PEFT saves buffers with a module, too, which do not train.
        let is_buffer = |name: &str| {
            let Some((path, tensor)) = name.rsplit_once('.') else {
                return false;
            };
            ![WEIGHT, BIAS].contains(&tensor) && own.contains(&format!("{path}.{WEIGHT}"))
        };
        let known = |name: &str| own.contains(name) || is_buffer(name);
        let mut rotations = self.rotations.keys();
        let mut tables = self.tables.keys();
        let key = rotations
            .find(|key| unused(self.layer_of(key)))
            .cloned()
            .or_else(|| self.own.keys().find(|name| !known(name)).cloned());
        let table = tables.find(|path| unused(Some(path)));
        match key.or_else(|| table.map(|path| format!("{path}.{BASE}.weight"))) {
            None => Ok(()),
            Some(key) => {
                let reason = format!("`{PREFIX}{key}` belongs to no targeted layer of the model");
                Err(self.error(reason))
            }
        }
    }

    /// Fails if it has no rotation for one of `layers`.
    ///
    /// # Errors
    /// The error names the first such layer's value.
    pub fn check_complete(&self, layers: &BTreeMap<String, LayerKind>) -> Result<()> {
        let lacking = layers.iter().find(|&(path, &kind)| !self.has(path, kind));
        lacking.map_or(Ok(()), |(path, &kind)| Err(self.lacks(path, kind)))
    }

    /// The error for a layer that it has no rotation for.
    fn lacks(&self, path: &str, kind: LayerKind) -> Error {
        let names = self.config.param_names(kind);
        let name = names.first().copied().unwrap_or_default();
        self.missing(&format!("{path}.{name}"))
    }

    /// The layer whose rotation has this parameter.
    fn layer_of<'a>(&self, key: &'a str) -> Option<&'a str> {
        let kinds = LayerKind::ALL.iter();
        let mut names = kinds.flat_map(|&kind| self.config.param_names(kind));
        names.find_map(|name| key.strip_suffix(name)?.strip_suffix('.'))
    }

    fn missing(&self, key: &str) -> Error {
        self.error(format!("`{PREFIX}{key}` is missing"))
    }

    /// An error about the file of the values.
    pub fn error(&self, reason: String) -> Error {
        Error::Adapter {
            path: self.file.clone(),
            reason,
        }
    }
}

fn wrong_shape(key: &str, expected: &[usize], found: &[usize]) -> String {
    format!("`{PREFIX}{key}`: expected shape {expected:?}, found {found:?}")
}

/// What stands behind the path of a module that a tensor belongs to, with a dot before it.
fn below<'a>(key: &'a str, path: &str) -> Option<&'a str> {
    let rest = key.strip_prefix(path)?;
    rest.starts_with('.').then_some(rest)
}

fn is_bias(name: &str) -> bool {
    name.rsplit('.').next() == Some(BIAS)
}

/// Whether two weights are the same but for the rounding of their dtypes.
fn same_weight(a: &Matrix, b: &Matrix) -> bool {
    let close = |(a, b): (&f32, &f32)| (a - b).abs() <= a.abs() / 256.0 + 1e-6;
    a.shape == b.shape && a.values.iter().zip(&b.values).all(close)
}

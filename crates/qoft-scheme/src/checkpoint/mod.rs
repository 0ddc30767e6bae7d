//! A Hugging Face checkpoint folder: `config.json` and memory-mapped safetensors. Other files that
//! hold models show themselves as one, see [`Container`].

mod divide;
mod files;
mod mistaken;
mod new_tensor;
mod replace;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::container::{Container, unpack};
use crate::error::{Error, Result};
use crate::json::read_json;
use crate::mapped::{MappedTensors, TensorPart, TensorView};
use crate::small_files::SmallFiles;
pub use new_tensor::NewTensor;
pub use replace::WaitingFile;

/// Keys of `config.json` under which tools write the configuration of a quantization, in the order in
/// which they are looked at.
pub const CONFIG_KEYS: [&str; 3] = ["quantization_config", "compression_config", NAMELESS];
/// Where tools look whose configurations name no method.
const NAMELESS: &str = "quantization";

/// The key under which every file says by which framework its tensors are meant.
const FORMAT: &str = "format";

/// An opened checkpoint. Tensors stay on the memory map until somebody reads them; a clone shares
/// the map.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// What was opened: a folder, or what a container reads.
    path: PathBuf,
    small_files: SmallFiles,
    container: Option<&'static dyn Container>,
    config: Value,
    shards: Vec<Arc<MappedTensors>>,
    /// Maps of tensors that have taken the place of others.
    added: Vec<Arc<MappedTensors>>,
    tensors: BTreeMap<String, Stored>,
    metadata: Arc<BTreeMap<String, String>>,
}

/// Where a tensor is.
#[derive(Debug, Clone)]
struct Stored {
    shard: Arc<MappedTensors>,
    /// Its name there, unless it is the same.
    name: Option<String>,
    /// Which part of the tensor there, unless it is all of it.
    part: Option<TensorPart>,
}

impl Stored {
    fn new(shard: Arc<MappedTensors>) -> Self {
        Self {
            shard,
            name: None,
            part: None,
        }
    }
}

impl Checkpoint {
    /// Opens a folder with `config.json` and `model.safetensors` or a sharded index. Other file
    /// formats are opened by [`Containers::open`](crate::Containers::open).
    ///
    /// # Errors
    /// If a file is missing, damaged, or names files outside the folder.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        if let Some(reason) = mistaken::no_model(dir) {
            return Err(Error::file(dir, reason));
        }
        let config = read_json(&dir.join("config.json"))?;
        if !config.is_object() {
            return Err(Error::file(
                dir.join("config.json"),
                "expected a JSON object",
            ));
        }
        let (shards, tensors) = files::open(dir, &config)?;
        let shards: Vec<Arc<MappedTensors>> = shards.into_iter().map(Arc::new).collect();
        let tensors = tensors.into_iter();
        Ok(Self {
            path: dir.to_path_buf(),
            small_files: SmallFiles::beside(dir),
            container: None,
            config,
            tensors: tensors
                .map(|(n, s)| (n, Stored::new(shards[s].clone())))
                .collect(),
            metadata: Arc::new(metadata(&shards)),
            shards,
            added: Vec::new(),
        })
    }

    /// Opens what a container reads.
    pub(crate) fn of_container(container: &'static dyn Container, path: &Path) -> Result<Self> {
        let (small_files, config, shards) = unpack(container, path)?;
        let (mut tensors, mut all) = (BTreeMap::new(), Vec::new());
        for shard in shards.into_iter().map(Arc::new) {
            for name in shard.names() {
                let stored = Stored::new(shard.clone());
                if tensors.insert(name.to_owned(), stored).is_some() {
                    let reason = format!("tensor `{name}` is in another file as well");
                    return Err(Error::file(shard.path(), reason));
                }
            }
            all.push(shard);
        }
        Ok(Self {
            path: path.to_owned(),
            small_files,
            container: Some(container),
            config,
            metadata: Arc::new(metadata(&all)),
            shards: all,
            added: Vec::new(),
            tensors,
        })
    }

    /// What was opened: a folder, or what a container reads.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder with the small files. Those of a container are put into one that lives as long as
    /// this checkpoint and its clones.
    pub fn dir(&self) -> &Path {
        self.small_files.path()
    }

    /// The small files, for who needs them longer than the tensors.
    pub fn small_files(&self) -> &SmallFiles {
        &self.small_files
    }

    /// The same with other small files.
    #[must_use]
    pub fn with_small_files(self, small_files: SmallFiles) -> Self {
        Self {
            small_files,
            ..self
        }
    }

    /// The container that it was read from.
    pub fn container(&self) -> Option<&'static dyn Container> {
        self.container
    }

    /// The content of `config.json`, an object.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// The `quantization_config` of `config.json`, or what stands there under another of
    /// [`CONFIG_KEYS`]. Schemes that also have it in a file of its own read it through
    /// [`Keys::quantization`](crate::Keys::quantization).
    pub fn quantization_config(&self) -> Option<&Value> {
        let mut found = CONFIG_KEYS.iter().filter_map(|key| self.config.get(key));
        found.find(|config| !config.is_null())
    }

    /// The same with another `config.json`, an object.
    #[must_use]
    pub fn with_config(self, config: Value) -> Self {
        Self { config, ..self }
    }

    /// The same with another `quantization_config`, in place of what stands under [`CONFIG_KEYS`].
    #[must_use]
    pub fn with_quantization_config(mut self, config: Value) -> Self {
        if let Some(all) = self.config.as_object_mut() {
            all.retain(|key, _| !CONFIG_KEYS.contains(&key.as_str()));
        }
        if config.get("quant_method").is_none() {
            self.config[NAMELESS] = config.clone();
        }
        self.config[CONFIG_KEYS[0]] = config;
        self
    }

    /// What the files say of themselves and of their tensors: the `__metadata__` of all of them together,
    /// but the format.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The same with files that say something else.
    #[must_use]
    pub fn with_metadata(self, metadata: BTreeMap<String, String>) -> Self {
        Self {
            metadata: Arc::new(metadata),
            ..self
        }
    }

    /// The same with other names for its tensors: `name` makes them from those that they have, and
    /// leaves out a tensor by returning nothing. Of two that get the same name the last one counts.
    #[must_use]
    pub fn renamed(mut self, name: impl Fn(&str) -> Option<String>) -> Self {
        let tensors = std::mem::take(&mut self.tensors).into_iter();
        let renamed = tensors.filter_map(|(old, mut stored)| {
            let new = name(&old)?;
            if new != old {
                stored.name.get_or_insert(old);
            }
            Some((new, stored))
        });
        self.tensors = renamed.collect();
        self
    }

    /// All tensor names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The files of the folder that hold the tensors.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.shards.iter().map(|shard| shard.path())
    }

    /// Takes the files' pages out of this process's memory. Those that are still used come back,
    /// from the system's cache of files, when somebody reads them; so a model that was loaded into
    /// memory of its own does not count twice.
    pub fn release(&self) {
        self.shards.iter().for_each(|shard| shard.release());
        // There may be as many of these as layers.
        self.added.iter().for_each(|shard| shard.release_if_asked());
    }

    /// A tensor, if it is there.
    pub fn get(&self, name: &str) -> Option<TensorView> {
        let stored = self.tensors.get(name)?;
        let inside = stored.name.as_deref().unwrap_or(name);
        let tensor = stored.shard.tensor(inside, name)?;
        Some(match stored.part {
            None => tensor,
            Some(part) => tensor.part(part),
        })
    }

    /// A tensor that must be there.
    ///
    /// # Errors
    /// If it is missing.
    pub fn tensor(&self, name: &str) -> Result<TensorView> {
        self.get(name).ok_or_else(|| Error::MissingTensor {
            folder: self.path().to_owned(),
            tensor: name.to_owned(),
        })
    }

    /// Names of the tensors of one module: those that start with `path` and a dot.
    pub fn under<'a>(&'a self, path: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        self.starting_with(&format!("{path}."))
    }

    /// Names of the tensors that start so.
    pub fn starting_with<'a>(&'a self, prefix: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        let prefix = prefix.to_owned();
        let start = prefix.clone();
        self.tensors
            .range(start..)
            .map(|(name, _)| name.as_str())
            .take_while(move |name| name.starts_with(&prefix))
    }

    /// Paths of all modules that own tensors, directly or below them, sorted.
    pub fn modules(&self) -> BTreeSet<&str> {
        let parents = |name| std::iter::successors(parent(name), |path| parent(path));
        self.names().flat_map(parents).collect()
    }
}

/// The metadata of all files, of which a later one counts where two say something.
fn metadata(shards: &[Arc<MappedTensors>]) -> BTreeMap<String, String> {
    let all = shards.iter().flat_map(|shard| shard.metadata());
    let all = all.filter(|(key, _)| *key != FORMAT);
    all.map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// What stands before the last dot.
fn parent(name: &str) -> Option<&str> {
    name.rsplit_once('.').map(|(parent, _)| parent)
}

//! A made-up layer, for a backend's own tests of unusual and damaged files.

use std::collections::BTreeMap;

use qoft_core::{
    BackendOptions, Checkpoint, ClaimedLayer, Dtype, LayerSource, LoadedLinear, Matrix, Nearest,
    NewTensor, Purpose, QuantBackend, Registration, Registry, Result, Schemes,
};
use serde_json::{Value, json};

use crate::layer_file::{self, FileTensor, LayerFile};

/// A tensor: dtype, shape and bytes.
pub type TestTensor = (Dtype, Vec<usize>, Vec<u8>);

/// A checkpoint with one layer, which a backend is asked to load. Changing it gives a copy.
#[derive(Clone)]
pub struct TestLayer {
    backend: &'static dyn QuantBackend,
    file: LayerFile,
    expected: Option<[usize; 2]>,
    options: Vec<String>,
}

impl TestLayer {
    /// The layer at module path `path`, with a `quantization_config` and tensors by the names that
    /// they have below the path.
    pub fn new<'a>(
        backend: &'static dyn QuantBackend,
        path: &str,
        config: Value,
        tensors: impl IntoIterator<Item = (&'a str, TestTensor)>,
    ) -> Self {
        let file = LayerFile {
            path: path.to_owned(),
            config: json!({ "quantization_config": config }),
            tensors: Vec::new(),
            metadata: BTreeMap::new(),
        };
        let mut layer = Self {
            backend,
            file,
            expected: None,
            options: Vec::new(),
        };
        for (suffix, tensor) in tensors {
            layer.set(&format!("{path}.{suffix}"), tensor);
        }
        layer
    }

    /// With another `quantization_config`; null is none.
    #[must_use]
    pub fn config(&self, config: Value) -> Self {
        self.with(|layer| layer.file.config["quantization_config"] = config)
    }

    /// With another value under a key of the `quantization_config`.
    #[must_use]
    pub fn key(&self, key: &str, value: Value) -> Self {
        self.with(|layer| layer.file.config["quantization_config"][key] = value)
    }

    /// In a file that says this of the layer's parameter `parameter`; null is nothing.
    #[must_use]
    pub fn metadata(&self, parameter: &str, about: Value) -> Self {
        let name = self.name(parameter);
        self.with(|layer| match about {
            Value::Null => drop(layer.file.metadata.remove(&name)),
            about => drop(layer.file.metadata.insert(name, about.to_string())),
        })
    }

    /// With one more tensor of the layer, or another one of this name.
    #[must_use]
    pub fn tensor(&self, suffix: &str, tensor: TestTensor) -> Self {
        self.with(|layer| layer.set(&layer.name(suffix), tensor))
    }

    /// With one more tensor of any module, by its whole name.
    #[must_use]
    pub fn beside(&self, name: &str, tensor: TestTensor) -> Self {
        self.with(|layer| layer.set(name, tensor))
    }

    /// Without some tensors of the layer.
    #[must_use]
    pub fn without(&self, suffixes: &[&str]) -> Self {
        let names: Vec<String> = suffixes.iter().map(|suffix| self.name(suffix)).collect();
        self.with(|layer| layer.file.tensors.retain(|t| !names.contains(&t.name)))
    }

    /// With this tensor of the layer and no other.
    #[must_use]
    pub fn only(&self, suffix: &str, tensor: TestTensor) -> Self {
        let empty = self.with(|layer| layer.file.tensors.clear());
        empty.tensor(suffix, tensor)
    }

    /// With a tensor of the layer under another name.
    ///
    /// # Panics
    /// If there is no such tensor.
    #[must_use]
    pub fn renamed(&self, from: &str, to: &str) -> Self {
        let tensor = self.get(from);
        self.without(&[from]).tensor(to, tensor)
    }

    /// For a model that expects this `[out_features, in_features]`.
    #[must_use]
    pub fn expecting(&self, shape: [usize; 2]) -> Self {
        self.with(|layer| layer.expected = Some(shape))
    }

    /// Loaded with options, as `BACKEND.KEY=VALUE`.
    #[must_use]
    pub fn options(&self, options: &[&str]) -> Self {
        self.with(|layer| layer.options = options.iter().map(|&o| o.to_owned()).collect())
    }

    /// A tensor of the layer.
    ///
    /// # Panics
    /// If there is no such tensor.
    pub fn get(&self, suffix: &str) -> TestTensor {
        let name = self.name(suffix);
        let mut tensors = self.file.tensors.iter();
        let tensor = tensors.find(|t| t.name == name);
        let tensor = tensor.unwrap_or_else(|| panic!("there is no {name}"));
        (tensor.dtype, tensor.shape.clone(), tensor.bytes.clone())
    }

    /// Writes and opens the checkpoint, and hands it to `f` with its schemes.
    fn open<T>(&self, f: impl FnOnce(&Checkpoint, &Schemes) -> Result<T>) -> Result<T> {
        let folder = layer_file::folder();
        let written = self.file.write(folder.path());
        written.expect("tensors whose bytes fit their shapes");
        let checkpoint = Checkpoint::open(folder.path()).expect("a checkpoint just written");
        let registry = Registry::new([&Registration::new(self.backend)])?;
        let options = BackendOptions::parse(&self.options)?;
        f(&checkpoint, &registry.open(&checkpoint, &options)?)
    }

    /// The layer with its owner; the backend is the only one.
    fn claim<'a>(
        &'a self,
        checkpoint: &'a Checkpoint,
        schemes: &'a Schemes,
    ) -> Result<ClaimedLayer<'a>> {
        schemes.find(LayerSource::new(checkpoint, &self.file.path, self.expected))
    }

    /// Whether the backend claims the layer.
    ///
    /// # Panics
    /// If the scheme cannot be opened.
    #[track_caller]
    pub fn claimed(&self) -> bool {
        let claimed = self.open(|checkpoint, schemes| Ok(self.claim(checkpoint, schemes).is_ok()));
        claimed.unwrap_or_else(|e| panic!("{e}"))
    }

    /// Loads the layer.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn load(&self) -> Result<LoadedLinear> {
        self.load_for(Purpose::Forward)
    }

    /// As [`Self::load`], for a purpose.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn load_for(&self, purpose: Purpose) -> Result<LoadedLinear> {
        self.open(|checkpoint, schemes| self.claim(checkpoint, schemes)?.load(purpose))
    }

    /// Writes the layer with a changed weight: its new tensors.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn requantize(&self, weight: &Matrix) -> Result<Vec<NewTensor>> {
        self.open(|checkpoint, schemes| {
            let layer = self.claim(checkpoint, schemes)?.parse()?;
            layer.requantize(weight, &Nearest, checkpoint)
        })
    }

    /// The weight of `[out_features, in_features]`, row-major.
    ///
    /// # Panics
    /// If the layer cannot be loaded.
    #[track_caller]
    pub fn weight(&self) -> Vec<f32> {
        let loaded = self.load().unwrap_or_else(|error| panic!("{error}"));
        Matrix::decode(&*loaded.weight).values
    }

    /// The value that all weights have.
    ///
    /// # Panics
    /// If the layer cannot be loaded, or they differ.
    #[track_caller]
    pub fn value(&self) -> f32 {
        let weight = self.weight();
        assert!(weight.iter().all(|v| *v == weight[0]), "{weight:?}");
        weight[0]
    }

    /// Demands that the layer is claimed, and cannot be loaded for a reason that contains all of
    /// `parts`.
    ///
    /// # Panics
    /// If that is not so.
    #[track_caller]
    pub fn fails(&self, parts: &[&str]) {
        assert!(self.claimed(), "not claimed");
        let error = self.load().expect_err("an error").to_string();
        for part in parts {
            assert!(error.contains(part), "{part:?} is not in {error:?}");
        }
    }

    fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut layer = self.clone();
        change(&mut layer);
        layer
    }

    fn name(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.file.path)
    }

    fn set(&mut self, name: &str, (dtype, shape, bytes): TestTensor) {
        self.file.tensors.retain(|tensor| tensor.name != name);
        self.file.tensors.push(FileTensor {
            name: name.to_owned(),
            dtype,
            shape,
            bytes,
        });
    }
}

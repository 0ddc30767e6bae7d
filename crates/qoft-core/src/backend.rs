//! What a quantization scheme is.

use std::collections::BTreeMap;
use std::sync::Arc;

use qoft_kernels::ops::InputQuantizer;
use qoft_kernels::{FloatFormat, Matrix, PackedWeight, WeightError};
use safetensors::Dtype;
use serde_json::Value;

use crate::checkpoint::{Checkpoint, TensorView};
use crate::error::{Error, Result};
use crate::layer::LayerKind;
use crate::requantize::{NewTensor, RequantizeOptions};

/// A quantization scheme: recognizes its layers in a checkpoint and loads them.
pub trait QuantBackend: Send + Sync + 'static {
    /// The name that `qoft inspect` prints and options use, such as `bnb-4bit`.
    fn name(&self) -> &'static str;

    /// What this backend can do.
    fn capabilities(&self) -> Capabilities;

    /// Keys of the options that this backend understands, see [`BackendOptions`].
    fn options(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether the layer is stored in this scheme, judged by its tensors.
    ///
    /// Cheap, and free of side effects. A layer that is damaged but clearly of this scheme is
    /// claimed too: [`Self::load`] then says what is wrong.
    fn claim(&self, layer: &LayerSource) -> bool;

    /// Parses, validates and repacks a layer.
    ///
    /// # Errors
    /// If a tensor is missing or does not fit the others, or the model's sizes.
    fn load(&self, layer: &LayerSource, options: &LoadOptions) -> Result<LoadedLinear>;

    /// Quantizes a changed weight of the layer into the scheme's format, with the layer's own
    /// settings (bits, group size, dtypes …), for backends whose capabilities say so.
    ///
    /// Returns all tensors of the layer but its bias; they take the place of those that it has.
    ///
    /// Where a scheme spreads one matrix over several layers (see [`LayerSource::sibling`]), those
    /// tensors of the others that change along are returned as well. The weights of these layers
    /// stay as they are, bit by bit. If they change too, each is written in its turn, and finds
    /// the tensors that were written before it.
    ///
    /// # Errors
    /// If the scheme, or this layer's variant of it, cannot be written.
    fn requantize(
        &self,
        layer: &LayerSource,
        _weight: &Matrix,
        _options: &RequantizeOptions,
    ) -> Result<Vec<NewTensor>> {
        Err(Error::Requantize {
            layer: layer.path().to_owned(),
            backend: self.name().to_owned(),
            reason: "this scheme cannot be written".into(),
        })
    }
}

/// What a backend can do; shown by `qoft backends`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Capabilities {
    /// Adapters train on its layers.
    pub train: bool,
    /// Its layers can be written as dense weights.
    pub dequantize: bool,
    /// Changed weights can be quantized into its format again.
    pub requantize: bool,
    /// Kinds of layers that it loads.
    pub layers: &'static [LayerKind],
    /// Dtypes of the floating-point tensors (scales, biases and the like) that it reads.
    pub dtypes: &'static [FloatFormat],
}

impl Capabilities {
    /// Reads linear layers in every float dtype; trains on them and makes them dense.
    pub const LINEAR: Self = Self {
        train: true,
        dequantize: true,
        requantize: false,
        layers: &[LayerKind::Linear],
        dtypes: &[FloatFormat::F32, FloatFormat::F16, FloatFormat::Bf16],
    };
}

/// The tensors of one layer, with the checkpoint's configuration.
#[derive(Debug, Clone, Copy)]
pub struct LayerSource<'a> {
    checkpoint: &'a Checkpoint,
    path: &'a str,
    shape: Option<[usize; 2]>,
}

impl<'a> LayerSource<'a> {
    /// The layer at module path `path`.
    pub fn new(checkpoint: &'a Checkpoint, path: &'a str) -> Self {
        Self {
            checkpoint,
            path,
            shape: None,
        }
    }

    /// Says which `[out_features, in_features]` the model expects.
    #[must_use]
    pub fn expecting(self, shape: [usize; 2]) -> Self {
        Self {
            shape: Some(shape),
            ..self
        }
    }

    /// The module path, `model.layers.0.self_attn.q_proj`.
    pub fn path(&self) -> &'a str {
        self.path
    }

    /// The `[out_features, in_features]` that the model expects, if known.
    pub fn expected_shape(&self) -> Option<[usize; 2]> {
        self.shape
    }

    /// Whether the model has the dense weight of this layer as `[in_features, out_features]`.
    /// Quantized weights are stored as `[out_features, in_features]` all the same.
    pub fn is_fan_in_fan_out(&self) -> bool {
        self.checkpoint.is_fan_in_fan_out(self.path)
    }

    /// A weight of `[out_features, in_features]` as the model has it where it is dense.
    pub fn dense_layout(&self, weight: Matrix) -> Matrix {
        if self.is_fan_in_fan_out() {
            weight.transposed()
        } else {
            weight
        }
    }

    /// Another layer of the same checkpoint, for schemes whose layers depend on each other.
    pub fn sibling<'b>(&self, path: &'b str) -> LayerSource<'b>
    where
        'a: 'b,
    {
        LayerSource::new(self.checkpoint, path)
    }

    /// The checkpoint's `config.json`.
    pub fn config(&self) -> &'a Value {
        self.checkpoint.config()
    }

    /// The checkpoint's `quantization_config`.
    pub fn quantization_config(&self) -> Option<&'a Value> {
        self.checkpoint.quantization_config()
    }

    /// Whether the layer has a tensor of this name.
    pub fn has(&self, suffix: &str) -> bool {
        self.get(suffix).is_some()
    }

    /// The tensor `path.suffix`.
    pub fn get(&self, suffix: &str) -> Option<TensorView> {
        self.checkpoint.get(&format!("{}.{suffix}", self.path))
    }

    /// The tensor `path.suffix`, which must be there.
    ///
    /// # Errors
    /// If it is missing.
    pub fn tensor(&self, suffix: &str) -> Result<TensorView> {
        self.checkpoint.tensor(&format!("{}.{suffix}", self.path))
    }

    /// A tensor `path.suffix` to be written.
    pub fn new_tensor(
        &self,
        suffix: impl Into<String>,
        dtype: Dtype,
        shape: &[usize],
        bytes: Vec<u8>,
    ) -> NewTensor {
        NewTensor {
            layer: self.path.to_owned(),
            suffix: suffix.into(),
            dtype,
            shape: shape.to_vec(),
            bytes,
        }
    }

    /// The tensor `path.suffix` with other bytes, to be written; dtype and shape stay.
    ///
    /// # Errors
    /// If it is missing.
    pub fn rewritten(&self, suffix: &str, bytes: Vec<u8>) -> Result<NewTensor> {
        let tensor = self.tensor(suffix)?;
        Ok(self.new_tensor(suffix, tensor.dtype(), tensor.shape(), bytes))
    }

    /// The tensor `path.suffix` as it is, to be written.
    ///
    /// # Errors
    /// If it is missing.
    pub fn copy(&self, suffix: &str) -> Result<NewTensor> {
        self.rewritten(suffix, self.tensor(suffix)?.bytes().to_vec())
    }

    /// Suffixes of all tensors of this layer.
    pub fn suffixes(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let skip = self.path.len() + 1;
        self.checkpoint
            .under(self.path)
            .map(move |name| &name[skip..])
    }

    /// The optional bias of `out_features` finite values.
    ///
    /// # Errors
    /// If it has another shape or dtype.
    pub fn bias(&self, out_features: usize) -> Result<Option<Vec<f32>>> {
        let Some(bias) = self.get("bias") else {
            return Ok(None);
        };
        bias.expect_shape(&[out_features])?
            .to_finite_f32()
            .map(Some)
    }

    /// Fails unless the model expects `shape` or expects nothing.
    ///
    /// # Errors
    /// If the sizes differ.
    pub fn check_shape(&self, backend: &dyn QuantBackend, shape: [usize; 2]) -> Result<()> {
        match self.shape {
            Some(expected) if expected != shape => Err(self.error(
                backend,
                format!(
                    "weight of [out_features, in_features] {shape:?}, config.json says {expected:?}"
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Fails unless a changed weight has the layer's own shape.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn check_weight(
        &self,
        backend: &dyn QuantBackend,
        weight: &Matrix,
        shape: [usize; 2],
    ) -> Result<()> {
        if weight.shape == shape {
            return Ok(());
        }
        let reason = format!("a weight of {:?} for one of {shape:?}", weight.shape);
        Err(self.error(backend, reason))
    }

    /// An error about this layer.
    pub fn error(&self, backend: &dyn QuantBackend, reason: impl ToString) -> Error {
        Error::Layer {
            layer: self.path.to_owned(),
            backend: backend.name().to_owned(),
            reason: reason.to_string(),
        }
    }

    /// For `map_err`: the parts of this layer do not make a weight.
    pub fn weight_error(&self, backend: &dyn QuantBackend) -> impl FnOnce(WeightError) -> Error {
        let (layer, backend) = (self.path.to_owned(), backend.name().to_owned());
        move |e| Error::Layer {
            layer,
            backend,
            reason: e.to_string(),
        }
    }
}

/// What a layer is loaded for. Some schemes compute with other values than they store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Purpose {
    /// To compute: the values that the scheme's own forward multiplies with.
    #[default]
    Forward,
    /// To write dense weights: the values that the scheme's own dequantization returns.
    Dequantize,
}

/// How to load layers.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// What the layers are for.
    pub purpose: Purpose,
    /// Options of single backends.
    pub backend: BackendOptions,
}

/// Options of backends, given as `BACKEND.KEY=VALUE`.
#[derive(Debug, Clone, Default)]
pub struct BackendOptions(BTreeMap<(String, String), String>);

impl BackendOptions {
    /// Parses `BACKEND.KEY=VALUE` strings.
    ///
    /// # Errors
    /// If one has another form.
    pub fn parse<S: AsRef<str>>(options: &[S]) -> Result<Self> {
        let parse = |option: &str| {
            let (name, value) = option.split_once('=')?;
            let (backend, key) = name.split_once('.')?;
            Some(((backend.to_owned(), key.to_owned()), value.to_owned()))
        };
        let pairs = options.iter().map(|option| {
            parse(option.as_ref()).ok_or_else(|| Error::BackendOption {
                option: option.as_ref().to_owned(),
                reason: "expected BACKEND.KEY=VALUE".into(),
            })
        });
        pairs.collect::<Result<_>>().map(Self)
    }

    /// All options: backend, key and value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        let entries = self.0.iter();
        entries.map(|((backend, key), value)| (backend.as_str(), key.as_str(), value.as_str()))
    }

    /// A boolean option of a backend, false unless given.
    ///
    /// # Errors
    /// If the value is neither `true` nor `false`.
    pub fn flag(&self, backend: &str, key: &str) -> Result<bool> {
        let choices = [("false", false), ("true", true)];
        Ok(self.choice(backend, key, &choices)?.unwrap_or(false))
    }

    /// An option with some named values; `None` unless given.
    ///
    /// # Errors
    /// If the value is none of them.
    pub fn choice<T: Copy>(
        &self,
        backend: &str,
        key: &str,
        choices: &[(&str, T)],
    ) -> Result<Option<T>> {
        let Some(value) = self.0.get(&(backend.to_owned(), key.to_owned())) else {
            return Ok(None);
        };
        let found = choices.iter().find(|(name, _)| name == value);
        found.map(|&(_, choice)| Some(choice)).ok_or_else(|| {
            let names: Vec<&str> = choices.iter().map(|&(name, _)| name).collect();
            Error::BackendOption {
                option: format!("{backend}.{key}={value}"),
                reason: format!("expected {}", names.join(" or ")),
            }
        })
    }
}

/// A loaded linear layer.
#[derive(Debug, Clone)]
pub struct LoadedLinear {
    /// The weight, packed.
    pub weight: Arc<dyn PackedWeight>,
    /// `[out_features]`.
    pub bias: Option<Vec<f32>>,
    /// Quantization of the layer's input, if the scheme has one.
    pub input_quantizer: Option<Arc<dyn InputQuantizer>>,
}

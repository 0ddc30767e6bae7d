//! Quantizing dense weights with a backend of a registry.

use std::collections::BTreeMap;

use qoft_kernels::{FloatFormat, Matrix};
use serde_json::{Map, Value};

use crate::backend::QuantBackend;
use crate::checkpoint::NewTensor;
use crate::dense_layer::DenseLayer;
use crate::error::{Error, Result};
use crate::grid::CodeSearch;
use crate::keys::Keys;
use crate::quantizer::{QuantizedModel, Quantizer};
use crate::registry::Registry;
use crate::settings::{parts, read_value};

/// A backend with the settings by which it quantizes.
pub struct Quantization {
    backend: &'static dyn QuantBackend,
    quantizer: Box<dyn Quantizer>,
}

impl Registry {
    /// The backend of a name, with settings to quantize by.
    ///
    /// # Errors
    /// If there is no such backend, it cannot quantize, or the settings are not its own or
    /// impossible.
    pub fn quantization(&self, backend: &str, settings: &Keys) -> Result<Quantization> {
        let backend = self.backend(backend)?;
        let cannot = || Error::cannot_quantize(backend.name(), self.quantizing());
        if !backend.capabilities().quantize {
            return Err(cannot());
        }
        let quantizer = backend.quantizer(settings)?;
        let quantizer = quantizer.ok_or_else(|| match settings.method() {
            Some(method) => {
                let reason = format!("{method} is not what {} quantizes into", backend.name());
                settings.error("quant_method", reason)
            }
            None => cannot(),
        })?;
        Ok(Quantization { backend, quantizer })
    }

    /// The first backend that quantizes by a `quantization_config`, which names its scheme or has keys by
    /// which it is known, see [`QuantBackend::known_by`].
    ///
    /// # Errors
    /// If none does, or the settings are impossible.
    pub fn quantization_of(&self, config: &Keys) -> Result<Quantization> {
        let is_named = config.method().is_some();
        let knows = |backend: &&dyn QuantBackend| {
            let mut keys = backend.known_by().iter();
            is_named || keys.any(|key| config.value(key).is_some())
        };
        let can = |backend: &&dyn QuantBackend| backend.capabilities().quantize;
        for backend in self.backends().filter(can).filter(knows) {
            if let Some(quantizer) = backend.quantizer(config)? {
                return Ok(Quantization { backend, quantizer });
            }
        }
        let Some(method) = config.method() else {
            let known = self.quantizing().join(", ");
            let reason = format!(
                "is not there, and no other key tells the scheme; those that quantize are {known}"
            );
            return Err(config.error("quant_method", reason));
        };
        Err(Error::cannot_quantize(&method, self.quantizing()))
    }

    /// A backend with settings, as one text: `scheme,bits=4,skips=[a,b]`. Values are JSON, plain text, or
    /// lists of both in brackets.
    ///
    /// # Errors
    /// If there is no such backend, it cannot quantize, a key is not one of its settings, or a value
    /// is impossible.
    pub fn parse_quantization(&self, text: &str) -> Result<Quantization> {
        let (name, rest) = text.split_once(',').unwrap_or((text, ""));
        let name = name.trim();
        if name.is_empty() || name.contains('=') {
            let reason = format!(
                "expected SCHEME or SCHEME,KEY=VALUE…, found `{text}`; the schemes are {}",
                self.quantizing().join(", ")
            );
            return Err(Error::config("quantization").key("scheme", reason));
        }
        let backend = self.backend(name)?;
        let mut settings = Map::new();
        for pair in parts(rest)
            .into_iter()
            .filter(|pair| !pair.trim().is_empty())
        {
            let (key, value) = match pair.split_once('=') {
                Some((key, value)) => (key.trim(), Some(value.trim())),
                None => (pair.trim(), None),
            };
            let known = backend.settings();
            if !known.is_empty() && !known.contains(&key) {
                let known = known.join(", ");
                let reason = format!("no such setting; those of {} are {known}", backend.name());
                return Err(Error::config(text).key(key, reason));
            }
            let Some(value) = value.filter(|value| !value.is_empty()) else {
                let reason = format!("has no value: expected {key}=VALUE");
                return Err(Error::config(text).key(key, reason));
            };
            if settings.insert(key.to_owned(), read_value(value)).is_some() {
                return Err(Error::config(text).key(key, "is given twice"));
            }
        }
        self.quantization(backend.name(), &Keys::new(text, settings.into()))
    }

    /// Names of the backends that can quantize.
    fn quantizing(&self) -> Vec<&'static str> {
        let can = self.backends().filter(|b| b.capabilities().quantize);
        can.map(QuantBackend::name).collect()
    }
}

impl Quantization {
    /// Name of the backend.
    pub fn backend(&self) -> &'static str {
        self.backend.name()
    }

    /// The settings' list of modules that stay dense, if they have one.
    pub fn skips(&self) -> Option<&[String]> {
        self.quantizer.skips()
    }

    /// Whether the settings leave a layer of `[out_features, in_features]` dense, beside those of the list.
    ///
    /// # Errors
    /// If the settings for the layer are wrong.
    pub fn stays_dense(&self, path: &str, shape: [usize; 2]) -> Result<bool> {
        let stays = self.quantizer.stays_dense(path, shape);
        stays.map_err(|e| e.of_layer(path, self.backend()))
    }

    /// Whether libraries read experts in the scheme whose tensors are together, see
    /// [`Capabilities::together`](crate::Capabilities::together).
    pub fn is_together(&self) -> bool {
        self.backend.capabilities().together
    }

    /// Whether only experts are quantized where files have the tensors of all of them together, see
    /// [`Quantizer::experts_alone`].
    pub fn experts_alone(&self) -> bool {
        self.quantizer.experts_alone()
    }

    /// Whether input features are to be scaled before, where calibration data shows them.
    pub fn scales_inputs(&self) -> bool {
        self.quantizer.scales_inputs()
    }

    /// The `quantization_config` of a checkpoint with such layers.
    pub fn config(&self, model: &QuantizedModel) -> Value {
        self.quantizer.config(model)
    }

    /// What the files of a checkpoint with such layers say of their tensors.
    pub fn metadata(&self, model: &QuantizedModel) -> BTreeMap<String, String> {
        self.quantizer.metadata(model)
    }

    /// All tensors but the bias that the layer at module path `path` has, once its weight of
    /// `[out_features, in_features]` is quantized. Its values are first rounded to `format`, the
    /// model's dtype.
    ///
    /// # Errors
    /// If the weight is empty or not finite, or the settings do not fit it.
    pub fn quantize(
        &self,
        path: &str,
        mut weight: Matrix,
        format: FloatFormat,
        search: &dyn CodeSearch,
    ) -> Result<Vec<NewTensor>> {
        weight.round(format);
        let dense = DenseLayer::new(path, &weight, format, self.backend());
        if !weight.is_finite() {
            let reason = "the weight has values that are infinite or not a number";
            return Err(dense.error(reason));
        }
        if weight.values.is_empty() {
            return Err(dense.error("the weight is empty"));
        }
        let tensors = self.quantizer.quantize(&dense, search);
        tensors.map_err(|e| e.of_layer(path, self.backend()).of_quantizing())
    }
}

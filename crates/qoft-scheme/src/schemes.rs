//! The schemes of a registry, opened on a checkpoint.

use safetensors::Dtype;
use serde_json::Value;

use crate::backend::{LoadedLinear, QuantBackend, Scheme};
use crate::checkpoint::Checkpoint;
use crate::claimed::ClaimedLayer;
use crate::entry::Entry;
use crate::error::{Error, FoundTensor, Result};
use crate::keys::Keys;
use crate::layer_source::LayerSource;
use crate::options::{BackendOptions, Purpose};
use crate::packed_parameter::PackedParameter;
use crate::registry::Registry;

/// The schemes that layers of a checkpoint may have, in the order in which they are asked. It finds
/// the owners of layers, in this checkpoint and in one with some layers replaced.
pub struct Schemes {
    opened: Vec<(&'static dyn QuantBackend, Box<dyn Scheme>)>,
    /// Names of all backends, opened or not.
    registered: Vec<&'static str>,
    config_files: Vec<&'static str>,
    config: Keys,
}

impl Registry {
    /// Opens all schemes on a checkpoint.
    ///
    /// # Errors
    /// If an option names a backend, a key or a value that does not exist, or a scheme's
    /// configuration file cannot be read.
    pub fn open(&self, checkpoint: &Checkpoint, options: &BackendOptions) -> Result<Schemes> {
        self.check_options(options)?;
        let mut opened = Vec::new();
        for backend in self.backends() {
            let scheme = backend.open(checkpoint, &options.of(backend.name()))?;
            opened.extend(scheme.map(|scheme| (backend, scheme)));
        }
        let config_files = self.config_files();
        Ok(Schemes {
            opened,
            registered: self.registrations().iter().map(Entry::name).collect(),
            config: Keys::quantization(checkpoint, &config_files)?,
            config_files,
        })
    }
}

impl Schemes {
    /// All linked schemes, without options.
    ///
    /// # Errors
    /// Those of [`Registry::linked`] and [`Registry::open`].
    pub fn linked(checkpoint: &Checkpoint) -> Result<Self> {
        Registry::linked()?.open(checkpoint, &BackendOptions::default())
    }

    /// The checkpoint's quantization method, as its configuration spells it.
    pub fn quant_method(&self) -> Option<&str> {
        self.config.value("quant_method").and_then(Value::as_str)
    }

    /// The quantization's configuration, wherever it stands.
    pub fn quantization_config(&self) -> Option<&Value> {
        self.config.all()
    }

    /// Files in which schemes have their configuration.
    pub fn config_files(&self) -> &[&'static str] {
        &self.config_files
    }

    /// The layer with the first scheme that claims it; `None` if none does.
    pub fn claim<'a>(&'a self, layer: LayerSource<'a>) -> Option<ClaimedLayer<'a>> {
        let mut schemes = self.opened.iter();
        let (backend, scheme) = schemes.find(|(_, scheme)| scheme.claim(&layer))?;
        Some(ClaimedLayer::new(layer, *backend, &**scheme))
    }

    /// The packed parameter that a tensor which is no linear layer's is a part of, see
    /// [`Scheme::parameter`].
    ///
    /// # Errors
    /// If its parts do not fit each other.
    pub fn parameter(
        &self,
        checkpoint: &Checkpoint,
        name: &str,
    ) -> Result<Option<PackedParameter>> {
        for (_, scheme) in &self.opened {
            if let Some(found) = scheme.parameter(checkpoint, name)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Whether a tensor that belongs to no layer means something to a scheme only, see
    /// [`Scheme::is_beside_layers`].
    pub fn is_beside_layers(&self, name: &str) -> bool {
        let mut schemes = self.opened.iter();
        schemes.any(|(_, scheme)| scheme.is_beside_layers(name))
    }

    /// Names of all backends that claim a layer; the first one gets it.
    pub fn claimants(&self, layer: &LayerSource) -> Vec<&'static str> {
        let schemes = self.opened.iter();
        let claim = schemes.filter(|(_, scheme)| scheme.claim(layer));
        claim.map(|(backend, _)| backend.name()).collect()
    }

    /// As [`Self::claim`], for a layer that must be somebody's.
    ///
    /// # Errors
    /// If no scheme claims it; the error lists what is registered.
    pub fn find<'a>(&'a self, layer: LayerSource<'a>) -> Result<ClaimedLayer<'a>> {
        self.claim(layer).ok_or_else(|| {
            let found = |name| {
                let tensor = layer.get(name)?;
                Some(FoundTensor::new(name, tensor.dtype(), tensor.shape()))
            };
            let tensors: Vec<FoundTensor> = layer.suffixes().filter_map(found).collect();
            Error::NoBackend {
                layer: layer.path().to_owned(),
                quant_method: self.quant_method().map(str::to_owned),
                hint: hint(&tensors),
                tensors,
                registered: self.registered.clone(),
            }
        })
    }

    /// Loads a layer through the scheme that claims it.
    ///
    /// # Errors
    /// If no scheme claims it, or its tensors are wrong.
    pub fn load(&self, layer: LayerSource, purpose: Purpose) -> Result<LoadedLinear> {
        self.find(layer)?.load(purpose)
    }
}

/// What the tensors of a layer of no scheme look like, and what to do about it.
fn hint(tensors: &[FoundTensor]) -> Option<&'static str> {
    let weight = tensors.iter().find(|tensor| tensor.name == "weight")?;
    if weight.shape.contains(&0) {
        return Some(
            "the weight is empty, as a training on several devices saves it that does not gather \
             the parts (DeepSpeed ZeRO-3); gather them, and save the model again",
        );
    }
    let alone = tensors
        .iter()
        .all(|tensor| ["weight", "bias"].contains(&tensor.name.as_str()));
    let read = matches!(weight.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16);
    (alone && !read).then_some(
        "dense weights are read in F32, F16 and BF16; save the model in one of these dtypes",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_of_no_scheme_is_told_with_what_it_has() {
        let says = |tensors: &[FoundTensor]| {
            let error = Error::NoBackend {
                layer: "lm_head".into(),
                quant_method: None,
                tensors: tensors.to_vec(),
                hint: hint(tensors),
                registered: vec!["dense"],
            };
            error.to_string()
        };
        let weight = |dtype, shape: &[usize]| FoundTensor::new("weight", dtype, shape);
        let double = says(&[weight(Dtype::F64, &[2, 3])]);
        assert!(double.contains("tensors: weight of F64 [2, 3]): dense weights are read in F32"));
        let empty = says(&[weight(Dtype::BF16, &[0])]);
        assert!(
            empty.contains("weight of BF16 [0]): the weight is empty"),
            "{empty}"
        );
        let scale = FoundTensor::new("scale", Dtype::F32, &[2]);
        let packed = says(&[weight(Dtype::U8, &[2, 3]), scale]);
        assert!(
            packed.contains("[2, 3], scale of F32 [2]); registered"),
            "{packed}"
        );
        assert!(says(&[]).contains("tensors: none); registered"));
    }
}

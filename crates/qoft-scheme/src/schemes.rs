//! The schemes of a registry, opened on a checkpoint.

use serde_json::Value;

use crate::backend::{LoadedLinear, QuantBackend, Scheme};
use crate::checkpoint::Checkpoint;
use crate::claimed::ClaimedLayer;
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::keys::Keys;
use crate::layer_source::LayerSource;
use crate::options::{BackendOptions, Purpose};
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
        self.claim(layer).ok_or_else(|| Error::NoBackend {
            layer: layer.path().to_owned(),
            quant_method: self.quant_method().map(str::to_owned),
            tensors: layer.suffixes().map(str::to_owned).collect(),
            registered: self.registered.clone(),
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

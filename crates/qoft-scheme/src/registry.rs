//! The list of backends, filled by the scheme crates that are linked in.

use crate::backend::{LoadedLinear, QuantBackend};
use crate::error::{Error, Result};
use crate::layer_source::LayerSource;
use crate::options::{BackendOptions, LoadOptions};

/// An entry of the registry: a plain static of a scheme crate.
#[derive(Clone, Copy)]
pub struct Registration {
    /// Backends are asked from low to high. PEFT's order: bnb 8-bit 100, bnb 4-bit 200, EETQ 300,
    /// AQLM 400, AWQ 500, GPTQ 600, HQQ 700, INC 800; dense layers come last, at 10 000.
    pub order: u32,
    /// The backend.
    pub backend: &'static dyn QuantBackend,
}

/// A registration as `inventory` collects it.
#[doc(hidden)]
pub struct Collected(pub &'static Registration);

inventory::collect!(Collected);

/// Registers a backend: `register_backend!(REGISTRATION);`, once per backend.
///
/// The crate must be linked: a program that only lists it in `Cargo.toml` writes
/// `use my_scheme as _;`.
#[macro_export]
macro_rules! register_backend {
    ($registration:path) => {
        const _: () = {
            use $crate::inventory;
            inventory::submit! { $crate::registry_entry(&$registration) }
        };
    };
}

/// Used by [`register_backend!`].
#[doc(hidden)]
pub const fn registry_entry(registration: &'static Registration) -> Collected {
    Collected(registration)
}

/// The backends, in the order in which they are asked.
pub struct Registry(Vec<&'static dyn QuantBackend>);

impl Registry {
    /// All backends that are linked into this program.
    ///
    /// # Errors
    /// If two have the same name.
    pub fn linked() -> Result<Self> {
        Self::new(inventory::iter::<Collected>().map(|entry| entry.0))
    }

    /// A registry of one's own.
    ///
    /// # Errors
    /// If two backends have the same name.
    pub fn new<'a>(entries: impl IntoIterator<Item = &'a Registration>) -> Result<Self> {
        let mut entries: Vec<&Registration> = entries.into_iter().collect();
        entries.sort_by_key(|e| (e.order, e.backend.name()));
        let mut names: Vec<&str> = entries.iter().map(|e| e.backend.name()).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::DuplicateBackend(pair[0].to_owned()));
        }
        Ok(Self(entries.into_iter().map(|e| e.backend).collect()))
    }

    /// The backends in order.
    pub fn backends(&self) -> impl Iterator<Item = &'static dyn QuantBackend> {
        self.0.iter().copied()
    }

    /// Names of the backends, in order, separated by commas.
    pub fn names(&self) -> String {
        let names: Vec<&str> = self.backends().map(QuantBackend::name).collect();
        names.join(", ")
    }

    /// Fails if an option names a backend or a key that does not exist.
    ///
    /// # Errors
    /// The error lists what exists.
    pub fn check_options(&self, options: &BackendOptions) -> Result<()> {
        for (name, key, value) in options.iter() {
            let reason = match self.backends().find(|b| b.name() == name) {
                None => format!("no such backend; registered backends: {}", self.names()),
                Some(backend) if !backend.options().contains(&key) => match backend.options() {
                    [] => format!("{name} has no options"),
                    known => format!("unknown key; options of {name}: {}", known.join(", ")),
                },
                Some(_) => continue,
            };
            return Err(Error::BackendOption {
                option: format!("{name}.{key}={value}"),
                reason,
            });
        }
        Ok(())
    }

    /// The first backend that claims the layer.
    ///
    /// # Errors
    /// If none does; the error lists what is registered.
    pub fn find(&self, layer: &LayerSource) -> Result<&'static dyn QuantBackend> {
        self.backends().find(|b| b.claim(layer)).ok_or_else(|| {
            let method = layer
                .quantization_config()
                .and_then(|c| c.get("quant_method"))
                .and_then(|m| m.as_str());
            let tensors: Vec<&str> = layer.suffixes().collect();
            Error::NoBackend {
                layer: layer.path().to_owned(),
                quant_method: method.unwrap_or("none").to_owned(),
                tensors: if tensors.is_empty() {
                    "none".into()
                } else {
                    tensors.join(", ")
                },
                registered: self.names(),
            }
        })
    }

    /// Loads a layer through the backend that claims it.
    ///
    /// # Errors
    /// If no backend claims it, or its tensors are wrong.
    pub fn load(&self, layer: &LayerSource, options: &LoadOptions) -> Result<LoadedLinear> {
        self.find(layer)?.load(layer, options)
    }
}

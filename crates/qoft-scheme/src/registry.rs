//! The list of backends, filled by the scheme crates that are linked in.

use crate::backend::QuantBackend;
use crate::error::{Error, Result};
use crate::options::BackendOptions;

/// When a backend is asked for a layer: all of one tier before those of the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Tier {
    /// Before all others: for a backend that takes over layers which another one could load.
    Preferred,
    /// Where schemes are.
    Standard,
    /// If nobody else claims a layer: dense ones, for example.
    Fallback,
}

impl Tier {
    /// `preferred`, `standard`, `fallback`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Preferred => "preferred",
            Self::Standard => "standard",
            Self::Fallback => "fallback",
        }
    }
}

/// An entry of the registry: a plain static of a scheme crate.
#[derive(Clone, Copy)]
pub struct Registration {
    backend: &'static dyn QuantBackend,
    tier: Tier,
    order: u16,
    replaces: bool,
}

impl Registration {
    /// A backend of the standard tier, after those that have a place there.
    pub const fn new(backend: &'static dyn QuantBackend) -> Self {
        Self {
            backend,
            tier: Tier::Standard,
            order: u16::MAX,
            replaces: false,
        }
    }

    /// The same in another tier.
    #[must_use]
    pub const fn in_tier(self, tier: Tier) -> Self {
        Self { tier, ..self }
    }

    /// The same at a place within its tier: low ones are asked first, those of one place in the
    /// order of their names. `qoft backends` shows the places.
    #[must_use]
    pub const fn at(self, order: u16) -> Self {
        Self { order, ..self }
    }

    /// The same in place of another backend of its name, whose tier and place it leaves.
    #[must_use]
    pub const fn replacing(self) -> Self {
        Self {
            replaces: true,
            ..self
        }
    }

    /// The backend.
    pub fn backend(&self) -> &'static dyn QuantBackend {
        self.backend
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.backend.name()
    }

    /// Its tier.
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// Its place within the tier.
    pub fn order(&self) -> u16 {
        self.order
    }
}

/// A registration as `inventory` collects it.
#[doc(hidden)]
pub struct Collected(pub &'static Registration);

inventory::collect!(Collected);

/// Registers a backend: `register_backend!(REGISTRATION);`, once per backend.
///
/// The crate must be linked: a program that only lists it in `Cargo.toml` writes
/// `use my_scheme as _;`. Where that does not do, as with some static libraries, see
/// [`Registry::with`].
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
#[derive(Clone)]
pub struct Registry(Vec<Registration>);

impl Registry {
    /// All backends that are linked into this program.
    ///
    /// # Errors
    /// If two have the same name, and not one of them replaces the other.
    pub fn linked() -> Result<Self> {
        Self::new(inventory::iter::<Collected>().map(|entry| entry.0))
    }

    /// A registry of one's own.
    ///
    /// # Errors
    /// If two have the same name, and not one of them replaces the other.
    pub fn new<'a>(entries: impl IntoIterator<Item = &'a Registration>) -> Result<Self> {
        let mut all: Vec<Registration> = Vec::new();
        for entry in entries {
            let same = all.iter().position(|known| known.name() == entry.name());
            match same {
                None => all.push(*entry),
                Some(at) if entry.replaces && !all[at].replaces => all[at] = *entry,
                Some(at) if all[at].replaces && !entry.replaces => {}
                Some(_) => return Err(Error::DuplicateBackend(entry.name().to_owned())),
            }
        }
        all.sort_by_key(|e| (e.tier, e.order, e.name()));
        Ok(Self(all))
    }

    /// The same with one more backend, which need not be linked.
    ///
    /// # Errors
    /// If there is one of this name already, unless the new one replaces it.
    pub fn with(&self, entry: &Registration) -> Result<Self> {
        Self::new(self.0.iter().chain([entry]))
    }

    /// The registrations in order.
    pub fn registrations(&self) -> &[Registration] {
        &self.0
    }

    /// The backends in order.
    pub fn backends(&self) -> impl Iterator<Item = &'static dyn QuantBackend> {
        self.0.iter().map(Registration::backend)
    }

    /// The backend of a name.
    ///
    /// # Errors
    /// If there is none; the error lists what is registered.
    pub fn backend(&self, name: &str) -> Result<&'static dyn QuantBackend> {
        let found = self.backends().find(|backend| backend.name() == name);
        found.ok_or_else(|| Error::UnknownBackend {
            name: name.to_owned(),
            registered: self.backends().map(QuantBackend::name).collect(),
        })
    }

    /// Files in which schemes have their configuration, each once.
    pub fn config_files(&self) -> Vec<&'static str> {
        let mut all = Vec::new();
        for file in self.backends().flat_map(QuantBackend::config_files) {
            if !all.contains(file) {
                all.push(*file);
            }
        }
        all
    }

    /// Fails if an option names a backend or a key that does not exist.
    pub(crate) fn check_options(&self, options: &BackendOptions) -> Result<()> {
        for (name, key, value) in options.iter() {
            let reason = match self.backends().find(|b| b.name() == name) {
                None => {
                    let names: Vec<&str> = self.backends().map(QuantBackend::name).collect();
                    let names = names.join(", ");
                    format!("no such backend; registered backends: {names}")
                }
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
}

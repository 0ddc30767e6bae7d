//! The list of backends, filled by the scheme crates that are linked in.

use crate::backend::QuantBackend;
use crate::entry::{Entries, Entry, Registered};
use crate::error::{Error, Result};
use crate::options::BackendOptions;

impl Registered for dyn QuantBackend {
    const PLURAL: &'static str = "backends";

    fn registered_name(&self) -> &'static str {
        self.name()
    }
}

/// An entry of the registry of backends: a plain static of a scheme crate. `qoft backends` shows
/// tiers and places.
pub type Registration = Entry<dyn QuantBackend>;

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
pub struct Registry(Entries<dyn QuantBackend>);

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
        Entries::new(entries).map(Self)
    }

    /// The same with one more backend, which need not be linked.
    ///
    /// # Errors
    /// If there is one of this name already, unless the new one replaces it.
    pub fn with(&self, entry: &Registration) -> Result<Self> {
        self.0.with(entry).map(Self)
    }

    /// The registrations in order.
    pub fn registrations(&self) -> &[Registration] {
        self.0.all()
    }

    /// The backends in order.
    pub fn backends(&self) -> impl Iterator<Item = &'static dyn QuantBackend> {
        self.0.items()
    }

    /// The backend of a name.
    ///
    /// # Errors
    /// If there is none; the error lists what is registered.
    pub fn backend(&self, name: &str) -> Result<&'static dyn QuantBackend> {
        let found = self.backends().find(|backend| backend.name() == name);
        found.ok_or_else(|| Error::UnknownBackend {
            name: name.to_owned(),
            registered: self.0.names(),
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
                    let names = self.0.names().join(", ");
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

//! The list of architectures, filled by the crates that are linked in.

use qoft_core::{Entries, Entry, Error, Registered, Result, inventory};
use serde_json::Value;

use crate::architecture::Architecture;
use crate::json::Object;
use crate::spec::ModelSpec;

impl Registered for dyn Architecture {
    const PLURAL: &'static str = "architectures";

    fn registered_name(&self) -> &'static str {
        self.name()
    }
}

/// An entry of the registry: a plain static of an architecture's crate.
pub type ArchitectureRegistration = Entry<dyn Architecture>;

/// A registration as `inventory` collects it.
#[doc(hidden)]
pub struct Collected(pub &'static ArchitectureRegistration);

inventory::collect!(Collected);

/// Registers an architecture: `register_architecture!(REGISTRATION);`, once per architecture.
///
/// The crate must be linked: a program that only lists it in `Cargo.toml` writes
/// `use my_architecture as _;`. Where that does not do, as with some static libraries, see
/// [`Architectures::with`].
#[macro_export]
macro_rules! register_architecture {
    ($registration:path) => {
        const _: () = {
            use $crate::inventory;
            inventory::submit! { $crate::architecture_entry(&$registration) }
        };
    };
}

/// Used by [`register_architecture!`].
#[doc(hidden)]
pub const fn architecture_entry(registration: &'static ArchitectureRegistration) -> Collected {
    Collected(registration)
}

/// The architectures, in the order in which they are asked.
#[derive(Clone)]
pub struct Architectures(Entries<dyn Architecture>);

impl Architectures {
    /// All architectures that are linked into this program.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn linked() -> Result<Self> {
        Self::new(inventory::iter::<Collected>().map(|entry| entry.0))
    }

    /// A list of one's own.
    ///
    /// # Errors
    /// If two have the same name, and not one of them replaces the other, or two of the same tier
    /// read the same `model_type`.
    pub fn new<'a>(
        entries: impl IntoIterator<Item = &'a ArchitectureRegistration>,
    ) -> Result<Self> {
        let entries = Entries::new(entries)?;
        let all = entries.all();
        for (number, entry) in all.iter().enumerate() {
            let others = all[..number].iter();
            for other in others.filter(|other| other.tier() == entry.tier()) {
                check_apart(other.item(), entry.item())?;
            }
        }
        Ok(Self(entries))
    }

    /// The same with one more architecture, which need not be linked.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with(&self, entry: &ArchitectureRegistration) -> Result<Self> {
        Self::new(self.0.all().iter().chain([entry]))
    }

    /// The registrations in order.
    pub fn registrations(&self) -> &[ArchitectureRegistration] {
        self.0.all()
    }

    /// The architectures in order.
    pub fn architectures(&self) -> impl Iterator<Item = &'static dyn Architecture> {
        self.0.items()
    }

    /// The first architecture that reads a `config.json`.
    ///
    /// # Errors
    /// If none does; the error lists the model types that are read.
    pub fn find(&self, config: &Value) -> Result<&'static dyn Architecture> {
        let json = Object::root(config);
        let model_type: String = json.require("model_type")?;
        let found = self.architectures().find(|a| a.reads(json));
        found.ok_or_else(|| {
            let known = self.architectures().flat_map(|a| a.model_types());
            json.unsupported("model_type", &model_type, known.copied())
        })
    }

    /// The model that a `config.json` describes.
    ///
    /// # Errors
    /// If no architecture reads it, a value is missing or impossible, or asks for something that is
    /// not implemented.
    pub fn describe(&self, config: &Value) -> Result<ModelSpec> {
        self.find(config)?.describe(Object::root(config))
    }
}

/// Fails if two architectures read the same `model_type`.
fn check_apart(a: &dyn Architecture, b: &dyn Architecture) -> Result<()> {
    let mut shared = a.model_types().iter();
    match shared.find(|model_type| b.model_types().contains(model_type)) {
        None => Ok(()),
        Some(shared) => Err(Error::Duplicate {
            what: <dyn Architecture>::PLURAL,
            reason: format!("read model_type `{shared}`: {} and {}", a.name(), b.name()),
        }),
    }
}

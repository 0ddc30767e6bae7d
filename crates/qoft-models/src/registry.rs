//! The list of architectures, filled by the crates that are linked in.

use qoft_core::{Error, Result};
use serde_json::Value;

use crate::architecture::Architecture;
use crate::json::Object;
use crate::spec::ModelSpec;

/// Which architectures are asked first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Before all others: one that takes the place of a built-in.
    Preferred,
    /// The built-in ones, and most others.
    Standard,
    /// Where no other reads a configuration.
    Fallback,
}

/// An entry of the registry: a plain static of an architecture's crate.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct ArchitectureRegistration {
    /// When it is asked.
    pub tier: Tier,
    /// The architecture.
    pub architecture: &'static dyn Architecture,
}

impl ArchitectureRegistration {
    /// An entry among the standard ones.
    pub const fn new(architecture: &'static dyn Architecture) -> Self {
        Self {
            tier: Tier::Standard,
            architecture,
        }
    }

    /// The same in another tier.
    #[must_use]
    pub const fn in_tier(self, tier: Tier) -> Self {
        Self { tier, ..self }
    }
}

/// A registration as `inventory` collects it.
#[doc(hidden)]
pub struct Collected(pub &'static ArchitectureRegistration);

qoft_core::inventory::collect!(Collected);

/// Registers an architecture: `register_architecture!(REGISTRATION);`, once per architecture.
///
/// The crate must be linked: a program that only lists it in `Cargo.toml` writes
/// `use my_architecture as _;`.
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
pub struct Architectures(Vec<&'static dyn Architecture>);

impl Architectures {
    /// All architectures that are linked into this program.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn linked() -> Result<Self> {
        Self::new(qoft_core::inventory::iter::<Collected>().map(|entry| entry.0))
    }

    /// A list of one's own.
    ///
    /// # Errors
    /// If two in the same tier have the same name, or read the same `model_type`. Those of a later
    /// tier give way.
    pub fn new<'a>(
        entries: impl IntoIterator<Item = &'a ArchitectureRegistration>,
    ) -> Result<Self> {
        let mut entries: Vec<&ArchitectureRegistration> = entries.into_iter().collect();
        entries.sort_by_key(|entry| (entry.tier, entry.architecture.name()));
        for (number, entry) in entries.iter().enumerate() {
            let others = entries[..number].iter();
            for other in others.filter(|other| other.tier == entry.tier) {
                check_apart(other.architecture, entry.architecture)?;
            }
        }
        Ok(Self(entries.into_iter().map(|e| e.architecture).collect()))
    }

    /// The architectures in order.
    pub fn architectures(&self) -> impl Iterator<Item = &'static dyn Architecture> {
        self.0.iter().copied()
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

/// Fails if it is not clear which of two architectures is meant.
fn check_apart(a: &dyn Architecture, b: &dyn Architecture) -> Result<()> {
    if a.name() == b.name() {
        return Err(Error::DuplicateArchitecture(format!(
            "are registered under the name `{}`",
            a.name()
        )));
    }
    let mut shared = a.model_types().iter();
    match shared.find(|model_type| b.model_types().contains(model_type)) {
        None => Ok(()),
        Some(shared) => Err(Error::DuplicateArchitecture(format!(
            "read model_type `{shared}`: {} and {}",
            a.name(),
            b.name()
        ))),
    }
}

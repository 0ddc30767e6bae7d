//! The list of families, filled by the crates that are linked in.

use crate::family::AdapterFamily;
use qoft_core::{Error, Result};

/// An entry of the registry: a plain static of a family's crate.
///
/// Unlike schemes, families need no tiers: a folder names its family, so at most one is asked.
#[derive(Clone, Copy)]
pub struct FamilyRegistration {
    family: &'static dyn AdapterFamily,
    replaces: bool,
}

impl FamilyRegistration {
    /// A family under its name.
    pub const fn new(family: &'static dyn AdapterFamily) -> Self {
        Self {
            family,
            replaces: false,
        }
    }

    /// The same in place of another family of its name.
    #[must_use]
    pub const fn replacing(self) -> Self {
        Self {
            replaces: true,
            ..self
        }
    }

    /// The family.
    pub fn family(&self) -> &'static dyn AdapterFamily {
        self.family
    }

    /// Its `peft_type`.
    pub fn name(&self) -> &'static str {
        self.family.peft_type()
    }
}

/// A registration as `inventory` collects it.
#[doc(hidden)]
pub struct Collected(pub &'static FamilyRegistration);

inventory::collect!(Collected);

/// Registers a family of adapters: `register_family!(REGISTRATION);`, once per family.
///
/// The crate must be linked: a program that only lists it in `Cargo.toml` writes
/// `use my_family as _;`. Where that does not do, as with some static libraries, see
/// [`Families::with`](crate::Families::with).
#[macro_export]
macro_rules! register_family {
    ($registration:path) => {
        const _: () = {
            use $crate::inventory;
            inventory::submit! { $crate::family_entry(&$registration) }
        };
    };
}

/// Used by [`register_family!`](crate::register_family).
#[doc(hidden)]
pub const fn family_entry(registration: &'static FamilyRegistration) -> Collected {
    Collected(registration)
}

/// The families of adapters, by name.
#[derive(Clone)]
pub struct Families(Vec<FamilyRegistration>);

impl Families {
    /// All families that are linked into this program.
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
    pub fn new<'a>(entries: impl IntoIterator<Item = &'a FamilyRegistration>) -> Result<Self> {
        let mut all: Vec<FamilyRegistration> = Vec::new();
        for entry in entries {
            let is_same =
                |known: &FamilyRegistration| known.name().eq_ignore_ascii_case(entry.name());
            let same = all.iter().position(is_same);
            match same {
                None => all.push(*entry),
                Some(at) if entry.replaces && !all[at].replaces => all[at] = *entry,
                Some(at) if all[at].replaces && !entry.replaces => {}
                Some(_) => return Err(Error::DuplicateFamily(entry.name().to_owned())),
            }
        }
        all.sort_by_key(FamilyRegistration::name);
        Ok(Self(all))
    }

    /// The same with one more family, which need not be linked.
    ///
    /// # Errors
    /// If there is one of this name already, unless the new one replaces it.
    pub fn with(&self, entry: &FamilyRegistration) -> Result<Self> {
        Self::new(self.0.iter().chain([entry]))
    }

    /// Only this family.
    pub fn only(family: &'static dyn AdapterFamily) -> Self {
        Self(vec![FamilyRegistration::new(family)])
    }

    /// The registrations, in the order of their names.
    pub fn registrations(&self) -> &[FamilyRegistration] {
        &self.0
    }

    /// The families, in the order of their names.
    pub fn families(&self) -> impl Iterator<Item = &'static dyn AdapterFamily> {
        self.0.iter().map(FamilyRegistration::family)
    }

    /// The family of this `peft_type`, in capitals or not; `file` is named in errors.
    ///
    /// # Errors
    /// If there is none; the error lists those that there are.
    pub fn find(&self, peft_type: &str, file: &str) -> Result<&'static dyn AdapterFamily> {
        let same = |name: &str| name.eq_ignore_ascii_case(peft_type);
        let found = self.families().find(|family| same(family.peft_type()));
        found.ok_or_else(|| {
            let names: Vec<&str> = self.families().map(AdapterFamily::peft_type).collect();
            let reason = format!(
                "no adapter family `{peft_type}` is registered; registered: {}",
                names.join(", ")
            );
            Error::config(file, "peft_type", reason)
        })
    }
}

//! The list of families, filled by the crates that are linked in.

use crate::family::AdapterFamily;
use qoft_core::{Error, Result};

/// A registration as `inventory` collects it.
#[doc(hidden)]
pub struct FamilyEntry(pub &'static dyn AdapterFamily);

inventory::collect!(FamilyEntry);

/// Registers a family of adapters: `register_family!(MyFamily);`, once per family.
///
/// The crate must be linked: a program that only lists it in `Cargo.toml` writes
/// `use my_family as _;`.
#[macro_export]
macro_rules! register_family {
    ($family:path) => {
        const _: () = {
            use $crate::inventory;
            inventory::submit! { $crate::family_entry(&$family) }
        };
    };
}

/// Used by [`register_family!`](crate::register_family).
#[doc(hidden)]
pub const fn family_entry(family: &'static dyn AdapterFamily) -> FamilyEntry {
    FamilyEntry(family)
}

/// The families of adapters, by name.
pub struct Families(Vec<&'static dyn AdapterFamily>);

impl Families {
    /// All families that are linked into this program.
    ///
    /// # Errors
    /// If two have the same name.
    pub fn linked() -> Result<Self> {
        Self::new(inventory::iter::<FamilyEntry>().map(|entry| entry.0))
    }

    /// A list of one's own.
    ///
    /// # Errors
    /// If two families have the same name.
    pub fn new(families: impl IntoIterator<Item = &'static dyn AdapterFamily>) -> Result<Self> {
        let mut families: Vec<_> = families.into_iter().collect();
        families.sort_by_key(|family| family.peft_type());
        let mut pairs = families.windows(2);
        match pairs.find(|pair| pair[0].peft_type() == pair[1].peft_type()) {
            Some(pair) => Err(Error::DuplicateFamily(pair[0].peft_type().to_owned())),
            None => Ok(Self(families)),
        }
    }

    /// The family of this `peft_type`, in capitals or not; `file` is named in errors.
    ///
    /// # Errors
    /// If there is none; the error lists those that there are.
    pub fn find(&self, peft_type: &str, file: &str) -> Result<&'static dyn AdapterFamily> {
        let same = |name: &str| name.eq_ignore_ascii_case(peft_type);
        let found = self.0.iter().find(|family| same(family.peft_type()));
        found.copied().ok_or_else(|| {
            let reason = format!(
                "no adapter family `{peft_type}` is registered; registered: {}",
                self.names()
            );
            Error::config(file, "peft_type", reason)
        })
    }

    /// Names of the families, separated by commas.
    pub fn names(&self) -> String {
        let names: Vec<&str> = self.0.iter().map(|family| family.peft_type()).collect();
        names.join(", ")
    }
}

//! The list of families, filled by the crates that are linked in.

use crate::family::AdapterFamily;
use qoft_core::{Entries, Entry, Error, Registered, Result};

impl Registered for dyn AdapterFamily {
    const PLURAL: &'static str = "families of adapters";

    fn registered_name(&self) -> &'static str {
        self.peft_type()
    }
}

/// An entry of the registry: a plain static of a family's crate. A folder names its family, so tiers
/// and places only order lists.
pub type FamilyRegistration = Entry<dyn AdapterFamily>;

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

/// The families of adapters. Their names are the same in capitals or not.
#[derive(Clone)]
pub struct Families(Entries<dyn AdapterFamily>);

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
        Entries::new(entries).map(Self)
    }

    /// The same with one more family, which need not be linked.
    ///
    /// # Errors
    /// If there is one of this name already, unless the new one replaces it.
    pub fn with(&self, entry: &FamilyRegistration) -> Result<Self> {
        self.0.with(entry).map(Self)
    }

    /// Only this family.
    pub fn only(family: &'static dyn AdapterFamily) -> Self {
        Self(Entries::only(family))
    }

    /// The registrations in order.
    pub fn registrations(&self) -> &[FamilyRegistration] {
        self.0.all()
    }

    /// The families in order.
    pub fn families(&self) -> impl Iterator<Item = &'static dyn AdapterFamily> {
        self.0.items()
    }

    /// The family of this `peft_type`, in capitals or not; `file` is named in errors.
    ///
    /// # Errors
    /// If there is none; the error lists those that there are.
    pub fn find(&self, peft_type: &str, file: &str) -> Result<&'static dyn AdapterFamily> {
        let same = |name: &str| name.eq_ignore_ascii_case(peft_type);
        let found = self.families().find(|family| same(family.peft_type()));
        found.ok_or_else(|| {
            let reason = format!(
                "no adapter family `{peft_type}` is registered; registered: {}",
                self.0.names().join(", ")
            );
            Error::config(file).key("peft_type", reason)
        })
    }
}

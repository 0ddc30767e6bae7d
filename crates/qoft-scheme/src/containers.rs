//! The list of containers, filled by the crates that are linked in.

use std::path::Path;

use crate::container::Container;
use crate::entry::{Entries, Entry, Registered};
use crate::error::Result;

impl Registered for dyn Container {
    const PLURAL: &'static str = "file formats";

    fn registered_name(&self) -> &'static str {
        self.name()
    }
}

/// An entry of the registry: a plain static of a container's crate.
pub type ContainerRegistration = Entry<dyn Container>;

/// A registration as `inventory` collects it.
#[doc(hidden)]
pub struct CollectedContainer(pub &'static ContainerRegistration);

inventory::collect!(CollectedContainer);

/// Registers a container: `register_container!(REGISTRATION);`, once per container. The crate must
/// be linked, as that of a backend.
#[macro_export]
macro_rules! register_container {
    ($registration:path) => {
        const _: () = {
            use $crate::inventory;
            inventory::submit! { $crate::CollectedContainer(&$registration) }
        };
    };
}

/// The containers, in the order in which they are asked.
#[derive(Clone)]
pub struct Containers(Entries<dyn Container>);

impl Containers {
    /// All containers that are linked into this program.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn linked() -> Result<Self> {
        Self::new(inventory::iter::<CollectedContainer>().map(|entry| entry.0))
    }

    /// A list of one's own.
    ///
    /// # Errors
    /// If two have the same name, and not one of them replaces the other.
    pub fn new<'a>(entries: impl IntoIterator<Item = &'a ContainerRegistration>) -> Result<Self> {
        Ok(Self(Entries::new(entries)?))
    }

    /// The same with one more container, which need not be linked.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with(&self, entry: &ContainerRegistration) -> Result<Self> {
        Ok(Self(self.0.with(entry)?))
    }

    /// The first container that reads a path.
    pub fn find(&self, path: &Path) -> Option<&'static dyn Container> {
        self.0.items().find(|container| container.reads(path))
    }
}

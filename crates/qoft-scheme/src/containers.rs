//! The list of containers, filled by the crates that are linked in.

use std::path::Path;

use crate::checkpoint::Checkpoint;
use crate::container::Container;
use crate::entry::{Entries, Entry, Registered};
use crate::error::{Error, Result};

impl Registered for dyn Container {
    const PLURAL: &'static str = "file formats";

    fn registered_name(&self) -> &'static str {
        self.name()
    }
}

/// An entry of the registry of file formats: a plain static of a container's crate. `qoft backends`
/// shows tiers and places.
pub type ContainerRegistration = Entry<dyn Container>;

/// A registration as `inventory` collects it.
#[doc(hidden)]
pub struct CollectedContainer(pub &'static ContainerRegistration);

inventory::collect!(CollectedContainer);

/// Registers a container: `register_container!(REGISTRATION);`, once per container.
///
/// The crate must be linked: a program that only lists it in `Cargo.toml` writes
/// `use my_format as _;`. Where that does not do, as with some static libraries, see
/// [`Containers::with`].
#[macro_export]
macro_rules! register_container {
    ($registration:path) => {
        const _: () = {
            use $crate::inventory;
            inventory::submit! { $crate::container_entry(&$registration) }
        };
    };
}

/// Used by [`register_container!`].
#[doc(hidden)]
pub const fn container_entry(registration: &'static ContainerRegistration) -> CollectedContainer {
    CollectedContainer(registration)
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

    /// The registrations in order.
    pub fn registrations(&self) -> &[ContainerRegistration] {
        self.0.all()
    }

    /// The containers in order.
    pub fn containers(&self) -> impl Iterator<Item = &'static dyn Container> {
        self.0.items()
    }

    /// The first container that reads a path.
    pub fn find(&self, path: &Path) -> Option<&'static dyn Container> {
        self.containers().find(|container| container.reads(path))
    }

    /// Opens what one of the containers reads, or else a folder of Hugging Face as
    /// [`Checkpoint::open`] does.
    ///
    /// # Errors
    /// If a file is missing, damaged, names files outside the folder, or has no known format; the
    /// error lists those that there are.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Checkpoint> {
        let path = path.as_ref();
        match self.find(path) {
            Some(container) => Checkpoint::of_container(container, path),
            None if path.is_file() => {
                let reason = format!(
                    "a file of no known format (registered: {}); a model is a folder with \
                     config.json and safetensors beside it, or a file of such a format",
                    self.names()
                );
                Err(Error::file(path, reason))
            }
            None => Checkpoint::open(path),
        }
    }

    fn names(&self) -> String {
        match self.0.names()[..] {
            [] => "none".into(),
            ref names => names.join(", "),
        }
    }
}

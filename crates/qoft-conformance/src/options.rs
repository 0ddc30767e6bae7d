//! The options that a backend says it has.

use qoft_core::{BackendOptions, Checkpoint, Error, Registry};

use crate::layer::only_name;

/// A value that no option has.
const NONSENSE: &str = "\u{1}no such value";

/// Every option refuses a value that it does not know, where a checkpoint of the scheme is opened;
/// and a key that is not listed is refused.
pub(crate) fn check(registry: &Registry, checkpoint: &Checkpoint) {
    let name = only_name(registry);
    let backend = registry.backend(name).unwrap_or_else(|e| panic!("{e}"));
    for key in backend.options().iter().chain(&["no_such_key"]) {
        let option = format!("{name}.{key}={NONSENSE}");
        let options = BackendOptions::parse(&[&option]);
        let opened = options.and_then(|options| registry.open(checkpoint, &options));
        let refused = matches!(opened, Err(Error::BackendOption { .. }));
        assert!(refused, "{option:?} is not refused");
    }
}

//! What a model architecture is.

use qoft_core::Result;

use crate::json::Object;
use crate::spec::ModelSpec;

/// An architecture: it recognizes its models by their `config.json` and describes them.
pub trait Architecture: Send + Sync + 'static {
    /// A name that no other architecture has.
    fn name(&self) -> &'static str;

    /// The `model_type`s that it reads.
    fn model_types(&self) -> &'static [&'static str];

    /// Whether it reads this `config.json`. What stands here judges by `model_type`; an architecture
    /// that reads a part of a larger model only, or only some of its classes, looks into
    /// `text_config` or `architectures` as well.
    fn reads(&self, config: Object) -> bool {
        let model_type = config.get::<String>("model_type");
        let model_type = model_type.ok().flatten();
        model_type.is_some_and(|found| self.model_types().contains(&found.as_str()))
    }

    /// Reads and checks a `config.json` that [`Self::reads`] accepts.
    ///
    /// # Errors
    /// If a value is missing, impossible, or asks for something that is not implemented: an option
    /// that changes numbers must not be ignored.
    fn describe(&self, config: Object) -> Result<ModelSpec>;
}

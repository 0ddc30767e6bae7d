//! The behaviour that every family of adapters must have.

mod case;
mod compute;
mod damage;
mod dropout;
mod folder;
mod merging;
mod model;
mod params;

use qoft_peft::FamilyRegistration;
use serde_json::Value;

use case::{Case, Start};

/// A family of adapters with configurations to try.
///
/// A configuration is an object with the keys that are not the family's defaults. It has to fit a
/// linear layer of 48 features. The suite has more layers, and tries those that the configuration fits:
/// convolutions whose filters have 16 values (4 channels of 2×2) and 8 values (in groups, not square), and
/// a table with rows of 16.
///
/// The checks, in this order:
///
/// 1. parameters have the names and shapes that the configuration tells, ids that stay the same, and
///    initial values that follow from the seed alone; where the configuration says so, they change
///    nothing;
/// 2. rotations are as orthogonal as they say, whatever the values of their parameters;
/// 3. turning the weight is turning the input and changing the output, also in training, and inverses
///    are inverses;
/// 4. gradients of the parameters and the input are those of finite differences;
/// 5. an adapter computes from its parameters and nothing else; bringing the parameters back to where
///    they are allowed changes nothing the second time;
/// 6. merged layers compute what adapted ones do, one adapter or several at once or one after another,
///    beside one of OFT as well, and come back;
/// 7. an adapter comes back from its folder, with keys that nobody knows, and with a strength of 0
///    and of 1;
/// 8. `bias`, `modules_to_save` and the other keys that all families share are read and checked;
/// 9. damaged tensors and configurations give errors, never a panic;
/// 10. dropout follows from its place in the run, and is none outside of training.
///
/// ```
/// use qoft_conformance::FamilySubject;
/// use serde_json::json;
///
/// // #[test]
/// fn conforms() {
///     FamilySubject::new(&qoft_oft::REGISTRATION)
///         .identity_at_start([json!({"oft_block_size": 4})])
///         .random_at_start([json!({"oft_block_size": 8, "init_weights": false})])
///         .with_dropout([json!({"oft_block_size": 4, "module_dropout": 0.5})])
///         .check();
/// }
/// # conforms();
/// ```
pub struct FamilySubject {
    registration: &'static FamilyRegistration,
    configs: Vec<(Start, Value)>,
}

impl FamilySubject {
    /// A family without configurations yet.
    pub fn new(registration: &'static FamilyRegistration) -> Self {
        Self {
            registration,
            configs: Vec::new(),
        }
    }

    /// With configurations whose adapters change nothing before they are trained.
    #[must_use]
    pub fn identity_at_start(self, configs: impl IntoIterator<Item = Value>) -> Self {
        self.with(Start::Identity, configs)
    }

    /// With configurations whose adapters start from random values that change something.
    #[must_use]
    pub fn random_at_start(self, configs: impl IntoIterator<Item = Value>) -> Self {
        self.with(Start::Random, configs)
    }

    /// With configurations that leave out parts at random in training.
    #[must_use]
    pub fn with_dropout(self, configs: impl IntoIterator<Item = Value>) -> Self {
        self.with(Start::Dropout, configs)
    }

    fn with(mut self, start: Start, configs: impl IntoIterator<Item = Value>) -> Self {
        let configs = configs.into_iter();
        self.configs.extend(configs.map(|config| (start, config)));
        self
    }

    /// Runs all checks.
    ///
    /// # Panics
    /// If one fails; the message names the configuration.
    #[track_caller]
    pub fn check(&self) {
        assert!(!self.configs.is_empty(), "no configuration is given");
        for (start, keys) in &self.configs {
            let case = Case::new(self.registration, *start, keys);
            params::check(&case);
            compute::check(&case);
            merging::check(&case);
            folder::check(&case);
            damage::check(&case);
            dropout::check(&case);
        }
    }
}

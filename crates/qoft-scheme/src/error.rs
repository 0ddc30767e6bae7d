//! Errors of the library: each names the file, the tensor or the key, what was expected and
//! what was found.

mod found_tensor;
mod kind;

use std::path::PathBuf;
use std::sync::Arc;

use qoft_kernels::WeightError;

pub use found_tensor::FoundTensor;
use found_tensor::list;
pub use kind::ErrorKind;

/// Result of the library's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a reader of another library said.
pub type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// What can go wrong between a checkpoint, a backend and an adapter.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: Arc<std::io::Error>,
    },
    /// Another process is writing into the same output folder.
    #[error(
        "{}: another run{} is writing into this folder; wait for it, or choose another one",
        path.display(),
        if holder.is_empty() { String::new() } else { format!(" ({holder})") }
    )]
    Busy {
        /// The folder.
        path: PathBuf,
        /// What the other process says of itself; empty where that cannot be read.
        holder: String,
    },
    /// A file's content is not what its kind demands.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// What a reader of the format said, if it was one.
        source: Option<Cause>,
    },
    /// A configuration key has an impossible or unsupported value.
    #[error("{file}: `{key}`: {reason}")]
    Config {
        /// The file, or the name of the configuration.
        file: String,
        /// The key.
        key: String,
        /// What is wrong with the value.
        reason: String,
        /// What a reader of the value said, if it was one.
        source: Option<Cause>,
    },
    /// A tensor that must be there is missing.
    #[error("{}: tensor `{tensor}` is missing", folder.display())]
    MissingTensor {
        /// The checkpoint folder.
        folder: PathBuf,
        /// The tensor's name.
        tensor: String,
    },
    /// A tensor has the wrong dtype, shape or content.
    #[error("{}: tensor `{tensor}`: expected {expected}, found {found}", file.display())]
    Tensor {
        /// The file that holds the tensor.
        file: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// What was expected.
        expected: String,
        /// What was found.
        found: String,
    },
    /// A layer's tensors do not make up a weight.
    #[error("layer `{layer}` ({backend}): {reason}")]
    Layer {
        /// Module path of the layer.
        layer: String,
        /// The backend that tried to load it.
        backend: String,
        /// What is wrong.
        reason: String,
        /// Why the parts do not make a weight, if that is it.
        source: Option<WeightError>,
    },
    /// The parts of a weight do not fit each other. Where a scheme loads a layer, this becomes
    /// [`Self::Layer`].
    #[error(transparent)]
    Weight(#[from] WeightError),
    /// A scheme cannot do what is asked for.
    #[error("layer `{layer}` ({backend}): this scheme cannot {what}")]
    Incapable {
        /// Module path of the layer.
        layer: String,
        /// The backend of its scheme.
        backend: String,
        /// What it cannot do.
        what: String,
    },
    /// A scheme does not quantize dense weights.
    #[error(
        "`{scheme}` cannot quantize dense weights here; those that can: {}",
        quantizing.join(", ")
    )]
    CannotQuantize {
        /// The backend or the `quant_method`.
        scheme: String,
        /// Names of the backends that can.
        quantizing: Vec<&'static str>,
    },
    /// A dense weight does not become one of a scheme, with its settings.
    #[error("layer `{layer}` ({backend}): {reason}")]
    Quantize {
        /// Module path of the layer.
        layer: String,
        /// The backend of the scheme.
        backend: String,
        /// Why not; where it is its sizes, what was expected, and what they are.
        reason: String,
    },
    /// A changed weight cannot be written in the scheme that its layer has.
    #[error("layer `{layer}` ({backend}): {reason}")]
    Requantize {
        /// Module path of the layer.
        layer: String,
        /// The backend of its scheme.
        backend: String,
        /// Why not.
        reason: String,
    },
    /// What was seen of a layer's inputs does not do to choose its codes by.
    #[error("calibration of layer `{layer}`: {reason}")]
    Calibration {
        /// Module path of the layer.
        layer: String,
        /// What is wrong.
        reason: String,
    },
    /// A merge would round away more of what adapters change than it may.
    #[error(
        "{:.1} % of what the adapters change of {of} is in the merged weights, and at least \
         {:.1} % is asked for: the rest is too small for the numbers of the weights' scheme, and was \
         rounded away; nothing was written",
        percent(*kept), percent(*min_kept)
    )]
    LittleKept {
        /// The share of the change in the merged weights, over all layers.
        kept: f64,
        /// The least share that was asked for.
        min_kept: f64,
        /// What it is a share of: the weights, or the layers' outputs on calibration data.
        of: &'static str,
    },
    /// No registered backend claims a layer.
    #[error(
        "layer `{layer}`: no registered backend claims it (quant_method: {}, tensors: {}){}; \
         registered backends: {}",
        quant_method.as_deref().unwrap_or("none"),
        list(tensors),
        hint.map(|hint| format!(": {hint}")).unwrap_or_default(),
        registered.join(", ")
    )]
    NoBackend {
        /// Module path of the layer.
        layer: String,
        /// The checkpoint's quantization method, if its configuration names one.
        quant_method: Option<String>,
        /// The layer's tensors.
        tensors: Vec<FoundTensor>,
        /// What the tensors look like, and what to do about it.
        hint: Option<&'static str>,
        /// Names of the registered backends.
        registered: Vec<&'static str>,
    },
    /// There is no backend of a name.
    #[error("there is no backend `{name}`; registered backends: {}", registered.join(", "))]
    UnknownBackend {
        /// The name.
        name: String,
        /// Names of the registered backends.
        registered: Vec<&'static str>,
    },
    /// It is not clear which of two registered backends, architectures or families is meant.
    #[error("two {what} {reason}")]
    Duplicate {
        /// What the two are.
        what: &'static str,
        /// Why it is not clear.
        reason: String,
    },
    /// A device is unknown, or the machine has none of its kind.
    #[error("device `{name}`: {reason}")]
    Device {
        /// Its name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// Products are not computed in a dtype, or not on this device.
    #[error("compute dtype `{name}`: {reason}")]
    ComputeDtype {
        /// Its name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A backend option is unknown or malformed.
    #[error("backend option `{option}`: {reason}")]
    BackendOption {
        /// The option as given.
        option: String,
        /// What is wrong.
        reason: String,
    },
    /// An adapter does not fit the model or is of a kind that cannot be used.
    #[error("adapter {}: {reason}", path.display())]
    Adapter {
        /// The adapter's folder or file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// No layer of the model is targeted.
    #[error("target_modules {target} match no layer of the model; its layers are: {known}")]
    NoTarget {
        /// The targets as configured.
        target: String,
        /// Distinct last components of the model's layer names.
        known: String,
    },
    /// A module that is to be trained whole is not there.
    #[error("modules_to_save: `{wanted}` is no module of the model; its layers are: {known}")]
    NoModule {
        /// The name as configured.
        wanted: String,
        /// Distinct last components of the model's layer names.
        known: String,
    },
    /// No layer has an adapter of this name.
    #[error("there is no adapter `{name}`; adapters: {known}")]
    UnknownAdapter {
        /// The name.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// An adapter is not in a state in which it can be used so.
    #[error("adapter `{name}`: {reason}")]
    AdapterState {
        /// The adapter.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A name is taken, or given twice.
    #[error("adapter `{name}` exists already or is named twice; adapters: {known}")]
    DuplicateAdapter {
        /// The name.
        name: String,
        /// The names that exist.
        known: String,
    },
}

impl Error {
    /// For `map_err`: an I/O error at `path`.
    pub fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            path,
            source: Arc::new(source),
        }
    }

    /// A file whose content is wrong.
    pub fn file(path: impl Into<PathBuf>, reason: impl ToString) -> Self {
        Self::File {
            path: path.into(),
            reason: reason.to_string(),
            source: None,
        }
    }

    /// No dense weights are quantized into `scheme`.
    pub(crate) fn cannot_quantize(scheme: &str, quantizing: Vec<&'static str>) -> Self {
        Self::CannotQuantize {
            scheme: scheme.to_owned(),
            quantizing,
        }
    }

    /// Says of an error about parts which layer they are of, and whose.
    pub(crate) fn of_layer(self, layer: &str, backend: &str) -> Self {
        match self {
            Self::Weight(source) => Self::Layer {
                layer: layer.to_owned(),
                backend: backend.to_owned(),
                reason: source.to_string(),
                source: Some(source),
            },
            other => other,
        }
    }

    /// Says of an error about a layer that it came from writing it in its scheme.
    pub(crate) fn of_writing(self) -> Self {
        match self {
            Self::Layer {
                layer,
                backend,
                reason,
                ..
            } => Self::Requantize {
                layer,
                backend,
                reason,
            },
            Self::Incapable {
                layer,
                backend,
                what,
            } => Self::Requantize {
                layer,
                backend,
                reason: format!("this scheme cannot {what}"),
            },
            other => other,
        }
    }

    /// Says of an error about a layer that it came from quantizing its dense weight.
    pub(crate) fn of_quantizing(self) -> Self {
        match self.of_writing() {
            Self::Requantize {
                layer,
                backend,
                reason,
            } => Self::Quantize {
                layer,
                backend,
                reason,
            },
            other => other,
        }
    }

    /// A value that is wrong or unsupported in the configuration `file`:
    /// `Error::config(file).key(key, reason)`.
    pub fn config(file: impl Into<String>) -> InConfig {
        InConfig { file: file.into() }
    }

    /// Says of an error about a file or a configuration what its
    /// [`source`](std::error::Error::source) is; others stay as they are.
    #[must_use]
    pub fn caused_by(mut self, cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        if let Self::File { source, .. } | Self::Config { source, .. } = &mut self {
            *source = Some(Arc::new(cause));
        }
        self
    }
}

/// A share in percent, to one digit, and without a sign if that is 0.
fn percent(share: f64) -> f64 {
    (1000.0 * share).round() / 10.0 + 0.0
}

/// A configuration in which something is wrong, see [`Error::config`].
#[derive(Debug, Clone)]
pub struct InConfig {
    file: String,
}

impl InConfig {
    /// What is wrong with the value of a key.
    pub fn key(self, key: impl Into<String>, reason: impl ToString) -> Error {
        Error::Config {
            file: self.file,
            key: key.into(),
            reason: reason.to_string(),
            source: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn errors_have_a_kind_and_a_source() {
        let parse = || serde_json::from_str::<u8>("x").unwrap_err();
        let text = parse().to_string();
        let errors = [
            (
                Error::file("a", parse()).caused_by(parse()),
                ErrorKind::Invalid,
            ),
            (
                Error::config("a").key("b", parse()).caused_by(parse()),
                ErrorKind::Invalid,
            ),
            (
                Error::io("a")(std::io::Error::other(parse())),
                ErrorKind::Io,
            ),
        ];
        for (error, kind) in errors {
            assert_eq!(error.kind(), kind);
            assert_eq!(error.source().unwrap().to_string(), text);
        }
        let incapable = Error::Incapable {
            layer: "layer".into(),
            backend: "backend".into(),
            what: "fly".into(),
        }
        .of_writing();
        assert_eq!(incapable.kind(), ErrorKind::Unsupported);
        assert!(incapable.caused_by(parse()).source().is_none());
    }
}

//! Kinds of errors.

use super::Error;

/// Kinds of errors, for programs that act on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The system did not read or write.
    Io,
    /// Another process uses the folder.
    Busy,
    /// The content of a file is wrong, or stands for something that is not supported.
    Invalid,
    /// Something that is named or must be there is not.
    Missing,
    /// A scheme cannot do what is asked for.
    Unsupported,
    /// Things exclude each other.
    Conflict,
    /// The caller asked for something impossible.
    Argument,
}

impl Error {
    /// What kind of thing went wrong.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { .. } => ErrorKind::Io,
            Self::Busy { .. } => ErrorKind::Busy,
            Self::File { .. }
            | Self::Config { .. }
            | Self::Tensor { .. }
            | Self::Layer { .. }
            | Self::Weight(_)
            | Self::Calibration { .. }
            | Self::Adapter { .. } => ErrorKind::Invalid,
            Self::MissingTensor { .. }
            | Self::NoBackend { .. }
            | Self::UnknownBackend { .. }
            | Self::NoTarget { .. }
            | Self::NoModule { .. }
            | Self::UnknownAdapter { .. } => ErrorKind::Missing,
            Self::Incapable { .. }
            | Self::CannotQuantize { .. }
            | Self::Quantize { .. }
            | Self::Requantize { .. }
            | Self::LittleKept { .. } => ErrorKind::Unsupported,
            Self::Duplicate { .. } | Self::AdapterState { .. } | Self::DuplicateAdapter { .. } => {
                ErrorKind::Conflict
            }
            Self::Device { .. } | Self::ComputeDtype { .. } | Self::BackendOption { .. } => {
                ErrorKind::Argument
            }
        }
    }
}

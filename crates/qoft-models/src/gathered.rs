//! Tensors that files may have in the place of those of single layers.

use qoft_core::Checkpoint;

/// A tensor that some files have in the place of those of the model's layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gathered {
    /// The weights of all experts in one, `[experts, shares · out_features, in_features]`: for each
    /// expert those of several layers, one below the other. What belongs to it, such as scales, has a
    /// name that goes on behind a `_`.
    Experts {
        /// Name of the tensor.
        name: String,
        /// Module path of the list of experts.
        list: String,
        /// Names of the layers inside an expert.
        layers: Vec<&'static str>,
    },
    /// The weight of one layer under another name.
    Layer {
        /// Name of the tensor.
        name: String,
        /// Module path of the layer.
        path: String,
    },
}

impl Gathered {
    /// Name of the tensor.
    pub fn name(&self) -> &str {
        match self {
            Self::Experts { name, .. } | Self::Layer { name, .. } => name,
        }
    }

    /// Lets a checkpoint with such a tensor have those of the layers. What does not have the shape stays
    /// as it is.
    pub fn divide(&self, checkpoint: &mut Checkpoint) {
        match self {
            Self::Experts { name, list, layers } => {
                let found = checkpoint.starting_with(name);
                let found =
                    found.filter_map(|tensor| Some((tensor, suffix(&tensor[name.len()..])?)));
                let found: Vec<(String, String)> = found
                    .map(|(tensor, suffix)| (tensor.to_owned(), suffix))
                    .collect();
                for (tensor, suffix) in found {
                    checkpoint.divide(&tensor, layers.len(), |expert, share| {
                        format!("{list}.{expert}.{}.{suffix}", layers[share])
                    });
                }
            }
            Self::Layer { name, path } => checkpoint.rename(name, format!("{path}.weight")),
        }
    }
}

/// What a tensor of a layer is called whose name as a parameter of all experts ends so.
fn suffix(end: &str) -> Option<String> {
    match end {
        "" => Some("weight".to_owned()),
        "_bias" => Some("bias".to_owned()),
        end => end.strip_prefix('_').map(|end| format!("weight_{end}")),
    }
}

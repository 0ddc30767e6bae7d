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
        /// Whether no file has the experts one by one.
        always: bool,
    },
    /// A tensor or the tensors of a module under another name.
    Renamed {
        /// Its name or path in files.
        old: String,
        /// That in the model.
        new: String,
    },
}

impl Gathered {
    /// Whether files may have a tensor of this name in the place of others.
    pub fn stands_for(&self, tensor: &str) -> bool {
        match self {
            Self::Experts { name, .. } => tensor == name,
            Self::Renamed { old, .. } => {
                let rest = tensor.strip_prefix(old.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            }
        }
    }

    /// Lets a checkpoint with such a tensor have those of the layers. What does not have the shape stays
    /// as it is.
    pub fn divide(&self, checkpoint: &mut Checkpoint) {
        match self {
            Self::Experts {
                name, list, layers, ..
            } => {
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
            Self::Renamed { old, new } => {
                let found = checkpoint.starting_with(old);
                let found = found.filter(|tensor| self.stands_for(tensor));
                let found: Vec<String> = found.map(str::to_owned).collect();
                for tensor in found {
                    checkpoint.rename(&tensor, format!("{new}{}", &tensor[old.len()..]));
                }
            }
        }
    }
}

/// Where a tensor of an expert is in one that files have in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Place {
    /// Name of that tensor.
    pub tensor: String,
    /// How many parts stand before it.
    pub index: usize,
    /// How many parts each expert has.
    pub shares: usize,
}

impl Gathered {
    /// The list of the experts of which no file has the tensors one by one.
    pub fn list(&self) -> Option<&str> {
        match self {
            Self::Experts {
                list, always: true, ..
            } => Some(list),
            _ => None,
        }
    }

    /// The place of a tensor below the list of experts, if it has one.
    pub fn place(&self, tensor: &str) -> Option<Place> {
        let Self::Experts {
            name, list, layers, ..
        } = self
        else {
            return None;
        };
        let rest = tensor.strip_prefix(list.as_str())?.strip_prefix('.')?;
        let (expert, rest) = rest.split_once('.')?;
        let (layer, suffix) = rest.split_once('.')?;
        let share = layers.iter().position(|name| *name == layer)?;
        let end = ending(suffix)?;
        let shares = layers.len();
        Some(Place {
            tensor: format!("{name}{end}"),
            index: expert.parse::<usize>().ok()?.checked_mul(shares)? + share,
            shares,
        })
    }
}

/// How the name of a tensor ends as a parameter of all experts, from what it is called in a layer.
fn ending(suffix: &str) -> Option<String> {
    match suffix {
        "weight" => Some(String::new()),
        "bias" => Some("_bias".to_owned()),
        suffix => {
            let end = suffix.strip_prefix("weight")?;
            (end.starts_with('_') && !end.contains('.')).then(|| end.to_owned())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_of_experts_have_places() {
        let gathered = Gathered::Experts {
            name: "mlp.experts.gate_up_proj".to_owned(),
            list: "mlp.experts".to_owned(),
            layers: vec!["gate_proj", "up_proj"],
            always: false,
        };
        let place = |tensor: &str| {
            let place = gathered.place(&format!("mlp.experts.{tensor}"))?;
            Some((place.tensor, place.index))
        };
        for (tensor, end, index) in [
            ("3.up_proj.weight", "", 7),
            ("3.gate_proj.bias", "_bias", 6),
            ("0.up_proj.weight_scale_inv", "_scale_inv", 1),
        ] {
            let name = format!("mlp.experts.gate_up_proj{end}");
            assert_eq!(suffix(end).unwrap(), tensor.rsplit('.').next().unwrap());
            assert_eq!(place(tensor), Some((name, index)));
        }
        for other in [
            "3.down_proj.weight",
            "3.up_proj.weight.absmax",
            "up_proj.weight",
            "3.up_proj.qweight",
        ] {
            assert_eq!(place(other), None);
        }
        assert_eq!(gathered.list(), None);
    }
}

//! What `quantization_config` says of a checkpoint.

use qoft_scheme::{Checkpoint, Keys, LayerSource, Result};

use crate::auto_round;
use crate::scheme::WeightScheme;
use crate::targets::Target;

/// `quant_method` of such checkpoints.
pub const METHOD: &str = "compressed-tensors";
/// Where very old files have it in `config.json`.
const OLD_KEY: &str = "compression_config";
/// Formats of the library that are read; those with other names are refused.
const FORMATS: [&str; 9] = [
    "pack-quantized",
    "int-quantized",
    "float-quantized",
    "naive-quantized",
    "nvfp4-pack-quantized",
    "mxfp4-pack-quantized",
    "mxfp8-quantized",
    "mixed-precision",
    "dense",
];
/// The first release that packs codes of 3, 5, 6 and 7 bits without gaps.
const DENSE_SINCE: [u32; 2] = [0, 18];

/// The keys of a checkpoint of this scheme, wherever they are; `None` if it is of another one.
///
/// # Errors
/// If a file cannot be read.
pub fn keys(checkpoint: &Checkpoint) -> Result<Option<Keys>> {
    let keys = Keys::quantization(checkpoint, &[])?;
    match keys.method() {
        Some(method) if method == METHOD => Ok(Some(keys)),
        Some(_) => auto_round::translated(&keys),
        None if keys.all().is_some() => Ok(keys.value("config_groups").map(|_| keys.clone())),
        None => {
            let old = checkpoint.config().get(OLD_KEY);
            Ok(old.map(|old| Keys::new(OLD_KEY, old.clone())))
        }
    }
}

/// The keys that matter to a reader.
#[derive(Debug, Clone)]
pub struct Config {
    groups: Vec<Group>,
    /// The file packs codes of odd widths so that none straddles two words; `None` if it does not
    /// say which release wrote it.
    pub padded: Option<bool>,
    keys: Keys,
}

/// A group of modules that are quantized in one way.
#[derive(Debug, Clone)]
struct Group {
    targets: Vec<Target>,
    scheme: WeightScheme,
}

impl Config {
    /// Reads the keys.
    ///
    /// # Errors
    /// If a value is of the wrong kind, or stands for something that changes more than the weights.
    pub fn read(keys: Keys) -> Result<Self> {
        refuse_transforms(&keys)?;
        refuse_sparsity(&keys)?;
        check_format(&keys)?;
        let groups = keys
            .object("config_groups")
            .unwrap_or_else(|| Keys::new("config_groups", serde_json::json!({})));
        let names: Vec<String> = groups.entries().map(|(name, _)| name.to_owned()).collect();
        let read = |name: &String| {
            let group = groups.object(name);
            let group = group.ok_or_else(|| groups.error(name, "expected an object"))?;
            check_format(&group)?;
            // A group may quantize activations only.
            let Some(weights) = group.object("weights") else {
                return match group.value("weights") {
                    None => Ok(None),
                    Some(_) => Err(group.error("weights", "expected an object")),
                };
            };
            Ok(Some(Group {
                targets: Target::read(&group, "targets")?,
                scheme: WeightScheme::read(&weights)?,
            }))
        };
        let groups: Vec<Option<Group>> = names.iter().map(read).collect::<Result<_>>()?;
        Ok(Self {
            groups: groups.into_iter().flatten().collect(),
            padded: padded(&keys)?,
            keys,
        })
    }

    /// How the weights of a layer are quantized.
    ///
    /// That it is quantized at all is for its tensors to say. So a list of targets matters only where
    /// there is a choice.
    ///
    /// # Errors
    /// If there are several groups, and none of them means the layer.
    pub fn scheme(&self, layer: &LayerSource) -> Result<WeightScheme> {
        let mut best = None;
        for group in &self.groups {
            for target in &group.targets {
                let Some(fit) = target.fit(&self.keys, layer.path())? else {
                    continue;
                };
                // The last of several groups with the same target counts.
                if best.as_ref().is_none_or(|(other, _)| fit <= *other) {
                    best = Some((fit, group.scheme));
                }
            }
        }
        let first = self.groups.first().map(|group| group.scheme);
        let same = |scheme: &WeightScheme| self.groups.iter().all(|g| g.scheme == *scheme);
        let found = best.map(|(_, scheme)| scheme);
        found.or(first.filter(same)).ok_or_else(|| {
            let count = self.groups.len();
            let reason = format!(
                "none of the {count} groups has a target for `{}`",
                layer.path()
            );
            self.keys.error("config_groups", reason)
        })
    }
}

/// Whether the release that wrote the file leaves gaps between codes of odd widths.
fn padded(keys: &Keys) -> Result<Option<bool>> {
    let Some(version) = keys.get::<String>("version")? else {
        return Ok(None);
    };
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    let release = (parts.next().flatten(), parts.next().flatten());
    Ok(match release {
        (Some(major), Some(minor)) => Some([major, minor] < DENSE_SINCE),
        _ => None,
    })
}

fn check_format(keys: &Keys) -> Result<()> {
    match keys.get::<String>("format")? {
        Some(format) if !FORMATS.contains(&format.as_str()) => {
            let why = match format.as_str() {
                "marlin-24" | "sparse-bitmask" | "sparse-24-bitmask" => {
                    "sparse weights are stored in another way"
                }
                "fakequant" => "the weights were not compressed when they were saved",
                _ => "the layout is unknown",
            };
            let formats = FORMATS.join(", ");
            let reason = format!("`{format}` is not supported: {why}; supported are {formats}");
            Err(keys.error("format", reason))
        }
        _ => Ok(()),
    }
}

/// Rotations of inputs and outputs: the weights alone are then not the layer. Those that were
/// multiplied into the weights have nothing more to do.
fn refuse_transforms(keys: &Keys) -> Result<()> {
    let groups = keys.object("transform_config");
    let Some(groups) = groups.and_then(|config| config.object("config_groups")) else {
        return Ok(());
    };
    for (name, group) in groups.entries() {
        let apply = group.get("apply").and_then(|apply| apply.as_array());
        let fused = apply.is_some_and(|apply| {
            apply.iter().all(|place| {
                let location = place.get("location").and_then(|location| location.as_str());
                matches!(location, Some("weight_input" | "weight_output"))
            })
        });
        if !fused {
            let reason = "layers that transform their inputs or outputs are not supported";
            return Err(groups.error(name, reason));
        }
    }
    Ok(())
}

/// Formats that store only the weights that are not zero.
fn refuse_sparsity(keys: &Keys) -> Result<()> {
    let Some(sparsity) = keys.object("sparsity_config") else {
        return Ok(());
    };
    match sparsity.get::<String>("format")? {
        Some(format) if format != "dense" => {
            let reason = format!(
                "sparse weights in the format `{format}` are not supported; load the checkpoint with \
                 the library (before 0.15) and save it dense"
            );
            Err(sparsity.error("format", reason))
        }
        _ => Ok(()),
    }
}

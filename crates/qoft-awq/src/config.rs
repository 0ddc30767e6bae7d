//! What a checkpoint says of its quantization.

use qoft_scheme::{Error, Keys, ModuleRules, Result};

/// Spellings of the size of groups.
const GROUP_SIZE: [&str; 2] = ["group_size", "q_group_size"];
/// Spellings of the arrangement of codes.
const VERSION: [&str; 3] = ["version", "checkpoint_format", "format"];

/// What AutoRound calls itself.
const AUTO_ROUND: [&str; 2] = ["auto-round", "intel/auto-round"];

/// The keys of the configuration that matter to a reader.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AwqConfig {
    /// How the codes are arranged, unless the configuration is silent.
    pub version: Option<AwqVersion>,
    /// Whether zero points are others than the middle of the range; only for quantizing.
    pub zero_point: bool,
    group_size: Option<usize>,
    rules: ModuleRules,
    keys: Keys,
}

/// How the codes are arranged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AwqVersion {
    /// Packed along the outputs, interleaved.
    Gemm,
    /// Packed along the input channels, in their order.
    Gemv,
}

impl AwqConfig {
    /// Reads the configuration; without one everything has its default.
    ///
    /// # Errors
    /// If a value is of the wrong kind, or stands for a layout that is not supported.
    pub fn read(keys: Keys) -> Result<Self> {
        match keys.first::<u64>(&["bits", "w_bit"])? {
            None | Some((_, 4)) => {}
            Some((key, bits)) => {
                let reason = format!("a width of {bits} bits is not supported; supported is 4");
                return Err(keys.error(key, reason));
            }
        }
        if let Some((key, backend)) = keys.first::<String>(&["backend"])?
            && backend.eq_ignore_ascii_case("llm-awq")
        {
            return Err(unsupported(&keys, key, &backend));
        }
        Ok(Self {
            version: version(&keys)?,
            zero_point: keys.flag("zero_point", true)?,
            group_size: keys.group_size(&GROUP_SIZE)?,
            rules: match is_auto_round(&keys) {
                true => ModuleRules::by_name(&keys, "extra_config")?,
                false => ModuleRules::read(&keys)?,
            },
            keys,
        })
    }

    /// Input channels in a group where no rule says something else; [`usize::MAX`] if all are in one.
    pub fn common_group_size(&self) -> Option<usize> {
        self.group_size
    }

    /// Input channels in a group of the module at `path`; [`usize::MAX`] if all are in one.
    ///
    /// # Errors
    /// If a rule for it has a wrong value.
    pub fn group_size(&self, path: &str) -> Result<Option<usize>> {
        let own = self.rules.of(&self.keys, path)?;
        let own = own.map(|keys| keys.group_size(&GROUP_SIZE)).transpose()?;
        Ok(own.flatten().or(self.group_size))
    }
}

/// Whether AutoRound wrote the checkpoint, and in the layout of this scheme.
pub fn is_auto_round(keys: &Keys) -> bool {
    let named = |method: String| AUTO_ROUND.contains(&method.as_str());
    let packing = keys.first::<String>(&["packing_format", "backend"]);
    let packed = |(_, packing): (&str, String)| packing.to_lowercase().contains("awq");
    keys.method().is_some_and(named) && packing.ok().flatten().is_some_and(packed)
}

fn version(keys: &Keys) -> Result<Option<AwqVersion>> {
    let Some((key, name)) = keys.first::<String>(&VERSION)? else {
        return Ok(None);
    };
    match name.to_lowercase().as_str() {
        "gemm" => Ok(Some(AwqVersion::Gemm)),
        "gemv" => Ok(Some(AwqVersion::Gemv)),
        // Kernels that take the weights as they are in the file.
        "exllama" | "ipex" => Ok(None),
        _ => Err(unsupported(keys, key, &name)),
    }
}

fn unsupported(keys: &Keys, key: &str, version: &str) -> Error {
    let why = match version.to_lowercase().as_str() {
        "gemv_fast" | "llm-awq" => "four rows are interleaved, and zero points are scaled floats",
        "marlin" => "the weights are arranged for a single GPU kernel",
        _ => "the layout is unknown",
    };
    let reason = format!("`{version}` is not supported: {why}; supported are gemm and gemv");
    keys.error(key, reason)
}

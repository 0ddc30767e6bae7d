//! What a checkpoint says of its quantization.

use qoft_scheme::{Error, Keys, ModuleRules, Result};
use serde_json::Value;

/// Widths of codes that can be read.
pub const SUPPORTED_BITS: [usize; 4] = [2, 3, 4, 8];
/// Those of AutoRound, which stores the others as a stream as well, and names layers that are dense.
const AUTO_ROUND_BITS: [usize; 8] = [2, 3, 4, 5, 6, 7, 8, DENSE];
/// The width of layers that are not quantized.
const DENSE: usize = 16;
/// What AutoRound calls itself.
const AUTO_ROUND: [&str; 2] = ["auto-round", "intel/auto-round"];
/// Spellings of the width of codes.
const BITS: [&str; 2] = ["bits", "w_bit"];
/// Spellings of the size of groups.
pub const GROUP_SIZE: [&str; 2] = ["group_size", "q_group_size"];

/// Spellings of whether zero points are all the middle of the range: GPTQ's, and that of
/// compressed tensors.
const SYM: [&str; 2] = ["sym", "symmetric"];

/// The keys of the configuration that matter to a reader.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GptqConfig {
    /// What holds for modules that have no rule of their own.
    pub common: ModuleConfig,
    /// What a stored zero point means.
    pub zero_points: ZeroPoints,
    /// Widths of codes that the writer packs as a stream.
    pub widths: &'static [usize],
    rules: ModuleRules,
    keys: Keys,
}

/// What holds for a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModuleConfig {
    /// Width of a code: 2, 3, 4 or 8.
    pub bits: Option<usize>,
    /// Input channels in a group; [`usize::MAX`] if all are in one.
    pub group_size: Option<usize>,
    /// Whether groups follow the activation order, so that only `g_idx` can tell them.
    pub desc_act: bool,
    /// Whether all zero points are said to be the middle of the range.
    pub sym: bool,
}

/// What a stored zero point means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ZeroPoints {
    /// The zero point less one (`gptq`).
    V1,
    /// The zero point (`gptq_v2`).
    V2,
}

impl ZeroPoints {
    /// The name in `checkpoint_format`.
    pub fn name(self) -> &'static str {
        match self {
            Self::V1 => "gptq",
            Self::V2 => "gptq_v2",
        }
    }
}

impl GptqConfig {
    /// Reads the configuration; without one everything has its default.
    ///
    /// # Errors
    /// If a value is of the wrong kind, or stands for a layout that is not supported.
    pub fn read(keys: Keys) -> Result<Self> {
        refuse_repacked(&keys)?;
        refuse_changed_inputs(&keys)?;
        let (zero_points, rules) = match is_auto_round(&keys) {
            true => (
                auto_round_zero_points(&keys)?,
                ModuleRules::by_name(&keys, "extra_config")?,
            ),
            false => (zero_points(&keys)?, ModuleRules::read(&keys)?),
        };
        let widths = widths(&keys);
        Ok(Self {
            common: ModuleConfig::read(&keys, None, widths)?,
            zero_points,
            rules,
            widths,
            keys,
        })
    }

    /// The rules for single modules, as the configuration has them.
    pub fn dynamic(&self) -> Option<&Value> {
        self.keys.value("dynamic")
    }

    /// Whether a rule leaves the module at `path` dense.
    ///
    /// # Errors
    /// If it takes too long to tell.
    pub fn leaves_dense(&self, path: &str) -> Result<bool> {
        self.rules.leave_dense(&self.keys, path)
    }

    /// What holds for the module at `path`.
    ///
    /// # Errors
    /// If a rule for it has a wrong value.
    pub fn module(&self, path: &str) -> Result<ModuleConfig> {
        match self.rules.of(&self.keys, path)? {
            None => Ok(self.common),
            Some(keys) => ModuleConfig::read(keys, Some(&self.common), self.widths),
        }
    }
}

impl ModuleConfig {
    /// Reads the keys; those that are absent have the values of `common` or their defaults.
    fn read(keys: &Keys, common: Option<&Self>, widths: &[usize]) -> Result<Self> {
        Ok(Self {
            bits: bits(keys, widths)?.or(common.and_then(|common| common.bits)),
            group_size: keys
                .group_size(&GROUP_SIZE)?
                .or(common.and_then(|common| common.group_size)),
            desc_act: keys.flag("desc_act", common.is_some_and(|common| common.desc_act))?,
            sym: keys
                .first(&SYM)?
                .map_or(common.is_none_or(|common| common.sym), |(_, sym)| sym),
        })
    }
}

/// Whether AutoRound wrote the checkpoint.
pub fn is_auto_round(keys: &Keys) -> bool {
    keys.method()
        .is_some_and(|method| AUTO_ROUND.contains(&method.as_str()))
}

/// Widths of codes that the writer packs as a stream.
fn widths(keys: &Keys) -> &'static [usize] {
    match is_auto_round(keys) {
        true => &AUTO_ROUND_BITS,
        false => &SUPPORTED_BITS,
    }
}

/// How AutoRound says that it packed codes; very old files say it where the kernel is named.
pub fn auto_round_packing(keys: &Keys) -> Result<String> {
    let packing = keys.first::<String>(&["packing_format", "backend"])?;
    Ok(packing.map_or_else(String::new, |(_, packing)| packing.to_lowercase()))
}

/// What AutoRound's stored zero points mean.
fn auto_round_zero_points(keys: &Keys) -> Result<ZeroPoints> {
    let packing = auto_round_packing(keys)?;
    let plain = packing == "auto_round" || packing.contains("gptqmodel");
    Ok(match plain {
        true => ZeroPoints::V2,
        false => ZeroPoints::V1,
    })
}

fn bits(keys: &Keys, widths: &[usize]) -> Result<Option<usize>> {
    match keys.first::<usize>(&BITS)? {
        Some((key, bits)) if !widths.contains(&bits) => {
            Err(keys.error(key, unsupported_bits(bits)))
        }
        found => Ok(found.map(|(_, bits)| bits).filter(|&bits| bits != DENSE)),
    }
}

/// Why layers of such a width cannot be read.
pub fn unsupported_bits(bits: usize) -> String {
    let why = match bits {
        5..=7 => " because it is stored in bit planes",
        _ => "",
    };
    format!("a width of {bits} bits is not supported{why}; supported are 2, 3, 4 and 8")
}

/// What a stored zero point means.
pub fn zero_points(keys: &Keys) -> Result<ZeroPoints> {
    let Some((key, format)) = keys.first::<String>(&["checkpoint_format", "format"])? else {
        return Ok(ZeroPoints::V1);
    };
    match format.to_lowercase().as_str() {
        "gptq" => Ok(ZeroPoints::V1),
        "gptq_v2" => Ok(ZeroPoints::V2),
        _ => Err(unsupported_format(keys, key, &format)),
    }
}

/// Marlin files have names of their own for what they are.
fn refuse_repacked(keys: &Keys) -> Result<()> {
    if keys.flag("is_marlin_format", false)? {
        return Err(unsupported_format(keys, "is_marlin_format", "marlin"));
    }
    match keys.get::<String>("quant_method")? {
        Some(method) if method.eq_ignore_ascii_case("marlin") => {
            Err(unsupported_format(keys, "quant_method", &method))
        }
        _ => Ok(()),
    }
}

fn unsupported_format(keys: &Keys, key: &str, format: &str) -> Error {
    let why = match format.to_lowercase().as_str() {
        "marlin" | "bitblas" | "exllama" | "exllamav2" => {
            "the weights are arranged for a single GPU kernel"
        }
        "gptq_p" => "the codes are stored in bit planes",
        _ => "the layout is unknown",
    };
    let reason = format!("`{format}` is not supported: {why}; supported are gptq and gptq_v2");
    keys.error(key, reason)
}

/// GPTQModel can turn or quantize what goes into the layers. The weights alone are then not the
/// layer.
fn refuse_changed_inputs(keys: &Keys) -> Result<()> {
    let refused = [
        (
            "rotation",
            "some layers transform their input (Hadamard matrix)",
        ),
        ("activation", "layers quantize their input"),
        (
            "rotation_config",
            "some layers transform their input (Hadamard matrix)",
        ),
    ];
    for (key, why) in refused {
        let value = keys.value(key);
        if let Some(value) = value.filter(|value| **value != Value::Bool(false)) {
            let reason = format!("{value} is not supported: {why}");
            return Err(keys.error(key, reason));
        }
    }
    Ok(())
}

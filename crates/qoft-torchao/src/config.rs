//! `quantization_config`: how the library quantizes, as transformers' `TorchAoConfig` writes it.

use qoft_scheme::{Keys, Result};
use serde_json::{Value, json};

use crate::description::{DATA, Kind, TYPE, torch_dtype, width_of};
use crate::grid::Mapping;
use crate::tiles;

/// `quant_method` of such checkpoints.
pub const METHOD: &str = "torchao";
/// The key of the library's configuration.
pub const QUANT_TYPE: &str = "quant_type";
/// Which weights share a scale: `per_row`, `per_tensor` or `per_group`.
pub const GRANULARITY: &str = "granularity";
/// Weights that share a scale.
pub const GROUP_SIZE: &str = "group_size";
/// The integers of `intx_weight_only`.
pub const WEIGHT_DTYPE: &str = "weight_dtype";
/// How their zero points are chosen.
pub const MAPPING: &str = "mapping_type";
/// The list of modules that stay dense.
pub const SKIPS: &str = "modules_to_not_convert";
/// Whether the output head is quantized as well.
pub const WITH_HEAD: &str = "include_input_output_embeddings";

/// How 4-bit codes are packed.
pub const PACKING: &str = "int4_packing_format";
/// To a multiple of how many rows tiles are filled up.
const TILE_ROWS: &str = "int4_tile_packed_ntile";

/// Short names of the configurations, and the library's.
const NAMES: [(&str, &str); 4] = [
    ("int8_weight_only", "Int8WeightOnlyConfig"),
    ("float8_weight_only", "Float8WeightOnlyConfig"),
    ("int4_weight_only", "Int4WeightOnlyConfig"),
    ("intx_weight_only", "IntxWeightOnlyConfig"),
];
/// How 4-bit codes lie in the files.
const PACKINGS: [(&str, Kind); 2] = [
    ("PLAIN", Kind::Int4),
    ("TILE_PACKED_TO_4D", Kind::Int4Tiles),
];
const MAPPINGS: [(&str, Mapping); 3] = [
    ("SYMMETRIC", Mapping::Symmetric),
    ("SYMMETRIC_NO_CLIPPING_ERR", Mapping::NoClipping),
    ("ASYMMETRIC", Mapping::Asymmetric),
];
/// The group of 4-bit codes unless another one is given.
const INT4_GROUP: usize = 128;

/// Which weights share a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Granularity {
    /// Those of a row.
    Row,
    /// All of them.
    Tensor,
    /// So many beside each other in a row.
    Group(usize),
}

/// The library's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeightOnly {
    /// The tensor type that it makes.
    pub kind: Kind,
    /// Which weights share a scale.
    pub granularity: Granularity,
    /// Zero points of integers.
    pub mapping: Mapping,
}

impl WeightOnly {
    /// Reads the short name of a configuration under [`QUANT_TYPE`], and the other settings beside it.
    ///
    /// # Errors
    /// If it is of another kind, or has a value that the library does not have.
    pub fn beside(keys: &Keys) -> Result<Self> {
        let name = keys.get::<String>(QUANT_TYPE)?;
        let name = name.as_deref().unwrap_or(NAMES[0].0);
        Self::of(name, keys, keys, QUANT_TYPE)
    }

    /// Reads the library's configuration, an object of its name and its settings.
    ///
    /// # Errors
    /// As [`Self::beside`].
    pub fn read(object: &Keys) -> Result<Self> {
        let name = object.get::<String>(TYPE)?.unwrap_or_default();
        Self::of(&name, &inside(object)?, object, TYPE)
    }

    /// That of a name, with the other settings in `data`. Errors about the name are those of `named`.
    fn of(name: &str, data: &Keys, named: &Keys, key: &str) -> Result<Self> {
        let found = NAMES
            .iter()
            .find(|(short, long)| [*short, *long].contains(&name));
        let kind = match found.map(|(short, _)| *short) {
            Some("int8_weight_only") => Kind::Int8 { reduced: false },
            Some("float8_weight_only") => float8(data)?,
            Some("int4_weight_only") => int4(data)?,
            Some(_) => Kind::Intx(width(data)?),
            None => {
                let names: Vec<&str> = NAMES.iter().map(|(short, _)| *short).collect();
                let reason = format!(
                    "{name} is not supported: weights alone are quantized here; choose {}",
                    names.join(", ")
                );
                return Err(named.error(key, reason));
            }
        };
        let mapping = match kind {
            Kind::Intx(_) => mapping(data)?,
            _ => Mapping::Symmetric,
        };
        Ok(Self {
            kind,
            granularity: granularity(data, kind)?,
            mapping,
        })
    }

    /// Rows and columns that share a scale, in a weight of this shape.
    pub fn blocks(self, [n, k]: [usize; 2]) -> [usize; 2] {
        match self.granularity {
            Granularity::Row => [1, k],
            Granularity::Tensor => [n, k],
            Granularity::Group(size) => [1, size],
        }
    }

    /// As the library writes it.
    pub fn to_json(self) -> Value {
        let object = |name: &str, data: Value| json!({TYPE: name, "_version": 1, DATA: data});
        let granularity = match (self.granularity, self.kind) {
            (Granularity::Row, Kind::Intx(_)) => object("PerAxis", json!({"axis": 0})),
            (Granularity::Row, _) => object("PerRow", json!({"dim": -1})),
            (Granularity::Tensor, _) => object("PerTensor", json!({})),
            (Granularity::Group(size), _) => object("PerGroup", json!({GROUP_SIZE: size})),
        };
        let one = |name: &str, value: &str| json!({TYPE: name, DATA: value});
        let (name, data) = match self.kind {
            Kind::Int8 { .. } => (
                "Int8WeightOnlyConfig",
                json!({GROUP_SIZE: null, GRANULARITY: granularity, "set_inductor_config": true}),
            ),
            Kind::Float8 => (
                "Float8WeightOnlyConfig",
                json!({
                    WEIGHT_DTYPE: one("torch.dtype", "float8_e4m3fn"),
                    "set_inductor_config": true,
                    GRANULARITY: granularity,
                }),
            ),
            Kind::Intx(bits) => (
                "IntxWeightOnlyConfig",
                json!({
                    WEIGHT_DTYPE: one("torch.dtype", &format!("int{bits}")),
                    GRANULARITY: granularity,
                    MAPPING: one("MappingType", self.mapping_name()),
                    "scale_dtype": null,
                    "intx_packing_format": one("IntxPackingFormat", "UNPACKED_TO_INT8"),
                    "intx_choose_qparams_algorithm": one("IntxChooseQParamsAlgorithm", "AFFINE"),
                }),
            ),
            Kind::Int4 | Kind::Int4Tiles => (
                "Int4WeightOnlyConfig",
                json!({
                    GROUP_SIZE: self.blocks([1, 1])[1],
                    "set_inductor_config": true,
                    PACKING: one("Int4PackingFormat", packing_name(self.kind)),
                    "int4_choose_qparams_algorithm": one("Int4ChooseQParamsAlgorithm", "TINYGEMM"),
                    TILE_ROWS: tiles::ROWS,
                }),
            ),
        };
        json!({TYPE: name, "_version": 2, DATA: data})
    }

    /// Whether the library quantizes a weight with so many input features; it leaves 4-bit codes out where
    /// they would not be whole groups.
    pub fn takes(self, in_features: usize) -> bool {
        match (self.kind, self.granularity) {
            (Kind::Int4 | Kind::Int4Tiles, Granularity::Group(size)) => {
                in_features.is_multiple_of(size)
            }
            _ => true,
        }
    }

    fn mapping_name(self) -> &'static str {
        let found = MAPPINGS
            .iter()
            .find(|(_, mapping)| *mapping == self.mapping);
        found.map_or(MAPPINGS[0].0, |(name, _)| *name)
    }
}

/// The text of a value of an enumeration: alone, or in the library's object.
fn word(keys: &Keys, key: &str) -> Result<Option<String>> {
    torch_dtype(keys, key)
}

fn refuse_other(keys: &Keys, key: &str, only: &str) -> Result<()> {
    match word(keys, key)? {
        Some(found) if !found.eq_ignore_ascii_case(only) => {
            Err(keys.error(key, format!("expected {only}, found {found}")))
        }
        _ => Ok(()),
    }
}

fn float8(keys: &Keys) -> Result<Kind> {
    refuse_other(keys, WEIGHT_DTYPE, "float8_e4m3fn")?;
    Ok(Kind::Float8)
}

fn int4(keys: &Keys) -> Result<Kind> {
    refuse_other(keys, "int4_choose_qparams_algorithm", "TINYGEMM")?;
    let rows = keys.get::<usize>(TILE_ROWS)?.unwrap_or(tiles::ROWS);
    let Some(name) = word(keys, PACKING)? else {
        return Ok(Kind::Int4);
    };
    let found = PACKINGS
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(&name));
    match found {
        Some((_, Kind::Int4Tiles)) if rows != tiles::ROWS => {
            let reason = format!("expected {}, found {rows}", tiles::ROWS);
            Err(keys.error(TILE_ROWS, reason))
        }
        Some((_, kind)) => Ok(*kind),
        None => {
            let names = PACKINGS.map(|(name, _)| name).join(" or ");
            Err(keys.error(PACKING, format!("expected {names}, found {name}")))
        }
    }
}

fn packing_name(kind: Kind) -> &'static str {
    let found = PACKINGS.iter().find(|(_, packed)| *packed == kind);
    found.map_or(PACKINGS[0].0, |(name, _)| *name)
}

/// The settings of one of the library's objects.
///
/// # Errors
/// If it has none.
pub fn inside(object: &Keys) -> Result<Keys> {
    let data = object.object(DATA);
    data.ok_or_else(|| object.error(DATA, "expected an object"))
}

fn width(keys: &Keys) -> Result<u32> {
    refuse_other(keys, "intx_packing_format", "UNPACKED_TO_INT8")?;
    refuse_other(keys, "intx_choose_qparams_algorithm", "AFFINE")?;
    if keys.value("scale_dtype").is_some() {
        return Err(keys.error("scale_dtype", "scales have the dtype of the model"));
    }
    let name = word(keys, WEIGHT_DTYPE)?;
    let name = name.as_deref().unwrap_or("int8");
    let reason = || keys.error(WEIGHT_DTYPE, format!("expected int1 to int8, found {name}"));
    width_of(name).ok_or_else(reason)
}

fn mapping(keys: &Keys) -> Result<Mapping> {
    let Some(name) = word(keys, MAPPING)? else {
        return Ok(Mapping::Symmetric);
    };
    let found = MAPPINGS
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(&name));
    found.map(|(_, mapping)| *mapping).ok_or_else(|| {
        let names = MAPPINGS.map(|(name, _)| name).join(" or ");
        keys.error(MAPPING, format!("expected {names}, found {name}"))
    })
}

fn granularity(keys: &Keys, kind: Kind) -> Result<Granularity> {
    let group = |keys: &Keys| match keys.get::<usize>(GROUP_SIZE)? {
        Some(0) => Err(keys.error(GROUP_SIZE, "expected more than 0, found 0")),
        size => Ok(size),
    };
    let beside = group(keys)?;
    if matches!(kind, Kind::Int4 | Kind::Int4Tiles) {
        let size = beside.unwrap_or(INT4_GROUP);
        let reason = match kind {
            Kind::Int4Tiles if !tiles::WHOLE.is_multiple_of(size) => {
                format!("expected a part of {}, found {size}", tiles::WHOLE)
            }
            _ if !size.is_multiple_of(2) => format!("expected an even size, found {size}"),
            _ => return Ok(Granularity::Group(size)),
        };
        return Err(keys.error(GROUP_SIZE, reason));
    }
    let (name, inside) = match keys.object(GRANULARITY) {
        Some(object) => {
            let name = object.get::<String>(TYPE)?.unwrap_or_default();
            let inside = object.object(DATA);
            (name, inside.as_ref().map(group).transpose()?.flatten())
        }
        None => {
            let default = if beside.is_some() {
                "per_group"
            } else {
                "per_row"
            };
            let name = keys.get::<String>(GRANULARITY)?;
            (name.unwrap_or_else(|| default.to_owned()), beside)
        }
    };
    match (name.as_str(), inside) {
        ("PerRow" | "PerAxis" | "per_row" | "per_axis", _) => Ok(Granularity::Row),
        ("PerTensor" | "per_tensor", _) if !matches!(kind, Kind::Intx(_)) => {
            Ok(Granularity::Tensor)
        }
        ("PerGroup" | "per_group", Some(size)) => Ok(Granularity::Group(size)),
        ("PerGroup" | "per_group", None) => Err(keys.error(GROUP_SIZE, "groups need a size")),
        (name, _) => {
            let reason =
                format!("expected per_row, per_group or, but for intx, per_tensor; found {name}");
            Err(keys.error(GRANULARITY, reason))
        }
    }
}

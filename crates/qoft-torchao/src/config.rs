//! `quantization_config`: how the library quantizes, as transformers' `TorchAoConfig` writes it.

use qoft_scheme::{Keys, Result};
use serde_json::{Value, json};

use crate::description::{Kind, torch_dtype, width_of};
use crate::grid::Mapping;

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

/// Short names of the configurations, and the library's.
const NAMES: [(&str, &str); 4] = [
    ("int8_weight_only", "Int8WeightOnlyConfig"),
    ("float8_weight_only", "Float8WeightOnlyConfig"),
    ("int4_weight_only", "Int4WeightOnlyConfig"),
    ("intx_weight_only", "IntxWeightOnlyConfig"),
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
    /// Reads the configuration: the library's own under [`QUANT_TYPE`], or its name there and the other
    /// settings beside it.
    ///
    /// # Errors
    /// If it is of another kind, or has a value that the library does not have.
    pub fn read(keys: &Keys) -> Result<Self> {
        let Some(types) = keys.object(QUANT_TYPE) else {
            let name = keys.get::<String>(QUANT_TYPE)?;
            return Self::of(
                name.as_deref().unwrap_or(NAMES[0].0),
                keys,
                keys,
                QUANT_TYPE,
            );
        };
        // The configuration of all layers.
        let only = types.object("default").unwrap_or(types);
        let name = only.get::<String>("_type")?.unwrap_or_default();
        let data = only.object("_data");
        let data = data.ok_or_else(|| only.error("_data", "expected an object"))?;
        Self::of(&name, &data, &only, "_type")
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
                    "{name} is not supported: weights alone are quantized here, all layers in one way; \
                     choose {}",
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
        let object = |name: &str, data: Value| json!({"_type": name, "_version": 1, "_data": data});
        let granularity = match (self.granularity, self.kind) {
            (Granularity::Row, Kind::Intx(_)) => object("PerAxis", json!({"axis": 0})),
            (Granularity::Row, _) => object("PerRow", json!({"dim": -1})),
            (Granularity::Tensor, _) => object("PerTensor", json!({})),
            (Granularity::Group(size), _) => object("PerGroup", json!({GROUP_SIZE: size})),
        };
        let one = |name: &str, value: &str| json!({"_type": name, "_data": value});
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
                    "int4_packing_format": one("Int4PackingFormat", "PLAIN"),
                    "int4_choose_qparams_algorithm": one("Int4ChooseQParamsAlgorithm", "TINYGEMM"),
                    "int4_tile_packed_ntile": 8,
                }),
            ),
        };
        json!({"default": {"_type": name, "_version": 2, "_data": data}})
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
    refuse_other(keys, "int4_packing_format", "PLAIN")?;
    refuse_other(keys, "int4_choose_qparams_algorithm", "TINYGEMM")?;
    Ok(Kind::Int4)
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
    if kind == Kind::Int4 {
        let size = beside.unwrap_or(INT4_GROUP);
        return match size.is_multiple_of(2) {
            true => Ok(Granularity::Group(size)),
            false => Err(keys.error(GROUP_SIZE, format!("expected an even size, found {size}"))),
        };
    }
    let (name, inside) = match keys.object(GRANULARITY) {
        Some(object) => {
            let name = object.get::<String>("_type")?.unwrap_or_default();
            let inside = object.object("_data");
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

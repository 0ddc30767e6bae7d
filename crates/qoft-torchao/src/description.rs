//! What the metadata of the files says of a parameter: the library's tensor type and its attributes.

use qoft_scheme::kernels::FloatFormat;
use qoft_scheme::{Keys, LayerSource, Result};
use serde_json::{Value, json};

/// The key of the list of all parameters.
pub const TENSOR_NAMES: &str = "tensor_names";
/// The parameter of a layer.
pub const WEIGHT: &str = "weight";
/// The name of one of the library's objects.
pub const TYPE: &str = "_type";
/// What it is made of.
pub const DATA: &str = "_data";
/// The widths that integers of their own tensor type have.
const WIDTHS: [(&str, u32); 8] = [
    ("int1", 1),
    ("int2", 2),
    ("int3", 3),
    ("int4", 4),
    ("int5", 5),
    ("int6", 6),
    ("int7", 7),
    ("int8", 8),
];

/// The library's tensor types that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `Int8Tensor`; with a range of 7 bits where `reduced`.
    Int8 {
        /// Codes from −64 to 63.
        reduced: bool,
    },
    /// `Float8Tensor`.
    Float8,
    /// `IntxUnpackedToInt8Tensor`: integers of so many bits, one in a byte.
    Intx(u32),
    /// `Int4Tensor`: two codes in a byte.
    Int4,
    /// `Int4TilePackedTo4dTensor`: eight codes in a word, in the order of a GPU's tiles.
    Int4Tiles,
}

impl Kind {
    /// The name of the type.
    pub fn name(self) -> &'static str {
        match self {
            Self::Int8 { .. } => "Int8Tensor",
            Self::Float8 => "Float8Tensor",
            Self::Intx(_) => "IntxUnpackedToInt8Tensor",
            Self::Int4 => "Int4Tensor",
            Self::Int4Tiles => "Int4TilePackedTo4dTensor",
        }
    }

    /// The smallest and the largest code of integers.
    pub fn range(self) -> [f32; 2] {
        let bits = match self {
            Self::Int8 { reduced: true } => 7,
            Self::Intx(bits) => bits,
            Self::Int4 | Self::Int4Tiles => 4,
            Self::Int8 { .. } | Self::Float8 => 8,
        };
        let half = (1u32 << (bits - 1)) as f32;
        [-half, half - 1.0]
    }
}

/// What a layer's weight is.
#[derive(Debug, Clone)]
pub struct Description {
    /// The tensor type.
    pub kind: Kind,
    /// Rows and columns that share a scale.
    pub blocks: [usize; 2],
    /// The dtype of the dense weight, where it does not follow from the scales.
    pub format: Option<FloatFormat>,
    /// `[out_features, in_features]`, where codes are padded.
    pub shape: Option<[usize; 2]>,
}

impl Description {
    /// Whether the files say that a layer's weight is more than a plain tensor.
    pub fn is_there(layer: &LayerSource) -> bool {
        let text = layer.metadata(WEIGHT);
        let value = text.and_then(|text| serde_json::from_str::<Value>(text).ok());
        let name = value.as_ref().and_then(|value| value.get(TYPE)?.as_str());
        name.is_some_and(|name| name != "Tensor")
    }

    /// Reads what the files say of a layer's weight.
    ///
    /// # Errors
    /// If they say nothing, or something else than the supported types.
    pub fn read(layer: &LayerSource) -> Result<Self> {
        let Some(text) = layer.metadata(WEIGHT) else {
            let reason = format!(
                "the files' `__metadata__` does not say what `{}.{WEIGHT}` is; a program that rewrote \
                 them has dropped it: use the files as transformers saved them",
                layer.path()
            );
            return Err(layer.error(reason));
        };
        let name = format!("`__metadata__` of `{}.{WEIGHT}`", layer.path());
        let value: Value =
            serde_json::from_str(text).map_err(|e| layer.error(format!("{name}: {e}")))?;
        let keys = Keys::new(name, value);
        let data = keys.object(DATA);
        let data = data.ok_or_else(|| keys.error(DATA, "expected an object"))?;
        let kind = match keys.get::<String>(TYPE)?.as_deref() {
            Some("Int8Tensor") => Kind::Int8 {
                reduced: data.flag("reduce_range", false)?,
            },
            Some("Float8Tensor") => Kind::Float8,
            Some("IntxUnpackedToInt8Tensor") => Kind::Intx(width(&data)?),
            Some("Int4Tensor") => Kind::Int4,
            Some("Int4TilePackedTo4dTensor") => Kind::Int4Tiles,
            found => {
                let found = found.unwrap_or("nothing");
                let reason = format!(
                    "{found} is not supported; supported are Int8Tensor, Float8Tensor, \
                     IntxUnpackedToInt8Tensor, Int4Tensor and Int4TilePackedTo4dTensor"
                );
                return Err(keys.error(TYPE, reason));
            }
        };
        let blocks = sizes(&data, "block_size")?;
        let blocks = blocks.ok_or_else(|| data.error("block_size", "expected two sizes"))?;
        Ok(Self {
            kind,
            blocks,
            format: dtype(&data)?,
            shape: sizes(&data, "shape")?,
        })
    }

    /// As the library writes it, for a weight with blocks of these sizes.
    pub fn text(kind: Kind, blocks: [usize; 2], shape: [usize; 2], format: FloatFormat) -> String {
        let torch = |name: &str| json!({TYPE: "torch.dtype", DATA: name});
        let dtype = torch(format.torch_name());
        let (data, names) = match kind {
            Kind::Int8 { reduced } => (
                json!({
                    "act_quant_kwargs": null,
                    "reduce_range": reduced,
                    "block_size": blocks,
                    "dtype": dtype,
                }),
                json!(["zero_point", "qdata", "scale"]),
            ),
            Kind::Float8 => (
                json!({
                    "block_size": blocks,
                    "mm_config": null,
                    "act_quant_kwargs": null,
                    "kernel_preference": {TYPE: "KernelPreference", DATA: "AUTO"},
                    "dtype": dtype,
                }),
                json!(["qdata", "scale"]),
            ),
            Kind::Intx(bits) => (
                json!({
                    "target_dtype": torch(&format!("int{bits}")),
                    "block_size": blocks,
                    "dtype": dtype,
                    "activation_quantization": null,
                }),
                json!(["qdata", "scale", "zero_point"]),
            ),
            Kind::Int4Tiles => (
                json!({"block_size": blocks, "shape": shape}),
                json!(["qdata", "scale_and_zero"]),
            ),
            Kind::Int4 => (
                json!({
                    "activation_dtype": torch("bfloat16"),
                    "block_size": blocks,
                    "shape": shape,
                }),
                json!(["qdata", "scale", "zero_point"]),
            ),
        };
        json!({TYPE: kind.name(), DATA: data, "_tensor_data_names": names}).to_string()
    }

    /// What the library writes of a plain tensor.
    pub fn plain() -> String {
        json!({TYPE: "Tensor"}).to_string()
    }
}

/// Two sizes, both of which are positive.
fn sizes(keys: &Keys, key: &str) -> Result<Option<[usize; 2]>> {
    match keys.get::<Vec<usize>>(key)?.as_deref() {
        None => Ok(None),
        Some(&[rows, columns]) if rows > 0 && columns > 0 => Ok(Some([rows, columns])),
        Some(found) => {
            Err(keys.error(key, format!("expected two positive sizes, found {found:?}")))
        }
    }
}

/// The name of a torch dtype under a key.
pub fn torch_dtype(keys: &Keys, key: &str) -> Result<Option<String>> {
    match keys.value(key) {
        Some(Value::Object(_)) => match keys.object(key) {
            Some(inside) => inside.get(DATA),
            None => Ok(None),
        },
        _ => keys.get(key),
    }
}

/// The width of integers.
fn width(keys: &Keys) -> Result<u32> {
    const KEY: &str = "target_dtype";
    let name = torch_dtype(keys, KEY)?.unwrap_or_default();
    width_of(&name).ok_or_else(|| keys.error(KEY, format!("expected int1 to int8, found {name}")))
}

/// The bits of a torch dtype of integers.
pub fn width_of(name: &str) -> Option<u32> {
    let found = WIDTHS.iter().find(|(known, _)| *known == name);
    found.map(|&(_, bits)| bits)
}

/// The dtype of the dense weight.
fn dtype(keys: &Keys) -> Result<Option<FloatFormat>> {
    const KEY: &str = "dtype";
    let Some(name) = torch_dtype(keys, KEY)? else {
        return Ok(None);
    };
    let found = FloatFormat::ALL
        .into_iter()
        .find(|format| format.torch_name() == name);
    let reason = || {
        keys.error(
            KEY,
            format!("expected float32, float16 or bfloat16, found {name}"),
        )
    };
    found.map(Some).ok_or_else(reason)
}

//! The settings of a layer: numbers and strings, stored as tensors.

use qoft_scheme::{Dtype, LayerSource, Result, TensorView, dtype_name};

/// What a layer says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LayerConfig {
    /// `[out_features, in_features]`.
    pub shape: [usize; 2],
    /// Weights that share a scale and a zero point.
    pub group_size: usize,
    /// Which weights these are.
    pub axis: Axis,
    /// How the codes are stored.
    pub packing: Packing,
    /// Whether the codes may be stored as the bytes of floats.
    pub view_as_float: bool,
    /// Name of the number format, for `qoft inspect`.
    pub format: &'static str,
}

/// How the flattened weight is cut into groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Axis {
    /// Groups take turns: a group is a column of the weight reshaped to `[group_size, groups]`.
    Columns,
    /// Groups follow each other: a group is a row of the weight reshaped to
    /// `[groups, group_size]`.
    Rows,
}

/// How many codes share a word, and where they come from: the rows of the reshaped weight are cut
/// into as many blocks, and the first block has the most significant bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Packing {
    /// A byte for each code, of 5, 6 or 8 bits.
    EightBits,
    /// Two in a byte.
    FourBits,
    /// Ten in a word of 32 bits, whose two highest are free.
    ThreeBits,
    /// Four in a byte, of 2 or (three values) 1.58 bits.
    TwoBits,
    /// Eight in a byte.
    OneBit,
}

impl Packing {
    const ALL: [Self; 5] = [
        Self::EightBits,
        Self::FourBits,
        Self::ThreeBits,
        Self::TwoBits,
        Self::OneBit,
    ];

    /// The library's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::EightBits => "8bit_u8",
            Self::FourBits => "4bit_u8",
            Self::ThreeBits => "3bit_32",
            Self::TwoBits => "2bit_u8",
            Self::OneBit => "1bit_u8",
        }
    }

    /// Width of a stored code.
    pub fn bits(self) -> u32 {
        match self {
            Self::EightBits => 8,
            Self::FourBits => 4,
            Self::ThreeBits => 3,
            Self::TwoBits => 2,
            Self::OneBit => 1,
        }
    }

    /// Codes in a word.
    pub fn per_word(self) -> usize {
        match self {
            Self::ThreeBits => 10,
            _ => 8 / self.bits() as usize,
        }
    }

    /// Dtype of a word.
    pub fn dtype(self) -> Dtype {
        match self {
            Self::ThreeBits => Dtype::I32,
            _ => Dtype::U8,
        }
    }
}

/// What `nbits` may be, with the packing and the name of the format. 1.58 is a float in the file.
const WIDTHS: [(f64, Packing, &str); 8] = [
    (8.0, Packing::EightBits, "int8"),
    (6.0, Packing::EightBits, "int6"),
    (5.0, Packing::EightBits, "int5"),
    (4.0, Packing::FourBits, "int4"),
    (3.0, Packing::ThreeBits, "int3"),
    (2.0, Packing::TwoBits, "int2"),
    (1.58, Packing::TwoBits, "ternary"),
    (1.0, Packing::OneBit, "int1"),
];

/// Tensors of layers whose scales or zero points are quantized themselves.
const QUANTIZED_METADATA: [&str; 6] = [
    "zero_q",
    "scale_q",
    "zero_scale",
    "meta_zero",
    "meta_scale",
    "meta",
];

impl LayerConfig {
    /// Reads the settings.
    ///
    /// # Errors
    /// If one is missing, impossible or not supported.
    pub fn read(layer: &LayerSource) -> Result<Self> {
        refuse_quantized_metadata(layer)?;
        let settings = ["shape", "nbits", "group_size", "axis", "packing"];
        if let Some(name) = settings.iter().find(|name| !layer.has(name)) {
            let reason = format!(
                "`W_q` cannot be read without the setting `{name}`, which files of hqq 0.2 and \
                 transformers 4.46 or later have as a tensor"
            );
            return Err(layer.error(reason));
        }
        let packing = packing(&layer.tensor("packing")?)?;
        check_names(layer, packing)?;
        let per_group = layer.get("channel_wise").map(|tensor| flag(&tensor));
        if per_group.transpose()? == Some(false) {
            let reason = "one scale for the whole weight (channel_wise false) is not supported";
            return Err(layer.error(reason));
        }
        let view_as_float = layer.get("view_as_float").map(|tensor| flag(&tensor));
        Ok(Self {
            shape: shape(&layer.tensor("shape")?)?,
            group_size: positive(&layer.tensor("group_size")?)?,
            axis: axis(&layer.tensor("axis")?)?,
            packing,
            view_as_float: view_as_float.transpose()?.unwrap_or(false),
            format: format(&layer.tensor("nbits")?, packing)?,
        })
    }
}

fn refuse_quantized_metadata(layer: &LayerSource) -> Result<()> {
    let mut found = layer.suffixes().filter(|suffix| {
        let name = suffix.split('.').next().unwrap_or_default();
        QUANTIZED_METADATA.contains(&name)
    });
    let mut what = found.next();
    for name in ["quant_zero", "quant_scale"] {
        let set = layer.get(name).map(|tensor| flag(&tensor)).transpose()?;
        what = what.or((set == Some(true)).then_some(name));
    }
    match what {
        None => Ok(()),
        Some(name) => {
            let reason = format!(
                "`{name}`: scales or zero points that are quantized themselves are not supported; \
                 hqq 0.2 does not write them any more"
            );
            Err(layer.error(reason))
        }
    }
}

fn packing(tensor: &TensorView) -> Result<Packing> {
    let name = text(tensor)?;
    let mut all = Packing::ALL.into_iter();
    all.find(|packing| packing.name() == name).ok_or_else(|| {
        let names = Packing::ALL.map(Packing::name).join(", ");
        tensor.error(format!("one of {names}"), format!("`{name}`"))
    })
}

/// The dtypes that are stored by name must be known and fit; they are looked up, never evaluated.
fn check_names(layer: &LayerSource, packing: Packing) -> Result<()> {
    if let Some(tensor) = layer.get("unpack_view_dtype") {
        let expected = match packing.dtype() {
            Dtype::I32 => "torch.int32",
            _ => "torch.uint8",
        };
        let name = text(&tensor)?;
        if name != expected {
            let expected = format!("{expected} for {}", packing.name());
            return Err(tensor.error(expected, format!("`{name}`")));
        }
    }
    if let Some(tensor) = layer.get("compute_dtype") {
        let name = text(&tensor)?;
        let known = ["torch.float16", "torch.bfloat16", "torch.float32"];
        if !known.contains(&name.as_str()) {
            let expected = format!("one of {}", known.join(", "));
            return Err(tensor.error(expected, format!("`{name}`")));
        }
    }
    Ok(())
}

fn shape(tensor: &TensorView) -> Result<[usize; 2]> {
    tensor.expect_dtype(&[Dtype::I64])?.expect_shape(&[2])?;
    let (words, _) = tensor.bytes().as_chunks::<8>();
    let size = |at: usize| usize::try_from(i64::from_le_bytes(words[at])).ok();
    match (size(0), size(1)) {
        (Some(n), Some(k)) if n > 0 && k > 0 => Ok([n, k]),
        _ => {
            let found = [words[0], words[1]].map(i64::from_le_bytes);
            Err(tensor.error("out_features and in_features", format!("{found:?}")))
        }
    }
}

fn axis(tensor: &TensorView) -> Result<Axis> {
    match number(tensor)? {
        0.0 => Ok(Axis::Columns),
        1.0 => Ok(Axis::Rows),
        other => Err(tensor.error("axis 0 or 1", other)),
    }
}

fn positive(tensor: &TensorView) -> Result<usize> {
    let value = number(tensor)?;
    if value >= 1.0 && value.fract() == 0.0 && value < (1u64 << 53) as f64 {
        Ok(value as usize)
    } else {
        Err(tensor.error("a number of weights", value))
    }
}

/// The packing and the name of the format for a number of bits.
pub fn width(bits: f64) -> Option<(Packing, &'static str)> {
    let mut widths = WIDTHS.iter();
    let found = widths.find(|width| (width.0 - bits).abs() < 1e-6);
    found.map(|&(_, packing, format)| (packing, format))
}

fn format(tensor: &TensorView, packing: Packing) -> Result<&'static str> {
    let bits = number(tensor)?;
    match width(bits) {
        Some((expected, format)) if expected == packing => Ok(format),
        Some((expected, _)) => {
            let found = format!("`{}`", packing.name());
            let expected = format!("packing {} for {bits} bits", expected.name());
            Err(tensor.error(expected, found))
        }
        None => Err(tensor.error("8, 6, 5, 4, 3, 2, 1.58 or 1 bits", bits)),
    }
}

pub fn flag(tensor: &TensorView) -> Result<bool> {
    match number(tensor)? {
        0.0 => Ok(false),
        1.0 => Ok(true),
        other => Err(tensor.error("0 or 1", other)),
    }
}

/// A tensor with a single number, of any dtype that the library chooses for one.
pub fn number(tensor: &TensorView) -> Result<f64> {
    if tensor.elements() != 1 {
        return Err(tensor.error("a single number", tensor.shown_shape()));
    }
    let bytes = tensor.bytes();
    let four = || bytes.first_chunk::<4>().copied().unwrap_or_default();
    let eight = || bytes.first_chunk::<8>().copied().unwrap_or_default();
    match tensor.dtype() {
        Dtype::U8 | Dtype::BOOL => Ok(f64::from(bytes[0])),
        Dtype::I32 => Ok(f64::from(i32::from_le_bytes(four()))),
        Dtype::I64 => Ok(i64::from_le_bytes(eight()) as f64),
        Dtype::F32 => Ok(f64::from(f32::from_le_bytes(four()))),
        other => Err(tensor.error("a number as I32, U8 or F32", dtype_name(other))),
    }
}

/// A string: a vector of bytes. Only short ones mean something.
fn text(tensor: &TensorView) -> Result<String> {
    tensor.expect_dtype(&[Dtype::U8])?;
    let bytes = tensor.bytes();
    let shown = &bytes[..bytes.len().min(40)];
    Ok(String::from_utf8_lossy(shown).escape_debug().to_string())
}

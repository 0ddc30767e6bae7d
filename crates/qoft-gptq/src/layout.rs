//! GPTQ's tensors ↔ our packed form.
//!
//! | tensor | dtype | shape |
//! |---|---|---|
//! | `qweight` | I32 | `[⌈in · bits / 32⌉, out]`, codes packed along the input channels |
//! | `qzeros` | I32 | `[groups, ⌈out · bits / 32⌉]`, packed along the outputs |
//! | `scales` | float | `[groups, out]` |
//! | `g_idx` | I32 | `[in]`, the group of each input channel; some tools leave it out |
//!
//! The words of a column of `qweight`, one after another, are a stream of codes that starts with
//! the least significant bits. So the transposed matrix of words is our stream of rows.

use std::sync::Arc;

use qoft_scheme::kernels::{
    CodeMap, Codes, GroupedWeight, Groups, PackedWeight, Scales, Zeros, integer_name, transpose,
};
use qoft_scheme::{Dtype, Keys, LayerSource, Result, TensorView, groups_in_order};

use crate::config::{self, GptqConfig, ModuleConfig, ZeroPoints};
use crate::words::{WORD, words_of};
use crate::zeros;

/// Where a layer without `g_idx` does not say how large its groups are.
pub const DEFAULT_GROUP_SIZE: usize = 128;

/// What the configuration calls the scheme of a checkpoint that may be of this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// GPTQ, or AutoRound in a layout of GPTQ's.
    Gptq,
    /// GPTQ, arranged for the Marlin kernel.
    Marlin,
    /// It has no name: the tensors have to tell.
    Nothing,
}

impl Named {
    /// `None` where it is another scheme's.
    pub fn of(keys: &Keys) -> Option<Self> {
        match keys.method().as_deref() {
            Some("gptq") => Some(Self::Gptq),
            Some("marlin") => Some(Self::Marlin),
            Some(_) if config::is_auto_round(keys) => {
                let packing = config::auto_round_packing(keys).unwrap_or_default();
                let others = ["awq", "llm_compressor", "fp8", "mlx", "gguf"];
                let foreign = others.iter().any(|other| packing.contains(other));
                (!foreign).then_some(Self::Gptq)
            }
            Some(_) => None,
            None => Some(Self::Nothing),
        }
    }

    /// Whether a layer is GPTQ's.
    pub fn claims(self, layer: &LayerSource) -> bool {
        let packed = layer.has("qweight") || layer.has("qzeros");
        match self {
            Self::Gptq => packed || layer.has("g_idx") || is_marlin(layer),
            Self::Marlin => packed || is_marlin(layer),
            Self::Nothing if packed => layer.has("g_idx") || packed_along_input(layer),
            Self::Nothing => is_marlin(layer),
        }
    }
}

/// The names of the Marlin kernel's tensors.
fn is_marlin(layer: &LayerSource) -> bool {
    layer.has("B") && layer.has("s")
}

/// Codes packed along the input channels leave one column for each output. AWQ has other columns,
/// or as many rows of codes as of scales.
fn packed_along_input(layer: &LayerSource) -> bool {
    let (Some(codes), Some(scales)) = (layer.get("qweight"), layer.get("scales")) else {
        return false;
    };
    match (codes.shape(), scales.shape()) {
        (&[rows, n], &[groups, columns]) => {
            codes.dtype() == Dtype::I32 && n > 0 && n == columns && rows != groups
        }
        _ => false,
    }
}

/// A layer's tensors and what they are, checked against each other.
pub struct GptqLayer {
    /// `[out_features, in_features]`.
    pub shape: [usize; 2],
    /// Width of a code.
    pub bits: usize,
    /// Groups in a row.
    pub groups: usize,
    /// What a stored zero point means.
    pub zero_points: ZeroPoints,
    /// The zero points.
    pub qzeros: TensorView,
    /// The scales.
    pub scales: TensorView,
    qweight: TensorView,
    assignment: Assignment,
}

/// Which group each input channel is in.
enum Assignment {
    /// As `g_idx` says.
    Index(Vec<u32>),
    /// So many one after another.
    Size(usize),
}

impl GptqLayer {
    /// Finds a layer's tensors.
    ///
    /// # Errors
    /// If one is missing or does not fit the others.
    pub fn parse(layer: &LayerSource, config: &GptqConfig) -> Result<Self> {
        let module = config.module(layer.path())?;
        if is_marlin(layer) {
            let reason = "tensors of the Marlin format, whose weights are arranged for a single \
                          GPU kernel; supported are gptq and gptq_v2";
            return Err(layer.error(reason));
        }
        let qweight = layer.tensor("qweight")?;
        let [words, n] = qweight.expect_dtype(&[Dtype::I32])?.matrix()?;
        let scales = layer.tensor("scales")?;
        let [groups, _] = scales.matrix()?;
        scales.expect_shape(&[groups, n])?.float_format()?;
        let index = group_index(layer, groups)?;
        let known_k = match &index {
            Some(index) => Some(index.len()),
            None => layer.expected_shape().map(|[_, k]| k),
        };

        let qzeros = layer.tensor("qzeros")?;
        let bits = bits(&module, config.widths, &qzeros, [groups, n], |bits| {
            known_k.is_none_or(|k| words_of(k, bits) == words)
        })?;
        let k = known_k.unwrap_or(words * WORD / bits);
        if words_of(k, bits) != words {
            let expected = format!("{bits}-bit codes of {k} input channels");
            return Err(qweight.error(expected, qweight.shown_shape()));
        }
        let assignment = match index {
            Some(index) => Assignment::Index(index),
            None => Assignment::Size(group_size(&module, layer, &scales, k)?),
        };
        Ok(Self {
            shape: [n, k],
            bits,
            groups,
            zero_points: config.zero_points,
            qzeros,
            scales,
            qweight,
            assignment,
        })
    }

    /// The group of each input channel.
    pub fn group_of_each(&self) -> Vec<u32> {
        match &self.assignment {
            Assignment::Index(index) => index.clone(),
            Assignment::Size(size) => groups_in_order(self.shape[1], *size),
        }
    }

    /// The zero points as they are stored, `[groups, out]`.
    pub fn stored_zeros(&self) -> Vec<u8> {
        zeros::unpack(self.qzeros.bytes(), self.bits, [self.groups, self.shape[0]])
    }

    /// The zero points, `[out, groups]`.
    pub fn zeros(&self) -> Vec<u8> {
        let sizes = [self.groups, self.shape[0]];
        zeros::read(self.zero_points, self.qzeros.bytes(), self.bits, sizes)
    }

    /// # Errors
    /// If a scale or a weight is not finite, or there is something behind the codes.
    pub fn packed(&self) -> Result<Arc<dyn PackedWeight>> {
        let [n, _] = self.shape;
        let floats = self.scales.floats()?;
        let rounding = floats.format();
        let weight = GroupedWeight::builder(
            self.shape,
            codes(&self.qweight, self.bits, self.shape)?,
            CodeMap::Unsigned,
            match &self.assignment {
                Assignment::Index(index) => groups_of(index, self.groups),
                Assignment::Size(size) => Groups::Blocks([1, *size]),
            },
            Scales::Plain(floats.transposed(self.groups, n)),
        )
        .zeros(Zeros::Integers(self.zeros().into()))
        .rounding(rounding)
        .build(integer_name(self.bits))?;
        Ok(weight.sorted())
    }
}

/// The width of the codes. Where the configuration is silent, the shapes tell: `fits` says whether
/// that of `qweight` allows a width.
fn bits(
    module: &ModuleConfig,
    widths: &[usize],
    qzeros: &TensorView,
    [groups, n]: [usize; 2],
    fits: impl Fn(usize) -> bool,
) -> Result<usize> {
    qzeros.expect_dtype(&[Dtype::I32])?;
    let shape = |bits| [groups, words_of(n, bits)];
    if let Some(bits) = module.bits {
        qzeros.expect_shape(&shape(bits))?;
        return Ok(bits);
    }
    let found = [4, 8, 3, 2, 5, 6, 7]
        .into_iter()
        .find(|&b| qzeros.shape() == shape(b) && fits(b));
    match found {
        Some(bits) if widths.contains(&bits) => Ok(bits),
        Some(bits) => Err(qzeros.error("a supported width", config::unsupported_bits(bits))),
        None => {
            let expected = format!("{groups} rows of {n} zero points with 2, 3, 4 or 8 bits");
            Err(qzeros.error(expected, qzeros.shown_shape()))
        }
    }
}

/// `g_idx`, if the layer has it.
fn group_index(layer: &LayerSource, groups: usize) -> Result<Option<Vec<u32>>> {
    let Some(tensor) = layer.get("g_idx") else {
        return Ok(None);
    };
    tensor.expect_dtype(&[Dtype::I32])?;
    if tensor.shape().len() != 1 || tensor.bytes().is_empty() {
        return Err(tensor.error("a vector", tensor.shown_shape()));
    }
    let words = tensor.bytes().as_chunks::<4>().0;
    let index: Vec<u32> = words.iter().map(|w| u32::from_le_bytes(*w)).collect();
    match index.iter().position(|&group| group as usize >= groups) {
        None => Ok(Some(index)),
        Some(k) => Err(tensor.error(
            format!("groups from 0 to {}", groups - 1),
            format!("{} for input channel {k}", index[k] as i32),
        )),
    }
}

/// Groups that follow each other need no index.
fn groups_of(index: &[u32], groups: usize) -> Groups {
    let size = index.iter().position(|&g| g != 0).unwrap_or(index.len());
    let in_order = size > 0
        && index.len().div_ceil(size) == groups
        && index
            .iter()
            .enumerate()
            .all(|(k, &g)| g as usize == k / size);
    if in_order {
        Groups::Blocks([1, size])
    } else {
        Groups::Indexed {
            index: index.into(),
            count: groups,
        }
    }
}

/// The group size of a layer without `g_idx`.
fn group_size(
    module: &ModuleConfig,
    layer: &LayerSource,
    scales: &TensorView,
    k: usize,
) -> Result<usize> {
    let groups = scales.shape()[0];
    if module.desc_act && groups > 1 {
        layer.tensor("g_idx")?;
    }
    let size = module.group_size.unwrap_or(DEFAULT_GROUP_SIZE);
    // Tools that leave `g_idx` out round up to 32 channels; anything else is a truncated tensor,
    // unless the model's sizes say otherwise.
    let plausible =
        k.is_multiple_of(size) || k.is_multiple_of(32) || layer.expected_shape().is_some();
    if k.div_ceil(size) == groups && plausible {
        return Ok(size);
    }
    if module.group_size.is_none() && k.is_multiple_of(groups) {
        return Ok(k / groups);
    }
    let each = match size {
        usize::MAX => "all in one".to_owned(),
        size => format!("{size} in each"),
    };
    let expected = format!("groups of {k} input channels, {each}");
    Err(scales.error(expected, scales.shown_shape()))
}

/// The codes in our order.
fn codes(qweight: &TensorView, bits: usize, [n, k]: [usize; 2]) -> Result<Codes> {
    let words = qweight.shape()[0];
    let stored = Codes::new(transpose(qweight.bytes(), 4, [words, n]), bits as u32);
    if k * bits == words * WORD {
        return Ok(in_bytes(stored, n * k));
    }
    // The last words of each row are not full.
    if !(words * WORD).is_multiple_of(bits) {
        let expected = format!("a multiple of {bits} rows for codes of {bits} bits");
        return Err(qweight.error(expected, words));
    }
    let capacity = words * WORD / bits;
    let mut padding = (0..n).flat_map(|row| row * capacity + k..(row + 1) * capacity);
    if padding.any(|at| stored.get(at) != 0) {
        let expected = format!("zeros behind the codes of {k} input channels");
        return Err(qweight.error(expected, "other codes"));
    }
    let without_padding = (0..n * k).map(|i| stored.get(i / k * capacity + i % k));
    let codes = Codes::pack(bits as u32, without_padding);
    Ok(in_bytes(codes, n * k))
}

/// Codes of 5 to 7 bits, of which the kernels know nothing, as bytes; others as they are.
fn in_bytes(codes: Codes, count: usize) -> Codes {
    match codes.bits {
        5..=7 => Codes::pack(8, (0..count).map(|at| codes.get(at))),
        _ => codes,
    }
}

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

use qoft_scheme::kernels::{
    CodeMap, Codes, GroupedWeight, Groups, Scales, Zeros, check_finite, transpose,
};
use qoft_scheme::{Dtype, LayerSource, LoadedLinear, QuantBackend, Result, TensorView};

use crate::config::{self, GptqConfig};
use crate::zeros;

/// Bits of a word.
const WORD: usize = 32;
/// Where a layer without `g_idx` does not say how large its groups are.
const DEFAULT_GROUP_SIZE: usize = 128;
/// Weights are at most 255 times such a scale, which every float format can hold.
const HARMLESS_SCALE: f32 = 256.0;

/// Whether a layer is GPTQ's.
pub fn is_gptq(layer: &LayerSource) -> bool {
    let packed = layer.has("qweight") || layer.has("qzeros");
    match config::method(layer).as_deref() {
        Some("gptq") => packed || layer.has("g_idx") || is_marlin(layer),
        Some("marlin") => packed || is_marlin(layer),
        Some(_) => false,
        None if packed => layer.has("g_idx") || packed_along_input(layer),
        None => is_marlin(layer),
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
pub struct Parts {
    /// What the checkpoint says.
    pub config: GptqConfig,
    /// The codes.
    pub qweight: TensorView,
    /// The zero points.
    pub qzeros: TensorView,
    /// The scales.
    pub scales: TensorView,
    /// Width of a code.
    pub bits: usize,
    /// `[out_features, in_features]`.
    pub shape: [usize; 2],
    /// Groups in a row.
    pub groups: usize,
    /// The group of each input channel, if the layer tells.
    index: Option<Vec<u32>>,
}

impl Parts {
    /// Finds a layer's tensors.
    ///
    /// # Errors
    /// If one is missing or does not fit the others.
    pub fn read(backend: &dyn QuantBackend, layer: &LayerSource) -> Result<Self> {
        let config = GptqConfig::read(layer)?;
        if is_marlin(layer) {
            let reason = "tensors of the Marlin format, whose weights are arranged for a single \
                          GPU kernel; supported are gptq and gptq_v2";
            return Err(layer.error(backend, reason));
        }
        let qweight = layer.tensor("qweight")?;
        let [words, n] = matrix(qweight.expect_dtype(&[Dtype::I32])?)?;
        let scales = layer.tensor("scales")?;
        let [groups, _] = matrix(&scales)?;
        scales.expect_shape(&[groups, n])?.float_format()?;
        let index = group_index(layer, groups)?;
        let known_k = match &index {
            Some(index) => Some(index.len()),
            None => layer.expected_shape().map(|[_, k]| k),
        };

        let qzeros = layer.tensor("qzeros")?;
        let bits = bits(&config, &qzeros, [groups, n], |bits| {
            known_k.is_none_or(|k| words_of(k, bits) == words)
        })?;
        let k = known_k.unwrap_or(words * WORD / bits);
        let shape = [n, k];
        if words_of(k, bits) != words {
            let expected = format!("{bits}-bit codes of {k} input channels");
            return Err(qweight.error(expected, format!("shape {:?}", qweight.shape())));
        }
        layer.check_shape(backend, shape)?;
        Ok(Self {
            config,
            qweight,
            qzeros,
            scales,
            bits,
            shape,
            groups,
            index,
        })
    }

    /// The group of each input channel.
    ///
    /// # Errors
    /// If the groups of a layer without `g_idx` cannot be told.
    pub fn group_of_each(&self, layer: &LayerSource) -> Result<Vec<u32>> {
        let k = self.shape[1];
        if let Some(index) = &self.index {
            return Ok(index.clone());
        }
        let size = group_size(&self.config, layer, &self.scales, k)?;
        Ok((0..k).map(|k| (k / size) as u32).collect())
    }
}

/// Loads a layer.
pub fn load(backend: &dyn QuantBackend, layer: &LayerSource) -> Result<LoadedLinear> {
    let parts = Parts::read(backend, layer)?;
    let (bits, groups, [n, k]) = (parts.bits, parts.groups, parts.shape);
    let floats = parts.scales.floats()?;
    let rounding = floats.format();
    let weight = GroupedWeight::new(
        [n, k],
        codes(&parts.qweight, bits, [n, k])?,
        CodeMap::Unsigned,
        match parts.index {
            Some(index) => groups_of(index, groups),
            None => Groups::Blocks([1, group_size(&parts.config, layer, &parts.scales, k)?]),
        },
        Scales::Plain(floats.transposed(groups, n)),
        match bits {
            2 => "int2",
            3 => "int3",
            4 => "int4",
            _ => "int8",
        },
    )
    .map_err(layer.weight_error(backend))?
    .with_zeros(Zeros::Integers(
        zeros::read(&parts.config, layer, &parts.qzeros, bits, [groups, n]).into(),
    ))
    .map_err(layer.weight_error(backend))?
    .with_rounding(rounding);
    if parts
        .scales
        .to_f32()?
        .iter()
        .any(|s| s.abs() > HARMLESS_SCALE)
    {
        check_finite(&weight).map_err(layer.weight_error(backend))?;
    }
    Ok(LoadedLinear {
        weight: weight.sorted(),
        bias: layer.bias(n)?,
        input_quantizer: None,
    })
}

/// The sizes of a matrix that is not empty.
fn matrix(tensor: &TensorView) -> Result<[usize; 2]> {
    match *tensor.shape() {
        [rows, cols] if rows > 0 && cols > 0 => Ok([rows, cols]),
        _ => Err(tensor.error("a matrix", format!("shape {:?}", tensor.shape()))),
    }
}

/// Words that hold so many codes.
fn words_of(codes: usize, bits: usize) -> usize {
    codes.saturating_mul(bits).div_ceil(WORD)
}

/// The width of the codes. Where single modules may differ from the configuration, the shapes
/// tell: `fits` says whether that of `qweight` allows a width.
fn bits(
    config: &GptqConfig,
    qzeros: &TensorView,
    [groups, n]: [usize; 2],
    fits: impl Fn(usize) -> bool,
) -> Result<usize> {
    qzeros.expect_dtype(&[Dtype::I32])?;
    let shape = |bits| [groups, words_of(n, bits)];
    if let (Some(bits), false) = (config.bits, config.overrides) {
        qzeros.expect_shape(&shape(bits))?;
        return Ok(bits);
    }
    let all = config.bits.into_iter().chain([4, 8, 3, 2, 5, 6, 7]);
    let found = all
        .into_iter()
        .find(|&b| qzeros.shape() == shape(b) && fits(b));
    match found {
        Some(bits) if config::SUPPORTED_BITS.contains(&bits) => Ok(bits),
        Some(bits) => Err(qzeros.error("a supported width", config::unsupported_bits(bits))),
        None => {
            let expected = format!("{groups} rows of {n} zero points with 2, 3, 4 or 8 bits");
            Err(qzeros.error(expected, format!("shape {:?}", qzeros.shape())))
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
        return Err(tensor.error("a vector", format!("shape {:?}", tensor.shape())));
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
fn groups_of(index: Vec<u32>, groups: usize) -> Groups {
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
    config: &GptqConfig,
    layer: &LayerSource,
    scales: &TensorView,
    k: usize,
) -> Result<usize> {
    let groups = scales.shape()[0];
    if config.desc_act && groups > 1 {
        layer.tensor("g_idx")?;
    }
    let size = config.group_size.unwrap_or(DEFAULT_GROUP_SIZE);
    // Tools that leave `g_idx` out round up to 32 channels; anything else is a truncated tensor,
    // unless the model's sizes say otherwise.
    let plausible =
        k.is_multiple_of(size) || k.is_multiple_of(32) || layer.expected_shape().is_some();
    if k.div_ceil(size) == groups && plausible {
        return Ok(size);
    }
    if (config.overrides || config.group_size.is_none()) && k.is_multiple_of(groups) {
        return Ok(k / groups);
    }
    let each = match size {
        usize::MAX => "all in one".to_owned(),
        size => format!("{size} in each"),
    };
    let expected = format!("groups of {k} input channels, {each}");
    Err(scales.error(expected, format!("shape {:?}", scales.shape())))
}

/// The codes in our order.
fn codes(qweight: &TensorView, bits: usize, [n, k]: [usize; 2]) -> Result<Codes> {
    let words = qweight.shape()[0];
    let stored = Codes {
        bytes: transpose(qweight.bytes(), 4, [words, n]).into(),
        bits: bits as u32,
    };
    if k * bits == words * WORD {
        return Ok(stored);
    }
    // The last words of each row are not full.
    if !(words * WORD).is_multiple_of(bits) {
        let expected = "a multiple of 3 rows for codes of 3 bits";
        return Err(qweight.error(expected, words));
    }
    let capacity = words * WORD / bits;
    let mut padding = (0..n).flat_map(|row| row * capacity + k..(row + 1) * capacity);
    if padding.any(|at| stored.get(at) != 0) {
        let expected = format!("zeros behind the codes of {k} input channels");
        return Err(qweight.error(expected, "other codes"));
    }
    let without_padding = (0..n * k).map(|i| stored.get(i / k * capacity + i % k));
    Ok(Codes::pack(bits as u32, without_padding))
}

/// Codes in our order as the words of `qweight`.
pub fn pack(codes: &[u8], bits: usize, [n, k]: [usize; 2]) -> Vec<u8> {
    let words = words_of(k, bits);
    let mut stream = Vec::with_capacity(n * words * 4);
    for row in codes.chunks_exact(k) {
        stream.extend(pack_row(row, bits));
    }
    transpose(&stream, 4, [n, words])
}

/// A stream of codes, filled up to whole words.
pub fn pack_row(codes: &[u8], bits: usize) -> Vec<u8> {
    let mut bytes = Codes::pack(bits as u32, codes.iter().copied())
        .bytes
        .to_vec();
    bytes.resize(words_of(codes.len(), bits) * 4, 0);
    bytes
}

//! Integers: in words (`pack-quantized`), or one in a byte (`int-quantized`, `naive-quantized`).
//!
//! | tensor | dtype | shape |
//! |---|---|---|
//! | `weight_packed` | I32 | `[out, words]`: codes along the rows, stored as `q + 2^(bits − 1)` |
//! | `weight_shape` | I64 or I32 | `[2]`: out and in |
//! | or `weight` | I8 | `[out, in]`: `q` itself |
//! | `weight_scale` | F32, F16 or BF16 | see [`Strategy::scale_shape`] |
//! | `weight_zero_point` beside words | I32 | `[words, groups]`: packed down the columns, stored as codes are; for one scale I8 `[1]` |
//! | or beside bytes | I8 | that of the scales |
//! | `weight_g_idx` | I32 | `[in]`: the group of each input feature |
//!
//! `W = (q − zero) · scale`, rounded to the dtype of the scale.

use std::sync::Arc;

use qoft_scheme::kernels::{
    CodeMap, Codes, FloatFormat, Floats, GroupedWeight, Groups, Scales, Zeros, integer_name,
    transpose,
};
use qoft_scheme::{Dtype, LayerSource, PackedWeight, Result, TensorView, groups_in_order};

use crate::config::Config;
use crate::fields::Fields;
use crate::scheme::{Numbers, Strategy, WeightScheme};
use crate::tensors::{INDEX, PACKED, SHAPE, WEIGHT, ZERO, scales};

/// A layer's tensors and what they are, checked against each other.
pub struct IntegerLayer {
    /// `[out_features, in_features]`.
    pub shape: [usize; 2],
    /// Width of a code.
    pub bits: usize,
    /// Which weights share a scale.
    pub strategy: Strategy,
    /// The scales.
    pub scales: TensorView,
    /// The zero points, if they are not all 0.
    pub zeros: Option<TensorView>,
    /// The codes.
    pub codes: StoredCodes,
    /// The group of each input feature, if they do not follow each other.
    index: Option<Vec<u32>>,
}

/// How codes are stored.
pub enum StoredCodes {
    /// Unsigned, in words.
    Words(TensorView, Fields),
    /// Signed, one in a byte.
    Bytes(TensorView),
}

impl IntegerLayer {
    /// A layer whose codes are in words.
    ///
    /// # Errors
    /// If a tensor is missing or does not fit the others.
    pub fn words(layer: &LayerSource, config: &Config, scheme: WeightScheme) -> Result<Self> {
        let packed = layer.tensor(PACKED)?;
        let [rows, words] = packed.expect_dtype(&[Dtype::I32])?.matrix()?;
        let (bits, symmetric) = integers(layer, scheme)?;
        let shape = stored_shape(layer)?;
        if shape[0] != rows {
            return Err(packed.error(format!("{} rows", shape[0]), rows));
        }
        let fields = Fields::find(bits, [shape[1], words], config.padded, &packed)?;
        let strategy = scheme.strategy;
        let scales = scales(layer, strategy, shape)?;
        scales.float_format()?;
        let zeros = match symmetric {
            true => None,
            false => Some(packed_zeros(layer, fields, strategy, shape)?),
        };
        Ok(Self {
            shape,
            bits,
            strategy,
            scales,
            zeros,
            codes: StoredCodes::Words(packed, fields),
            index: group_index(layer, scheme, shape[1])?,
        })
    }

    /// A layer whose codes are bytes.
    ///
    /// # Errors
    /// If a tensor is missing or does not fit the others.
    pub fn bytes(layer: &LayerSource, scheme: WeightScheme) -> Result<Self> {
        let weight = layer.tensor(WEIGHT)?;
        let shape = weight.expect_dtype(&[Dtype::I8])?.matrix()?;
        let (bits, symmetric) = integers(layer, scheme)?;
        let scales = scales(layer, scheme.strategy, shape)?;
        scales.float_format()?;
        let zeros = match symmetric {
            true => None,
            false => {
                let zeros = layer.tensor(ZERO)?;
                zeros
                    .expect_dtype(&[Dtype::I8])?
                    .expect_shape(scales.shape())?;
                Some(zeros)
            }
        };
        Ok(Self {
            shape,
            bits,
            strategy: scheme.strategy,
            scales,
            zeros,
            codes: StoredCodes::Bytes(weight),
            index: group_index(layer, scheme, shape[1])?,
        })
    }

    /// What is added to signed codes so that none is negative.
    pub fn middle(&self) -> u8 {
        1 << (self.bits - 1)
    }

    /// The zero points as unsigned codes, in the order of the scales.
    pub fn unsigned_zeros(&self) -> Vec<u8> {
        let middle = self.middle();
        let Some(zeros) = &self.zeros else {
            return vec![middle; self.scales.elements()];
        };
        match &self.codes {
            StoredCodes::Words(_, fields) if self.strategy != Strategy::Tensor => {
                let [words, groups] = [zeros.elements() / self.groups(), self.groups()];
                let columns = transpose(zeros.bytes(), 4, [words, groups]);
                let columns = fields.read(&columns, self.shape[0]);
                transpose(&columns, 1, [groups, self.shape[0]])
            }
            _ => zeros
                .bytes()
                .iter()
                .map(|zero| zero.wrapping_add(middle))
                .collect(),
        }
    }

    /// Groups in a row.
    pub fn groups(&self) -> usize {
        self.shape[1].div_ceil(self.strategy.blocks()[1])
    }

    /// The group of each input feature within its row.
    pub fn group_of_each(&self) -> Vec<u32> {
        let [_, cols] = self.strategy.blocks();
        let in_order = || groups_in_order(self.shape[1], cols);
        self.index.clone().unwrap_or_else(in_order)
    }

    /// # Errors
    /// If a scale or a weight is not finite.
    pub fn packed(&self) -> Result<Arc<dyn PackedWeight>> {
        let scales = self.scales.floats()?;
        let rounding = scales.format();
        let groups = match &self.index {
            None => Groups::Blocks(self.strategy.blocks()),
            Some(index) => Groups::Indexed {
                index: index.as_slice().into(),
                count: self.groups(),
            },
        };
        let (codes, map, zeros) = match &self.codes {
            StoredCodes::Bytes(weight) => {
                let codes = Codes::new(weight.bytes().clone(), 8);
                (codes, CodeMap::Int8, self.signed_zeros()?)
            }
            StoredCodes::Words(packed, fields) => {
                let codes = stream(packed, *fields, self.shape[1]);
                match (&self.zeros, codes.bits) {
                    (None, 4) => (codes, CodeMap::Table16(centered()), None),
                    _ => {
                        let zeros = Zeros::Integers(self.unsigned_zeros().into());
                        (codes, CodeMap::Unsigned, Some(zeros))
                    }
                }
            }
        };
        let weight = GroupedWeight::builder(self.shape, codes, map, groups, Scales::Plain(scales));
        let weight = match zeros {
            Some(zeros) => weight.zeros(zeros),
            None => weight,
        };
        let weight = weight.rounding(rounding).build(integer_name(self.bits))?;
        Ok(weight.sorted())
    }

    /// The zero points beside bytes; integers up to 255 are exact in every format.
    fn signed_zeros(&self) -> Result<Option<Zeros>> {
        let Some(zeros) = &self.zeros else {
            return Ok(None);
        };
        let values: Vec<f32> = zeros
            .bytes()
            .iter()
            .map(|&zero| f32::from(zero as i8))
            .collect();
        let values = Floats::from_f32(&values, FloatFormat::Bf16)?;
        Ok(Some(Zeros::Floats(values)))
    }
}

/// The numbers of 4-bit codes whose middle is zero.
fn centered() -> Box<[f32; 16]> {
    Box::new(std::array::from_fn(|code| code as f32 - 8.0))
}

/// Codes as one stream. Widths that it cannot have become bytes.
fn stream(packed: &TensorView, fields: Fields, k: usize) -> Codes {
    let bits = match fields.bits {
        bits @ 1..=4 => bits,
        _ => 8,
    };
    if fields.bits == bits && fields.without_gaps(k) {
        return Codes::new(packed.bytes().clone(), bits as u32);
    }
    let codes = fields.read(packed.bytes(), k);
    match bits {
        8 => Codes::new(codes, 8),
        _ => Codes::pack(bits as u32, codes),
    }
}

/// The width of codes, and whether they have no zero points.
fn integers(layer: &LayerSource, scheme: WeightScheme) -> Result<(usize, bool)> {
    match scheme.numbers {
        Numbers::Integers { bits, symmetric } => Ok((bits as usize, symmetric)),
        other => {
            let reason = format!("integers are stored, the configuration says {other:?}");
            Err(layer.error(reason))
        }
    }
}

/// `[out_features, in_features]` as they are stored beside words.
fn stored_shape(layer: &LayerSource) -> Result<[usize; 2]> {
    let tensor = layer.tensor(SHAPE)?;
    tensor
        .expect_dtype(&[Dtype::I64, Dtype::I32])?
        .expect_shape(&[2])?;
    let sizes: Vec<i64> = match tensor.dtype() {
        Dtype::I64 => {
            let words = tensor.bytes().as_chunks::<8>().0.iter();
            words.map(|word| i64::from_le_bytes(*word)).collect()
        }
        _ => {
            let words = tensor.bytes().as_chunks::<4>().0.iter();
            words
                .map(|word| i64::from(i32::from_le_bytes(*word)))
                .collect()
        }
    };
    let size = |size: i64| usize::try_from(size).ok().filter(|&size| size > 0);
    match sizes[..] {
        [n, k] if size(n).is_some() && size(k).is_some() => Ok([n as usize, k as usize]),
        _ => Err(tensor.error("two positive sizes", format!("{sizes:?}"))),
    }
}

/// Zero points beside words.
fn packed_zeros(
    layer: &LayerSource,
    fields: Fields,
    strategy: Strategy,
    [n, k]: [usize; 2],
) -> Result<TensorView> {
    let zeros = layer.tensor(ZERO)?;
    if strategy == Strategy::Tensor {
        zeros.expect_dtype(&[Dtype::I8])?;
        let (zero, limit) = (zeros.bytes().first(), 1i16 << (fields.bits - 1));
        return match zero.map(|&zero| i16::from(zero as i8)) {
            Some(zero) if zeros.elements() == 1 && (-limit..limit).contains(&zero) => Ok(zeros),
            _ => Err(zeros.error("one zero point that is a code", zeros.shown_shape())),
        };
    }
    let groups = k.div_ceil(strategy.blocks()[1]);
    zeros
        .expect_dtype(&[Dtype::I32])?
        .expect_shape(&[fields.words(n), groups])?;
    Ok(zeros)
}

/// The group of each input feature; `None` if they follow each other.
fn group_index(layer: &LayerSource, scheme: WeightScheme, k: usize) -> Result<Option<Vec<u32>>> {
    let Strategy::Group(size) = scheme.strategy else {
        return Ok(None);
    };
    let tensor = match layer.get(INDEX) {
        None if scheme.indexed => layer.tensor(INDEX)?,
        None => return Ok(None),
        Some(tensor) => tensor,
    };
    tensor.expect_dtype(&[Dtype::I32])?.expect_shape(&[k])?;
    let words = tensor.bytes().as_chunks::<4>().0.iter();
    let index: Vec<i32> = words.map(|word| i32::from_le_bytes(*word)).collect();
    // As the library leaves it where it did not order features.
    if index.contains(&-1) {
        return Ok(None);
    }
    let mut members = vec![0; k / size];
    for &group in &index {
        match usize::try_from(group)
            .ok()
            .and_then(|group| members.get_mut(group))
        {
            Some(count) => *count += 1,
            None => {
                let expected = format!("groups from 0 to {}", members.len() - 1);
                return Err(tensor.error(expected, group));
            }
        }
    }
    if let Some(group) = members.iter().position(|&count| count != size) {
        let expected = format!("{size} features in each group");
        return Err(tensor.error(expected, format!("{} in group {group}", members[group])));
    }
    Ok(Some(index.into_iter().map(|group| group as u32).collect()))
}

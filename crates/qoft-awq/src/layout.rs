//! AWQ's tensors ↔ our packed form. All integers have 4 bits, eight in a word.
//!
//! | tensor | dtype | GEMM | GEMV |
//! |---|---|---|---|
//! | `qweight` | I32 | `[in, out / 8]` | `[out, in / 8]` |
//! | `qzeros` | I32 | `[groups, out / 8]` | `[out, width]` |
//! | `scales` | float | `[groups, out]` | `[out, 8 · width]` |
//!
//! GEMM packs outputs in the order 0, 2, 4, 6, 1, 3, 5, 7. GEMV packs input channels and groups
//! in their order, which is ours, and fills the rows of `qzeros` and `scales` up.

use bytes::Bytes;
use qoft_scheme::kernels::{
    CodeMap, Codes, FloatFormat, Floats, GroupedWeight, Groups, Scales, Zeros, transpose,
};
use qoft_scheme::{Dtype, Keys, LayerSource, Result, TensorView};

use crate::config::{self, AwqConfig, AwqVersion};

/// Integers in a word.
pub const PACK: usize = 8;
/// Where in a word of the GEMM layout each of eight outputs is.
const PLACE: [usize; PACK] = [0, 4, 1, 5, 2, 6, 3, 7];
/// Where a GEMV layer does not say how large its groups are.
pub const DEFAULT_GROUP_SIZE: usize = 128;

/// What the configuration calls the scheme of a checkpoint that may be of this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// AWQ, or AutoRound in a layout of AWQ's.
    Awq,
    /// It has no name: the tensors have to tell.
    Nothing,
}

impl Named {
    /// `None` where it is another scheme's.
    pub fn of(keys: &Keys) -> Option<Self> {
        match keys.method().as_deref() {
            Some("awq") => Some(Self::Awq),
            Some(_) if config::is_auto_round(keys) => Some(Self::Awq),
            Some(_) => None,
            None => Some(Self::Nothing),
        }
    }

    /// Whether a layer is AWQ's.
    pub fn claims(self, layer: &LayerSource) -> bool {
        match self {
            Self::Awq => {
                layer.has("qweight") || layer.has("qzeros") || self.is_scaled_activation(layer)
            }
            Self::Nothing => {
                !layer.has("g_idx") && shapes(layer).is_some_and(|s| s.version().is_some())
            }
        }
    }

    /// Whether a module divides an activation by `scales`, as AWQ leaves it behind in front of
    /// some models' layers.
    pub fn is_scaled_activation(self, layer: &LayerSource) -> bool {
        self == Self::Awq
            && layer.suffixes().eq(["scales"])
            && layer.get("scales").is_some_and(|s| s.shape().len() == 1)
    }
}

/// The shapes by which layouts can be told apart.
struct Shapes {
    qweight: [usize; 2],
    qzeros: [usize; 2],
    scales: [usize; 2],
}

fn shapes(layer: &LayerSource) -> Option<Shapes> {
    let shape = |suffix, integers| {
        let tensor = layer.get(suffix)?;
        let shape = tensor.shape().try_into().ok()?;
        ((tensor.dtype() == Dtype::I32) == integers).then_some(shape)
    };
    Some(Shapes {
        qweight: shape("qweight", true)?,
        qzeros: shape("qzeros", true)?,
        scales: shape("scales", false)?,
    })
}

impl Shapes {
    fn version(&self) -> Option<AwqVersion> {
        let [rows, words] = self.qweight;
        let [zero_rows, zero_words] = self.qzeros;
        let [scale_rows, scales] = self.scales;
        let eightfold = zero_words.checked_mul(PACK) == Some(scales);
        if zero_rows != scale_rows || !eightfold {
            None
        } else if rows == scale_rows {
            Some(AwqVersion::Gemv)
        } else {
            (words == zero_words).then_some(AwqVersion::Gemm)
        }
    }
}

/// A layer's tensors and what they are, checked against each other.
pub struct AwqLayer {
    /// How the codes are arranged.
    pub version: AwqVersion,
    /// `[out_features, in_features]`.
    pub shape: [usize; 2],
    /// Input channels in a group.
    pub group_size: usize,
    /// The zero points.
    pub qzeros: TensorView,
    /// The scales.
    pub scales: TensorView,
    qweight: TensorView,
    /// Words in a row of the zero points of [`AwqVersion::Gemv`].
    width: usize,
}

impl AwqLayer {
    /// Finds a layer's tensors.
    ///
    /// # Errors
    /// If one is missing or does not fit the others.
    pub fn parse(layer: &LayerSource, config: &AwqConfig) -> Result<Self> {
        let version = config.version.or_else(|| shapes(layer)?.version());
        let group_size = config.group_size(layer.path())?;
        match version.unwrap_or(AwqVersion::Gemm) {
            AwqVersion::Gemm => Self::gemm(layer, group_size),
            AwqVersion::Gemv => Self::gemv(layer, group_size),
        }
    }

    fn gemm(layer: &LayerSource, group_size: Option<usize>) -> Result<Self> {
        let (qweight, [k, columns]) = words(layer, "qweight")?;
        let (qzeros, [groups, _]) = words(layer, "qzeros")?;
        let n = columns * PACK;
        let group_size = match group_size {
            Some(size) => size.min(k),
            None => (k / groups).max(1),
        };
        if !k.is_multiple_of(group_size) {
            let expected = format!("rows in whole groups of {group_size}");
            return Err(qweight.error(expected, k));
        }
        qzeros.expect_shape(&[k / group_size, columns])?;
        let scales = layer.tensor("scales")?;
        scales.expect_shape(&[groups, n])?.float_format()?;
        Ok(Self {
            version: AwqVersion::Gemm,
            shape: [n, k],
            group_size,
            qzeros,
            scales,
            qweight,
            width: columns,
        })
    }

    fn gemv(layer: &LayerSource, group_size: Option<usize>) -> Result<Self> {
        let (qweight, [n, columns]) = words(layer, "qweight")?;
        let k = columns * PACK;
        let group_size = group_size.unwrap_or(DEFAULT_GROUP_SIZE).min(k);
        if !k.is_multiple_of(group_size) {
            let expected = format!("input channels in whole groups of {group_size}");
            return Err(qweight.error(expected, k));
        }
        let Some(width) = gemv_width(k / group_size, group_size) else {
            let reason = format!("the GEMV layout has no groups of {group_size}");
            return Err(layer.error(reason));
        };
        let (qzeros, _) = words(layer, "qzeros")?;
        qzeros.expect_shape(&[n, width])?;
        let scales = layer.tensor("scales")?;
        scales.expect_shape(&[n, width * PACK])?.float_format()?;
        Ok(Self {
            version: AwqVersion::Gemv,
            shape: [n, k],
            group_size,
            qzeros,
            scales,
            qweight,
            width,
        })
    }

    /// Groups in a row.
    pub fn groups(&self) -> usize {
        self.shape[1] / self.group_size
    }

    /// The zero points, `[out, groups]`.
    pub fn zeros(&self) -> Vec<u8> {
        let (n, groups) = (self.shape[0], self.groups());
        match self.version {
            AwqVersion::Gemm => {
                let words = self.qzeros.bytes().as_chunks::<4>().0.iter();
                let zeros = words.map(|word| {
                    PLACE.map(|place| (u32::from_le_bytes(*word) >> (4 * place)) as u8 & 15)
                });
                let zeros: Vec<[u8; PACK]> = zeros.collect();
                transpose(zeros.as_flattened(), 1, [groups, n])
            }
            AwqVersion::Gemv => {
                let stored = Codes::new(self.qzeros.bytes().clone(), 4);
                let row = self.width * PACK;
                let zeros = (0..n * groups).map(|i| stored.get(i / groups * row + i % groups));
                zeros.collect()
            }
        }
    }

    /// The scales in the dtype that is computed in, `[out, groups]`.
    ///
    /// # Errors
    /// If one is not finite, or too large for that dtype.
    pub fn computed_scales(&self) -> Result<Floats> {
        let (n, groups) = (self.shape[0], self.groups());
        let stored = floats(&self.scales)?;
        match self.version {
            AwqVersion::Gemm => Ok(stored.transposed(groups, n)),
            AwqVersion::Gemv => {
                let mut values = vec![0.0; n * groups];
                for (row, values) in values.chunks_exact_mut(groups).enumerate() {
                    stored.read(row * self.width * PACK, values);
                }
                Ok(Floats::from_f32(&values, stored.format())?)
            }
        }
    }

    /// # Errors
    /// If a scale or a weight is not finite.
    pub fn packed(&self) -> Result<GroupedWeight> {
        let [_, k] = self.shape;
        let scales = self.computed_scales()?;
        let rounding = scales.format();
        let codes = Codes::new(
            match self.version {
                AwqVersion::Gemm => gemm_codes(self.qweight.bytes(), [k, self.width]),
                AwqVersion::Gemv => self.qweight.bytes().clone(),
            },
            4,
        );
        let groups = Groups::Blocks([1, self.group_size]);
        let scales = Scales::Plain(scales);
        Ok(
            GroupedWeight::builder(self.shape, codes, CodeMap::Unsigned, groups, scales)
                .zeros(Zeros::Integers(self.zeros().into()))
                .rounding(rounding)
                .build("int4")?,
        )
    }
}

/// A matrix of words that is not empty, with its sizes.
fn words(layer: &LayerSource, suffix: &str) -> Result<(TensorView, [usize; 2])> {
    let tensor = layer.tensor(suffix)?;
    let sizes = tensor.expect_dtype(&[Dtype::I32])?.matrix()?;
    Ok((tensor, sizes))
}

/// The values of `scales`. The libraries compute in half precision at most.
fn floats(scales: &TensorView) -> Result<Floats> {
    let floats = scales.floats()?;
    if floats.format() != FloatFormat::F32 {
        return Ok(floats);
    }
    Floats::from_f32(&scales.to_f32()?, FloatFormat::F16)
        .map_err(|_| scales.error("values in the range of f16", "a larger one"))
}

/// The words of the GEMM layout for integers `[out, cols]`: codes or zero points.
pub fn gemm_words(integers: &[u8], [n, cols]: [usize; 2]) -> Vec<u8> {
    let by_columns = transpose(integers, 1, [n, cols]);
    let eights = by_columns.as_chunks::<PACK>().0.iter();
    let words = eights.map(|eight| {
        let fields = eight.iter().zip(PLACE);
        fields.fold(0, |word, (&field, place)| {
            word | u32::from(field) << (4 * place)
        })
    });
    words.flat_map(u32::to_le_bytes).collect()
}

fn gemm_codes(bytes: &[u8], [k, columns]: [usize; 2]) -> Bytes {
    let source = bytes.as_chunks::<4>().0;
    let word = |row: usize, column: usize| u32::from_le_bytes(source[row * columns + column]);
    if !k.is_multiple_of(PACK) {
        let n = columns * PACK;
        let code = |i: usize| {
            let (row, output) = (i % k, i / k);
            (word(row, output / PACK) >> (4 * PLACE[output % PACK])) as u8
        };
        return Codes::pack(4, (0..n * k).map(code)).bytes;
    }
    // Eight rows of words with eight outputs each become one row of words with eight inputs each.
    let mut turned = vec![[0; 4]; source.len()];
    let rows = source.chunks_exact(PACK * columns);
    for (rows, out) in rows.zip(turned.chunks_exact_mut(PACK * columns)) {
        for (column, out) in out.as_chunks_mut::<PACK>().0.iter_mut().enumerate() {
            let words = std::array::from_fn(|r| u32::from_le_bytes(rows[r * columns + column]));
            let words = turn(words);
            *out = PLACE.map(|place| words[place].to_le_bytes());
        }
    }
    transpose(turned.as_flattened(), 4, [k / PACK, columns * PACK]).into()
}

/// Transposes a matrix of 8 × 8 half bytes: squares of 4, 2 and 1 trade places with those on the
/// other side of the diagonal.
fn turn(mut words: [u32; PACK]) -> [u32; PACK] {
    for (size, mask) in [(4, 0x0000_ffff), (2, 0x00ff_00ff), (1, 0x0f0f_0f0f)] {
        for low in (0..PACK).filter(|row| row & size == 0) {
            let high = low + size;
            let difference = ((words[low] >> (4 * size)) ^ words[high]) & mask;
            words[high] ^= difference;
            words[low] ^= difference << (4 * size);
        }
    }
    words
}

/// Words in a row of `qzeros`; the smaller the groups, the more of them the library rounds up to.
pub fn gemv_width(groups: usize, group_size: usize) -> Option<usize> {
    let multiple = match group_size {
        128.. => 1,
        64 => 2,
        32 => 4,
        _ => return None,
    };
    Some(groups.div_ceil(PACK).next_multiple_of(multiple))
}

//! The library's tensors ↔ our packed form.
//!
//! | type | `_weight_qdata` | `_weight_scale` | `_weight_zero_point` |
//! |---|---|---|---|
//! | `Int8Tensor` | I8 `[out, in]` | floats, one for each block | I8, as the scales; may be missing |
//! | `Float8Tensor` | F8_E4M3 or F8_E5M2 `[out, in]` | floats, one for each block | |
//! | `IntxUnpackedToInt8Tensor` | I8 `[out, in]`, of any width | floats, one for each block | I8 |
//! | `Int4Tensor` | I8 `[out, in / 2]`: the first of two in the low bits | floats `[in / group, out]` | floats, as the scales |
//! | `Int4TilePackedTo4dTensor` | I32 `[out / 8, in / 128, 32, 4]`, padded, see [`tiles`] | `_weight_scale_and_zero`: floats `[in / group, out, 2]` | |
//!
//! `W = round((code − zero) · scale)` in the dtype of the dense weight. The 4-bit types have zero points that
//! are added: `W = round(round(code · scale) + zero)`.

use qoft_scheme::kernels::{
    CodeMap, Codes, FloatFormat, Floats, Fp8Format, GroupedWeight, Groups, Scales, Zeros,
    integer_name,
};
use qoft_scheme::{Dtype, LayerSource, Result, TensorView};

use crate::description::{Description, Kind, WEIGHT};
use crate::tiles;

/// Name of the codes.
pub const CODES: &str = "_weight_qdata";
/// Name of the scales.
pub const SCALES: &str = "_weight_scale";
/// Name of the zero points.
pub const ZEROS: &str = "_weight_zero_point";
/// Name of scales and zero points in one tensor.
pub const BOTH: &str = "_weight_scale_and_zero";
/// The factors of inputs.
const INPUT_SCALES: &str = "_weight_act_pre_scale";
/// The codes of a bias, where that is quantized as well.
const BIAS_CODES: &str = "_bias_qdata";

/// A layer's tensors and what they are, checked against each other.
pub struct AoLayer {
    /// `[out_features, in_features]`.
    pub shape: [usize; 2],
    /// The tensor type.
    pub kind: Kind,
    /// Rows and columns that share a scale.
    pub blocks: [usize; 2],
    /// The dtype to which weights are rounded.
    pub format: FloatFormat,
    /// The codes.
    pub codes: TensorView,
    /// The scales, and the zero points where both are in one tensor.
    pub scales: TensorView,
    /// The zero points that are in a tensor of their own.
    pub zeros: Option<TensorView>,
}

impl AoLayer {
    /// Whether a layer is of the scheme, perhaps damaged.
    pub fn claims(layer: &LayerSource) -> bool {
        // What was made dense is described as it was.
        layer.has(CODES) || Description::is_there(layer) && !layer.has(WEIGHT)
    }

    /// Finds a layer's tensors.
    ///
    /// # Errors
    /// If one is missing or does not fit the others or what the files say of it.
    pub fn parse(layer: &LayerSource) -> Result<Self> {
        let about = Description::read(layer)?;
        if layer.has(INPUT_SCALES) {
            let reason =
                format!("`{INPUT_SCALES}`: layers whose inputs are scaled are not supported");
            return Err(layer.error(reason));
        }
        if layer.has(BIAS_CODES) {
            let reason = format!(
                "`{BIAS_CODES}`: the bias is quantized, too, and torchao cannot compute with such a layer; \
                 quantize it anew with names that end in `.{WEIGHT}` (`re:.*_proj\\.{WEIGHT}`) and without \
                 `_default`, both of which reach biases"
            );
            return Err(layer.error(reason));
        }
        let codes = layer.tensor(CODES)?;
        let is_tiled = about.kind == Kind::Int4Tiles;
        let scales = layer.tensor(if is_tiled { BOTH } else { SCALES })?;
        let own = scales.float_format()?;
        let shape = match about.kind {
            Kind::Int4Tiles => tiled_shape(&codes, &about)?,
            Kind::Int4 => {
                let [n, half] = codes.expect_dtype(&[Dtype::I8, Dtype::U8])?.matrix()?;
                let k = half.checked_mul(2);
                [
                    n,
                    k.ok_or_else(|| codes.error("a matrix", codes.shown_shape()))?,
                ]
            }
            Kind::Float8 => codes
                .expect_dtype(&[Dtype::F8_E4M3, Dtype::F8_E5M2])?
                .matrix()?,
            Kind::Int8 { .. } | Kind::Intx(_) => codes.expect_dtype(&[Dtype::I8])?.matrix()?,
        };
        let [rows, columns] = about.blocks;
        let [n, k] = shape;
        if !n.is_multiple_of(rows) || !k.is_multiple_of(columns) {
            let reason =
                format!("sizes [{n}, {k}] are no multiples of `block_size` [{rows}, {columns}]");
            return Err(layer.error(reason));
        }
        let count = [n / rows, k / columns];
        let zeros = match about.kind {
            Kind::Int8 { .. } => layer.get(ZEROS),
            Kind::Intx(_) | Kind::Int4 => Some(layer.tensor(ZEROS)?),
            Kind::Float8 | Kind::Int4Tiles => None,
        };
        match about.kind {
            Kind::Int4 | Kind::Int4Tiles if rows != 1 => {
                return Err(layer.error("4-bit codes need groups within rows"));
            }
            Kind::Int4Tiles => {
                let [padded, columns] = tiles_shape(&codes)?;
                scales.expect_shape(&[columns / about.blocks[1], padded, 2])?;
            }
            Kind::Int4 => {
                let turned = [count[1], count[0]];
                scales.expect_shape(&turned)?;
                if let Some(zeros) = &zeros {
                    zeros.expect_shape(&turned)?.float_format()?;
                }
            }
            Kind::Int8 { .. } | Kind::Intx(_) | Kind::Float8 => {
                one_for_each(&scales, count)?;
                if let Some(zeros) = &zeros {
                    one_for_each(zeros.expect_dtype(&[Dtype::I8])?, count)?;
                }
            }
        }
        Ok(Self {
            shape,
            kind: about.kind,
            blocks: about.blocks,
            format: about.format.unwrap_or(own),
            codes,
            scales,
            zeros,
        })
    }

    /// Codes and scales stay on the memory map where their order is ours.
    ///
    /// # Errors
    /// If a scale, a zero point or a weight is not finite.
    pub fn packed(&self) -> Result<GroupedWeight> {
        let groups = Groups::Blocks(self.blocks);
        let (codes, map, name) = match self.kind {
            Kind::Int8 { .. } => (self.bytes(), CodeMap::Int8, "int8"),
            Kind::Intx(bits) => (self.bytes(), CodeMap::Int8, integer_name(bits as usize)),
            Kind::Float8 => {
                let format = self.float8();
                (
                    self.bytes(),
                    CodeMap::Table256(format.table()),
                    format.name(),
                )
            }
            Kind::Int4 => {
                let codes = Codes::new(self.codes.bytes().clone(), 4);
                (codes, CodeMap::Table16(signed()), "int4")
            }
            Kind::Int4Tiles => {
                let [_, columns] = tiles_shape(&self.codes)?;
                let codes = tiles::unpack(self.codes.bytes(), columns, self.shape);
                (Codes::pack(4, codes), CodeMap::Table16(centered()), "int4")
            }
        };
        let (scales, zeros) = match self.kind {
            Kind::Int4 | Kind::Int4Tiles => {
                let (scales, zeros) = self.scales_and_offsets()?;
                (scales, Some(Zeros::Offsets(zeros)))
            }
            _ => (self.scales.floats()?, self.integer_zeros()?),
        };
        let weight = GroupedWeight::builder(self.shape, codes, map, groups, Scales::Plain(scales));
        let weight = match zeros {
            Some(zeros) => weight.zeros(zeros),
            None => weight,
        };
        Ok(weight.rounding(self.format).build(name)?)
    }

    /// The format of 8-bit floats.
    pub fn float8(&self) -> Fp8Format {
        match self.codes.dtype() {
            Dtype::F8_E5M2 => Fp8Format::E5m2,
            _ => Fp8Format::E4m3,
        }
    }

    /// The scales as values, row by row.
    ///
    /// # Errors
    /// If one is not finite.
    pub fn scale_values(&self) -> Result<Vec<f32>> {
        match self.kind {
            Kind::Int4 | Kind::Int4Tiles => Ok(values(&self.scales_and_offsets()?.0)),
            _ => self.scales.to_finite_f32(),
        }
    }

    /// The zero points as values, row by row; 0 where there are none.
    ///
    /// # Errors
    /// If one is not finite.
    pub fn zero_values(&self) -> Result<Vec<f32>> {
        match (self.kind, &self.zeros) {
            (Kind::Int4 | Kind::Int4Tiles, _) => Ok(values(&self.scales_and_offsets()?.1)),
            (_, Some(zeros)) => Ok(zeros
                .bytes()
                .iter()
                .map(|&zero| f32::from(zero as i8))
                .collect()),
            (_, None) => Ok(vec![0.0; self.scales.elements()]),
        }
    }

    fn bytes(&self) -> Codes {
        Codes::new(self.codes.bytes().clone(), 8)
    }

    /// Integers up to 128 are exact in every format.
    fn integer_zeros(&self) -> Result<Option<Zeros>> {
        let values = self.zero_values()?;
        if values.iter().all(|zero| *zero == 0.0) {
            return Ok(None);
        }
        Ok(Some(Zeros::Floats(Floats::from_f32(
            &values,
            FloatFormat::Bf16,
        )?)))
    }

    /// Scales and zero points of 4-bit codes, in rows.
    fn scales_and_offsets(&self) -> Result<(Floats, Floats)> {
        let [n, groups] = [self.shape[0], self.shape[1] / self.blocks[1]];
        let Some(zeros) = &self.zeros else {
            let (format, [padded, _]) = (self.scales.float_format()?, tiles_shape(&self.codes)?);
            let both = self.scales.to_finite_f32()?;
            let part = |at: usize| {
                let value = |i: usize| both[(i % groups * padded + i / groups) * 2 + at];
                let values: Vec<f32> = (0..n * groups).map(value).collect();
                Floats::from_f32(&values, format)
            };
            return Ok((part(0)?, part(1)?));
        };
        let turned =
            |tensor: &TensorView| -> Result<Floats> { Ok(tensor.floats()?.transposed(groups, n)) };
        Ok((turned(&self.scales)?, turned(zeros)?))
    }
}

fn values(floats: &Floats) -> Vec<f32> {
    let mut values = vec![0.0; floats.len()];
    floats.read(0, &mut values);
    values
}

/// The numbers of 4-bit codes with a sign.
fn signed() -> Box<[f32; 16]> {
    Box::new(std::array::from_fn(|code| {
        (code as f32) - if code < 8 { 0.0 } else { 16.0 }
    }))
}

/// The numbers of 4-bit codes whose middle is zero.
fn centered() -> Box<[f32; 16]> {
    Box::new(std::array::from_fn(|code| code as f32 - 8.0))
}

/// Demands a value for each block; older releases leave out sizes of 1.
fn one_for_each(tensor: &TensorView, count: [usize; 2]) -> Result<()> {
    let more = |shape: &[usize]| -> Vec<usize> {
        shape.iter().copied().filter(|size| *size != 1).collect()
    };
    match tensor.shape() == count || more(tensor.shape()) == more(&count) {
        true => Ok(()),
        false => Err(tensor.error(format!("shape {count:?}"), tensor.shown_shape())),
    }
}

/// Rows and columns of tiles, with those that only fill them up.
pub fn tiles_shape(codes: &TensorView) -> Result<[usize; 2]> {
    let expected = || codes.error("[rows / 8, columns / 128, 32, 4]", codes.shown_shape());
    match *codes.expect_dtype(&[Dtype::I32])?.shape() {
        [rows, columns, a, b] if [a, b] == tiles::INNER && codes.elements() > 0 => {
            let sizes = (
                rows.checked_mul(tiles::ROWS),
                columns.checked_mul(tiles::COLUMNS),
            );
            let (Some(rows), Some(columns)) = sizes else {
                return Err(expected());
            };
            Ok([rows, columns])
        }
        _ => Err(expected()),
    }
}

/// The true shape of tiles.
fn tiled_shape(codes: &TensorView, about: &Description) -> Result<[usize; 2]> {
    let [rows, columns] = tiles_shape(codes)?;
    let shape = about.shape.unwrap_or([rows, columns]);
    let fits = shape[0] <= rows && shape[1] <= columns && columns.is_multiple_of(about.blocks[1]);
    match fits {
        true => Ok(shape),
        false => {
            let (expected, group) = (format!("at least {shape:?} in groups"), about.blocks[1]);
            Err(codes.error(
                format!("{expected} of {group}"),
                format!("[{rows}, {columns}]"),
            ))
        }
    }
}

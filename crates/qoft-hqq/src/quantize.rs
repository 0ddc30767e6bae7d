//! Quantizing a dense weight as the library does.

use qoft_scheme::kernels::{FloatFormat, Floats, wide};
use qoft_scheme::{
    CodeSearch, DenseLayer, Dtype, Grid, Keys, NewTensor, QuantizedModel, Quantizer, Result,
    ScaledGrid, dtype_name, float_dtype,
};
use serde_json::{Value, json};

use crate::config::{Axis, LayerConfig, Packing, width};
use crate::layout::Reshaped;
use crate::repack::pack;
use crate::solve::{Solver, by_groups};

/// Where transformers has the settings.
const INSIDE: [&str; 2] = ["quant_config", "weight_quant_params"];
/// The library's defaults.
const BITS: f64 = 4.0;
const GROUP_SIZE: usize = 64;

/// The settings of all layers.
pub struct ToHqq {
    bits: f64,
    packing: Packing,
    format: &'static str,
    /// Weights that share a scale; `None`: all of a row or a column.
    group_size: Option<usize>,
    axis: Axis,
    view_as_float: bool,
    solver: Solver,
    /// `skip_modules`.
    skips: Option<Vec<String>>,
}

impl ToHqq {
    /// Reads the settings; `None` if they are of another scheme.
    ///
    /// # Errors
    /// If one has a value that the library or this crate does not have.
    pub fn read(keys: &Keys) -> Result<Option<Self>> {
        if keys.is_of_another(&["hqq"]) {
            return Ok(None);
        }
        let skips = keys.get("skip_modules")?;
        let inside = keys.object(INSIDE[0]);
        let inside = inside.and_then(|keys| keys.object(INSIDE[1]));
        let keys = inside.as_ref().unwrap_or(keys);
        let bits = keys.get::<f64>("nbits")?.unwrap_or(BITS);
        let (packing, format) = width(bits).ok_or_else(|| {
            let reason = format!("expected 8, 6, 5, 4, 3, 2, 1.58 or 1, found {bits}");
            keys.error("nbits", reason)
        })?;
        let axis = match keys.get::<u64>("axis")? {
            Some(0) => Axis::Columns,
            None | Some(1) => Axis::Rows,
            Some(other) => {
                return Err(keys.error("axis", format!("expected 0 or 1, found {other}")));
            }
        };
        let is_null = |all: &Value| all.get("group_size").is_some_and(Value::is_null);
        let group_size = match keys.all().is_some_and(is_null) {
            true => None,
            false => Some(keys.get::<usize>("group_size")?.unwrap_or(GROUP_SIZE)),
        };
        for key in ["quant_scale", "quant_zero"] {
            if keys.flag(key, false)? {
                let reason =
                    "scales or zero points that are quantized themselves are not supported";
                return Err(keys.error(key, reason));
            }
        }
        if !keys.flag("channel_wise", true)? {
            let reason = "one scale for the whole weight is not supported";
            return Err(keys.error("channel_wise", reason));
        }
        let new = Solver::new(bits);
        Ok(Some(Self {
            bits,
            packing,
            format,
            group_size,
            axis,
            view_as_float: keys.flag("view_as_float", false)?,
            solver: Solver {
                round_zero: keys.flag("round_zero", new.round_zero)?,
                optimize: keys.flag("optimize", new.optimize)?,
                ..new
            },
            skips,
        }))
    }

    fn layer(&self, [n, k]: [usize; 2]) -> LayerConfig {
        let whole = match self.axis {
            Axis::Rows => k,
            Axis::Columns => n,
        };
        LayerConfig {
            shape: [n, k],
            group_size: self.group_size.unwrap_or(whole),
            axis: self.axis,
            packing: self.packing,
            view_as_float: self.view_as_float,
            format: self.format,
        }
    }
}

impl Quantizer for ToHqq {
    /// As transformers writes it; the library's own files have none.
    fn config(&self, model: &QuantizedModel) -> Value {
        let skips = model.skips.map_or_else(|| json!(["lm_head"]), |s| json!(s));
        let bits = match self.bits.fract() {
            0.0 => json!(self.bits as u64),
            _ => json!(self.bits),
        };
        json!({
            "quant_method": "hqq",
            INSIDE[0]: {
                INSIDE[1]: {
                    "nbits": bits,
                    "channel_wise": true,
                    "group_size": self.group_size,
                    "optimize": self.solver.optimize,
                    "round_zero": self.solver.round_zero,
                    "axis": i32::from(self.axis == Axis::Rows),
                    "view_as_float": self.view_as_float,
                },
                "scale_quant_params": null,
                "zero_quant_params": null,
                "offload_meta": false,
            },
            "skip_modules": skips,
        })
    }

    fn skips(&self) -> Option<&[String]> {
        self.skips.as_deref()
    }

    /// Scales and zero points get the dtype that the weight has in the model.
    fn quantize(&self, dense: &DenseLayer, search: &dyn CodeSearch) -> Result<Vec<NewTensor>> {
        let layer = self.layer(dense.weight.shape);
        let misfit = |_| {
            let size = layer.group_size;
            let expected = "out_features × in_features to be a multiple of `group_size`";
            dense.sizes_error(format!("{expected} {size}"))
        };
        let reshaped = Reshaped::of(&layer).map_err(misfit)?;
        let (packing, [rows, cols]) = (layer.packing, reshaped.sizes);
        let fills = rows.is_multiple_of(packing.per_word());
        if packing.dtype() != Dtype::I32 && !fills {
            let what = match layer.axis {
                Axis::Rows => "the number of groups",
                Axis::Columns => "`group_size`",
            };
            let expected = format!(
                "{what} ({rows}) to be a multiple of {}, the codes of a byte",
                packing.per_word()
            );
            return Err(dense.sizes_error(expected));
        }
        let grouped = by_groups(&dense.weight.values, layer.axis, reshaped.groups);
        let (scales, zeros) = self.solver.solve(&grouped, layer.group_size, layer.axis);
        drop(grouped);
        let format = dense.format;
        let inverse: Vec<f32> = scales.iter().map(|scale| 1.0 / scale).collect();
        let grid = Numbers {
            stored_scales: stored(&inverse, format)?,
            stored_zeros: stored(&zeros, format)?,
            scales,
            zeros,
            largest: self.solver.largest,
            cols: layer.shape[1],
            axis: layer.axis,
            size: layer.group_size,
            format,
        };
        let codes = search.codes(dense.weight, &grid);
        let words = pack(&codes, rows, packing);
        let word = packing.dtype();
        let dtype = match layer.view_as_float {
            true => float_dtype(format),
            false => word,
        };
        let width = cols * word.bitsize() / dtype.bitsize();
        if cols * word.bitsize() != width * dtype.bitsize() {
            let expected = format!(
                "rows of codes that are whole numbers of {}, as `view_as_float` stores them: here one has \
                 {cols} words of {}",
                dtype_name(dtype),
                dtype_name(word)
            );
            return Err(dense.sizes_error(expected));
        }
        let floats = |name, values: &[f32]| {
            let bytes = format.to_bytes(values);
            dense.new_tensor(name, float_dtype(format), &reshaped.metadata, bytes)
        };
        let height = rows.div_ceil(packing.per_word());
        let mut tensors = vec![
            dense.new_tensor("W_q", dtype, &[height, width], words),
            floats("scale", &grid.stored_scales),
            floats("zero", &grid.stored_zeros),
        ];
        tensors.extend(metadata(dense, self.bits, &layer, &self.solver));
        Ok(tensors)
    }
}

/// The settings as the tensors in which the library keeps them.
fn metadata(dense: &DenseLayer, bits: f64, layer: &LayerConfig, solver: &Solver) -> Vec<NewTensor> {
    let flag = |name, value: bool| dense.new_tensor(name, Dtype::U8, &[], vec![value.into()]);
    let int =
        |name, value: i32| dense.new_tensor(name, Dtype::I32, &[], value.to_le_bytes().to_vec());
    let text = |name, value: &str| {
        dense.new_tensor(name, Dtype::U8, &[value.len()], value.as_bytes().to_vec())
    };
    let nbits = match bits.fract() {
        0.0 => int("nbits", bits as i32),
        _ => dense.new_tensor(
            "nbits",
            Dtype::F32,
            &[],
            (bits as f32).to_le_bytes().to_vec(),
        ),
    };
    let compute_dtype = format!("torch.{}", dense.format.torch_name());
    let view_dtype = match layer.packing.dtype() {
        Dtype::I32 => "torch.int32",
        _ => "torch.uint8",
    };
    let shape = layer.shape.map(|size| size as i64);
    let shape = shape.into_iter().flat_map(i64::to_le_bytes).collect();
    vec![
        nbits,
        dense.new_tensor("shape", Dtype::I64, &[2], shape),
        int("group_size", layer.group_size as i32),
        int("axis", i32::from(layer.axis == Axis::Rows)),
        text("packing", layer.packing.name()),
        text("unpack_view_dtype", view_dtype),
        text("compute_dtype", &compute_dtype),
        flag("view_as_float", layer.view_as_float),
        flag("quant_scale", false),
        flag("quant_zero", false),
        flag("channel_wise", true),
        flag("optimize", solver.optimize),
        flag("round_zero", solver.round_zero),
        flag("offload_meta", false),
        // The settings are these tensors, and texts among them are bytes.
        flag("stores_quant_config", true),
        flag("encoded_state_dict", true),
    ]
}

/// Values as readers find them in a dtype.
///
/// # Errors
/// If one is not finite there.
pub fn stored(values: &[f32], format: FloatFormat) -> Result<Vec<f32>> {
    let floats = Floats::from_f32(values, format)?;
    let mut values = vec![0.0; floats.len()];
    floats.read(0, &mut values);
    Ok(values)
}

/// The numbers that weights of a layer can be, by their scales and zero points.
pub struct Numbers {
    /// Factors from weights to codes: what the library chooses codes with.
    pub scales: Vec<f32>,
    /// Zero points that it chooses codes with.
    pub zeros: Vec<f32>,
    /// The scales that readers find.
    pub stored_scales: Vec<f32>,
    /// The zero points that readers find.
    pub stored_zeros: Vec<f32>,
    /// The largest code.
    pub largest: f32,
    /// Input features.
    pub cols: usize,
    /// Which weights share a scale.
    pub axis: Axis,
    /// How many weights do.
    pub size: usize,
    /// The dtype of scales and zero points, in which readers compute.
    pub format: FloatFormat,
}

impl Numbers {
    /// The place of a weight's scale and zero point.
    fn group(&self, n: usize, k: usize) -> usize {
        let flat = n * self.cols + k;
        match self.axis {
            Axis::Rows => flat / self.size,
            Axis::Columns => flat % self.zeros.len(),
        }
    }

    /// What a code stands for with a scale as readers find it.
    fn number_of(&self, scale: f32, group: usize, code: f32) -> f32 {
        let mut number = [code - self.stored_zeros[group]];
        self.format.round(&mut number);
        number[0] *= scale;
        self.format.round(&mut number);
        number[0]
    }

    /// The same numbers, if the weights of a scale are in one row.
    pub fn within_rows(&self) -> Option<NumbersOfRows<'_>> {
        let within = self.axis == Axis::Rows && self.cols.is_multiple_of(self.size);
        within.then_some(NumbersOfRows(self))
    }
}

impl Grid for Numbers {
    fn nearest(&self, n: usize, k: usize, value: f32) -> (u8, f32) {
        let group = self.group(n, k);
        let code = value * self.scales[group] + self.zeros[group];
        let code = code.round_ties_even().clamp(0.0, self.largest);
        let number = self.number_of(self.stored_scales[group], group, code);
        (code as u8, number)
    }

    fn nearest_in_row(&self, n: usize, values: &[f32], codes: &mut [u8]) {
        let first = n * self.cols;
        wide!(match self.axis {
            Axis::Rows => self.codes_of_groups(first, values, codes),
            Axis::Columns => self.codes_of_turns(first, values, codes),
        });
    }
}

impl Numbers {
    /// A code for each of some weights, with a factor and a zero point for each.
    #[inline(always)]
    fn codes(&self, values: &[f32], numbers: impl Iterator<Item = (f32, f32)>, codes: &mut [u8]) {
        for ((code, &value), (scale, zero)) in codes.iter_mut().zip(values).zip(numbers) {
            let found = value * scale + zero;
            let found = found.round_ties_even().clamp(0.0, self.largest);
            // By way of `i32`, for which there are vectors.
            *code = found as i32 as u8;
        }
    }

    /// Codes of weights that follow each other from weight `first` on, in groups that do as well.
    #[inline(always)]
    fn codes_of_groups(&self, first: usize, values: &[f32], codes: &mut [u8]) {
        let (mut at, mut group) = (0, first / self.size);
        while at < values.len() {
            let end = ((group + 1) * self.size - first).min(values.len());
            let numbers = std::iter::repeat((self.scales[group], self.zeros[group]));
            self.codes(&values[at..end], numbers, &mut codes[at..end]);
            (at, group) = (end, group + 1);
        }
    }

    /// The same in groups that take turns.
    #[inline(always)]
    fn codes_of_turns(&self, first: usize, values: &[f32], codes: &mut [u8]) {
        let (mut at, mut group) = (0, first % self.zeros.len());
        while at < values.len() {
            let end = (at + self.zeros.len() - group).min(values.len());
            let (scales, zeros) = (&self.scales[group..], &self.zeros[group..]);
            let numbers = scales.iter().copied().zip(zeros.iter().copied());
            self.codes(&values[at..end], numbers, &mut codes[at..end]);
            (at, group) = (end, 0);
        }
    }
}

/// [`Numbers`] whose groups are parts of rows.
pub struct NumbersOfRows<'a>(&'a Numbers);

impl Grid for NumbersOfRows<'_> {
    fn nearest(&self, n: usize, k: usize, value: f32) -> (u8, f32) {
        self.0.nearest(n, k, value)
    }
}

impl ScaledGrid for NumbersOfRows<'_> {
    fn groups(&self) -> usize {
        self.0.cols / self.0.size
    }

    fn group(&self, k: usize) -> usize {
        k / self.0.size
    }

    fn scale(&self, n: usize, group: usize) -> f32 {
        self.0.stored_scales[n * self.groups() + group]
    }

    fn storable(&self, n: usize, group: usize, wanted: f32) -> f32 {
        let mut scale = [wanted];
        self.0.format.round(&mut scale);
        // Not one that turns codes over, nor one that the format does not have.
        match scale[0] > 0.0 && scale[0].is_finite() {
            true => scale[0],
            false => self.scale(n, group),
        }
    }

    fn nearest_with(&self, scale: f32, n: usize, k: usize, value: f32) -> (u8, f32) {
        let group = self.0.group(n, k);
        let code = value / scale + self.0.stored_zeros[group];
        let code = code.round_ties_even().clamp(0.0, self.0.largest);
        (code as u8, self.0.number_of(scale, group, code))
    }

    fn number(&self, scale: f32, n: usize, k: usize, code: u8) -> f32 {
        let group = self.0.group(n, k);
        self.0.number_of(scale, group, f32::from(code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_a_row_are_those_of_its_weights() {
        // Groups of four that go on in the next row, and groups that take turns.
        let ([rows, cols], size) = ([6, 10], 4);
        let number = |at: usize| ((at * 37 % 101) as f32 - 50.0) / 7.0;
        for axis in [Axis::Rows, Axis::Columns] {
            let groups = 0..rows * cols / size;
            let grid = Numbers {
                scales: groups.clone().map(|at| 0.3 + 0.1 * at as f32).collect(),
                zeros: groups.clone().map(|at| number(at + 3)).collect(),
                stored_scales: vec![1.0; groups.len()],
                stored_zeros: vec![0.0; groups.len()],
                largest: 15.0,
                cols,
                axis,
                size,
                format: FloatFormat::F32,
            };
            for n in 0..rows {
                let values: Vec<f32> = (0..cols).map(|k| 4.0 * number(n * cols + k)).collect();
                let mut codes = vec![0; cols];
                grid.nearest_in_row(n, &values, &mut codes);
                let places = values.iter().enumerate();
                let expected = places.map(|(k, &value)| grid.nearest(n, k, value).0);
                assert_eq!(codes, expected.collect::<Vec<_>>(), "{axis:?}, row {n}");
            }
        }
    }
}

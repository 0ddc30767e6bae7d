//! Scales by the largest weight of a block, and codes as transformers' quantizer finds them.

use qoft_scheme::kernels::{FloatFormat, Floats, Matrix, block_ranges, power_code};
use qoft_scheme::{
    CodeSearch, DenseLayer, Dtype, Grid, KeptBlocks, Keys, NewTensor, QuantizedModel, Quantizer,
    Result, TensorView, float_dtype,
};
use serde_json::{Value, json};

use crate::config::{
    Activations, BLOCK, DEFAULT_BLOCK, Named, activation_bound, activation_scheme, block_size,
};
use crate::layout::{FORMAT, is_power};
use crate::tensors::{SCALES, WEIGHT};

/// FBGEMM takes rows of smaller weights for rows of this size.
const FBGEMM_LEAST: f32 = 1e-12;

/// The setting that says what weights have one scale together, as other libraries call it.
pub const STRATEGY: &str = "strategy";
const STRATEGIES: [(&str, Strategy); 3] = [
    ("tensor", Strategy::Tensor),
    ("channel", Strategy::Channel),
    ("block", Strategy::Block),
];

/// What weights have one scale together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strategy {
    Tensor,
    /// The weights of an output feature, for which transformers reads FBGEMM's checkpoints.
    Channel,
    Block,
}

/// The settings of all layers.
pub struct ToFp8 {
    form: Form,
    /// `modules_to_not_convert`.
    skips: Option<Vec<String>>,
}

/// The two kinds of checkpoints.
enum Form {
    /// transformers' own: blocks of rows and columns (`None`: the whole matrix), and how their
    /// scales are stored.
    FineGrained(Option<[usize; 2]>, ScaleFormat),
    /// FBGEMM's: a scale for each row. The bound of input scales is only written down.
    Fbgemm(f32),
}

impl ToFp8 {
    /// Reads the settings; `None` if they are of another scheme.
    ///
    /// # Errors
    /// If a setting is impossible.
    pub fn read(keys: &Keys) -> Result<Option<Self>> {
        let strategy = keys.choice(STRATEGY, &STRATEGIES)?;
        let form = match Named::of(keys) {
            None => return Ok(None),
            Some(Named::Fbgemm) => Form::Fbgemm(activation_bound(keys)?),
            Some(_) if strategy == Some(Strategy::Channel) => Form::Fbgemm(activation_bound(keys)?),
            Some(_) => {
                if activation_scheme(keys)? == Activations::Static {
                    let reason = "fixed scales of inputs need calibration data; choose dynamic";
                    return Err(keys.error("activation_scheme", reason));
                }
                let formats = [
                    ("float", ScaleFormat::Floats(FloatFormat::F32)),
                    ("ue8m0", ScaleFormat::Powers),
                ];
                let format = keys.choice("scale_fmt", &formats)?;
                let blocks = match strategy {
                    Some(Strategy::Tensor) => None,
                    Some(Strategy::Block) if keys.value(BLOCK).is_none() => Some(DEFAULT_BLOCK),
                    _ => block_size(keys)?,
                };
                Form::FineGrained(blocks, format.unwrap_or(formats[0].1))
            }
        };
        let skips = match keys.get("modules_to_not_convert")? {
            None => keys.get("ignored_layers")?,
            found => found,
        };
        Ok(Some(Self { form, skips }))
    }
}

impl Quantizer for ToFp8 {
    fn config(&self, model: &QuantizedModel) -> Value {
        match self.form {
            Form::FineGrained(blocks, format) => json!({
                "quant_method": "fp8",
                "activation_scheme": "dynamic",
                "weight_block_size": blocks,
                "modules_to_not_convert": model.skips,
                "modules_to_convert": null,
                "scale_fmt": if format == ScaleFormat::Powers { "ue8m0" } else { "float" },
                "expert_dtype": "fp8",
                "dequantize": false,
            }),
            Form::Fbgemm(bound) => json!({
                "quant_method": "fbgemm_fp8",
                "activation_scale_ub": bound,
                "modules_to_not_convert": model.skips,
            }),
        }
    }

    fn skips(&self) -> Option<&[String]> {
        self.skips.as_deref()
    }

    fn quantize(&self, dense: &DenseLayer, search: &dyn CodeSearch) -> Result<Vec<NewTensor>> {
        let [n, k] = dense.weight.shape;
        let (name, shape, grid) = match self.form {
            Form::FineGrained(blocks, format) => {
                let [rows, cols] = blocks.unwrap_or([n, k]);
                if !n.is_multiple_of(rows) || !k.is_multiple_of(cols) {
                    let expected = format!(
                        "out_features and in_features to be multiples of `weight_block_size` {rows} × {cols}, since transformers has no \
                         scales for parts of blocks"
                    );
                    return Err(dense.sizes_error(expected));
                }
                let grid = Blocks::new(dense.weight, [rows, cols], format, 0.0)?;
                (SCALES[0], [n / rows, k / cols], grid)
            }
            Form::Fbgemm(_) => {
                let mut least = [FBGEMM_LEAST];
                dense.format.round(&mut least);
                let format = ScaleFormat::Floats(FloatFormat::F32);
                let grid = Blocks::new(dense.weight, [1, usize::MAX], format, least[0])?;
                (SCALES[1], [n, 1], grid)
            }
        };
        let codes = search.codes(dense.weight, &grid);
        Ok(vec![
            dense.new_tensor(WEIGHT, Dtype::F8_E4M3, &[n, k], codes),
            dense.new_tensor(name, grid.format.dtype(), &shape, grid.scale_bytes()),
        ])
    }
}

/// How scales are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScaleFormat {
    /// Floats.
    Floats(FloatFormat),
    /// Exponents, as bytes.
    Powers,
}

impl ScaleFormat {
    /// That of a file's scales.
    ///
    /// # Errors
    /// If they are of another dtype.
    pub fn of(scales: &TensorView) -> Result<Self> {
        match is_power(scales) {
            true => Ok(Self::Powers),
            false => scales.float_format().map(Self::Floats),
        }
    }

    fn dtype(self) -> Dtype {
        match self {
            Self::Floats(format) => float_dtype(format),
            Self::Powers => Dtype::F8_E8M0,
        }
    }
}

/// The numbers that weights can be: a scale for each block of rows and columns.
pub struct Blocks {
    blocks: [usize; 2],
    /// Blocks beside each other.
    count: usize,
    format: ScaleFormat,
    /// The scales as readers find them.
    scales: Vec<f32>,
    /// What weights are multiplied with; not always the inverse of what is stored.
    factors: Vec<f32>,
}

impl Blocks {
    /// Scales that bring the largest weight of each block to the largest number. Weights of blocks in
    /// which all are smaller than `least` count as that.
    ///
    /// # Errors
    /// If a scale is not finite in its format.
    pub fn new(
        weight: &Matrix,
        blocks: [usize; 2],
        format: ScaleFormat,
        least: f32,
    ) -> Result<Self> {
        let ranges = block_ranges(weight, blocks);
        let factors = ranges.iter().map(|[low, high]| {
            let largest = high.max(-low).max(least);
            // How PyTorch divides a number by a tensor.
            match largest > 0.0 {
                true => largest.recip() * FORMAT.max(),
                false => 1.0,
            }
        });
        let mut factors: Vec<f32> = factors.collect();
        let exact: Vec<f32> = factors.iter().map(|factor| factor.recip()).collect();
        let scales = match format {
            ScaleFormat::Powers => exact
                .iter()
                .map(|&scale| power_by_logarithm(scale))
                .collect(),
            ScaleFormat::Floats(format) => {
                let stored = Floats::from_f32(&exact, format)?;
                let mut scales = vec![0.0; stored.len()];
                stored.read(0, &mut scales);
                scales
            }
        };
        for (factor, (scale, exact)) in factors.iter_mut().zip(scales.iter().zip(&exact)) {
            if scale != exact {
                *factor = scale.recip();
            }
            // Weights that no scale can tell from zero.
            if !factor.is_finite() {
                *factor = 0.0;
            }
        }
        Ok(Self {
            blocks,
            count: weight.shape[1].div_ceil(blocks[1]),
            format,
            scales,
            factors,
        })
    }

    /// Gives the blocks that stay the scales that they have in a file.
    pub fn keep(&mut self, kept: &KeptBlocks, stored: &[f32]) {
        for block in kept.iter() {
            self.scales[block] = stored[block];
            self.factors[block] = match stored[block].recip() {
                factor if factor.is_finite() => factor,
                _ => 0.0,
            };
        }
    }

    /// The scales as they are stored.
    pub fn scale_bytes(&self) -> Vec<u8> {
        match self.format {
            ScaleFormat::Floats(format) => format.to_bytes(&self.scales),
            ScaleFormat::Powers => self.scales.iter().map(|&scale| power_code(scale)).collect(),
        }
    }
}

impl Grid for Blocks {
    fn nearest(&self, n: usize, k: usize, value: f32) -> (u8, f32) {
        let block = n / self.blocks[0] * self.count + k / self.blocks[1];
        let number = FORMAT.round(value * self.factors[block], FORMAT.max());
        (FORMAT.code(number), number * self.scales[block])
    }

    fn nearest_in_row(&self, n: usize, values: &[f32], codes: &mut [u8]) {
        let first = n / self.blocks[0] * self.count;
        let blocks = values
            .chunks(self.blocks[1])
            .zip(codes.chunks_mut(self.blocks[1]));
        for ((values, codes), factor) in blocks.zip(&self.factors[first..]) {
            for (code, value) in codes.iter_mut().zip(values) {
                *code = FORMAT.code(FORMAT.round(value * factor, FORMAT.max()));
            }
        }
    }
}

/// The power of two that is not smaller, computed by its logarithm as transformers does.
fn power_by_logarithm(scale: f32) -> f32 {
    scale.max(f32::MIN_POSITIVE).log2().ceil().exp2()
}

//! Scales and codes of dense weights, as the library finds them.

use qoft_scheme::kernels::{FP4, Fp8Format, Matrix, block_ranges, code_pairs, fp4_code};
use qoft_scheme::{
    CodeSearch, DenseLayer, Dtype, FloatGrid, Grid, Keys, NewTensor, QuantizedModel, Quantizer,
    Result,
};
use serde_json::{Value, json};

use crate::config::{NAME, NVFP4_GROUP, is_modelopt, settings, skips};
use crate::layout::{SCALES, TENSOR_SCALE, WEIGHT};

/// The key that names a format.
pub const ALGORITHM: &str = "quant_algo";
/// The smallest scale of a group.
const LEAST: f32 = 0.001_953_125;

/// The formats that need no calibration data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Nvfp4,
    Fp8Rows,
}

impl Algorithm {
    const ALL: [(&str, Option<Self>); 4] = [
        ("W4A16_NVFP4", Some(Self::Nvfp4)),
        ("FP8_PER_CHANNEL_PER_TOKEN", Some(Self::Fp8Rows)),
        // They have a fixed scale of inputs.
        ("NVFP4", None),
        ("FP8", None),
    ];
}

/// The settings of all layers.
pub struct ToModelopt {
    algorithm: Algorithm,
    skips: Option<Vec<String>>,
}

impl ToModelopt {
    /// Reads the settings; `None` if they are of another scheme.
    ///
    /// # Errors
    /// If the format is unknown, or needs calibration data.
    pub fn read(keys: &Keys) -> Result<Option<Self>> {
        if keys.method().is_some() && !is_modelopt(keys) {
            return Ok(None);
        }
        let keys = settings(keys);
        let algorithm = match keys.choice(ALGORITHM, &Algorithm::ALL)? {
            None => Algorithm::Nvfp4,
            Some(Some(algorithm)) => algorithm,
            Some(None) => {
                let reason = "fixed scales of inputs need calibration data; choose W4A16_NVFP4 or \
                              FP8_PER_CHANNEL_PER_TOKEN";
                return Err(keys.error(ALGORITHM, reason));
            }
        };
        Ok(Some(Self {
            algorithm,
            skips: skips(&keys)?,
        }))
    }
}

impl Quantizer for ToModelopt {
    fn config(&self, model: &QuantizedModel) -> Value {
        let ignore = model.skips.unwrap_or(model.dense);
        let mut config = match self.algorithm {
            Algorithm::Nvfp4 => json!({
                "config_groups": {"group_0": {
                    "weights": {
                        "dynamic": false,
                        "num_bits": 4,
                        "type": "float",
                        "group_size": NVFP4_GROUP,
                    },
                    "targets": ["Linear"],
                }},
            }),
            Algorithm::Fp8Rows => json!({}),
        };
        let mut names = Algorithm::ALL.into_iter();
        let name = names.find(|(_, algorithm)| *algorithm == Some(self.algorithm));
        config["ignore"] = json!(ignore);
        config[ALGORITHM] = json!(name.map(|(name, _)| name));
        config["producer"] = json!({"name": NAME});
        config["quant_method"] = NAME.into();
        config
    }

    fn skips(&self) -> Option<&[String]> {
        self.skips.as_deref()
    }

    fn quantize(&self, dense: &DenseLayer, search: &dyn CodeSearch) -> Result<Vec<NewTensor>> {
        let [n, k] = dense.weight.shape;
        match self.algorithm {
            Algorithm::Nvfp4 => {
                if !k.is_multiple_of(NVFP4_GROUP) {
                    let expected = format!("in_features to be a multiple of {NVFP4_GROUP}");
                    return Err(dense.sizes_error(expected));
                }
                let tensor = tensor_scale(dense.weight);
                let bytes = nvfp4_scales(dense.weight, NVFP4_GROUP, tensor);
                let grid = nvfp4_grid(&bytes, NVFP4_GROUP, k, tensor);
                let codes = search.codes(dense.weight, &grid);
                let tensor = tensor.to_le_bytes().to_vec();
                Ok(vec![
                    dense.new_tensor(WEIGHT, Dtype::U8, &[n, k / 2], code_pairs(&codes)),
                    dense.new_tensor(SCALES, Dtype::F8_E4M3, &[n, k / NVFP4_GROUP], bytes),
                    dense.new_tensor(TENSOR_SCALE, Dtype::F32, &[], tensor),
                ])
            }
            Algorithm::Fp8Rows => {
                let blocks = [1, usize::MAX];
                let scales = reaches(dense.weight, blocks, Fp8Format::E4m3.max());
                let grid = Fp8Grid::new(scales, blocks, k);
                let codes = search.codes(dense.weight, &grid);
                let scales = grid.scales.iter().flat_map(|scale| scale.to_le_bytes());
                Ok(vec![
                    dense.new_tensor(WEIGHT, Dtype::F8_E4M3, &[n, k], codes),
                    dense.new_tensor(SCALES, Dtype::F32, &[n], scales.collect()),
                ])
            }
        }
    }
}

/// For each block what brings its largest weight to `largest`; 1 where all are 0.
pub fn reaches(weight: &Matrix, blocks: [usize; 2], largest: f32) -> Vec<f32> {
    let ranges = block_ranges(weight, blocks).into_iter();
    let reach = ranges.map(|[low, high]| high.max(-low) / largest);
    reach
        .map(|scale| if scale > 0.0 { scale } else { 1.0 })
        .collect()
}

/// The scale of the scales: that of the largest weight is the largest one.
pub fn tensor_scale(weight: &Matrix) -> f32 {
    let scale = reaches(weight, [usize::MAX; 2], FP4[7] * Fp8Format::E4m3.max());
    scale[0]
}

/// NVFP4's scales, as bytes.
pub fn nvfp4_scales(weight: &Matrix, group_size: usize, tensor: f32) -> Vec<u8> {
    let format = Fp8Format::E4m3;
    let scales = block_ranges(weight, [1, group_size]).into_iter();
    let scales = scales.map(|[low, high]| match high.max(-low) / (FP4[7] * tensor) {
        scale if scale > 0.0 => scale.clamp(LEAST, format.max()),
        _ => 1.0,
    });
    scales
        .map(|scale| format.code(format.round(scale, format.max())))
        .collect()
}

/// The numbers of rows of `k` weights in NVFP4.
pub fn nvfp4_grid(bytes: &[u8], group_size: usize, k: usize, tensor: f32) -> FloatGrid {
    let table = Fp8Format::E4m3.table();
    let scale = |&byte: &u8| table[usize::from(byte)] * tensor;
    let scales = bytes.iter().map(scale).collect();
    FloatGrid::new(FP4, nvfp4_code).with_scales(scales, k, group_size)
}

/// FP8 numbers with a scale for each block of rows and columns.
pub struct Fp8Grid {
    blocks: [usize; 2],
    /// Blocks beside each other.
    count: usize,
    scales: Vec<f32>,
    numbers: Box<[f32; 256]>,
}

impl Fp8Grid {
    /// Of rows of `k` weights.
    pub fn new(scales: Vec<f32>, blocks: [usize; 2], k: usize) -> Self {
        Self {
            blocks,
            count: k.div_ceil(blocks[1]),
            scales,
            numbers: Fp8Format::E4m3.table(),
        }
    }
}

impl Grid for Fp8Grid {
    fn nearest(&self, n: usize, k: usize, value: f32) -> (u8, f32) {
        let scale = self.scales[n / self.blocks[0] * self.count + k / self.blocks[1]];
        let scaled = value / scale;
        let code = Fp8Format::E4m3.nearest_code(if scaled.is_nan() { 0.0 } else { scaled });
        (code, self.numbers[usize::from(code)] * scale)
    }
}

/// The library has no sign for zero.
fn nvfp4_code(value: f32) -> u8 {
    if value == 0.0 { 0 } else { fp4_code(value) }
}

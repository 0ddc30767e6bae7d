//! Quantizing a dense weight by the library's rules.

use qoft_scheme::kernels::code_pairs;
use qoft_scheme::{
    CodeSearch, DenseLayer, Dtype, Keys, NewTensor, QuantizedModel, Quantizer, Result, float_dtype,
};
use serde_json::{Value, json};

use crate::config::METHOD;
use crate::fields::Fields;
use crate::floats::ScaleKind;
use crate::grids::{FloatBlocks, IntegerBlocks, global_scale};
use crate::requantize::packed_zeros;
use crate::scheme::{Numbers, Strategy, WeightScheme};
use crate::tensors::{GLOBAL, PACKED, SCALE, SHAPE, WEIGHT, ZERO};

/// Keys of the settings.
pub const SETTINGS: [&str; 6] = [
    "num_bits",
    "type",
    "strategy",
    "group_size",
    "symmetric",
    "block_structure",
];
/// The release whose files are written.
const VERSION: &str = "0.20.0";
/// Groups of 4-bit floats: with 8-bit floats for scales, and with exponents.
const NV_GROUP: usize = 16;
const MX_GROUP: usize = 32;

/// The settings of all layers.
pub struct ToCompressed {
    scheme: WeightScheme,
    /// Dynamic quantization of inputs, which is only written down: it makes no difference to the
    /// weights, but to the format.
    activations: Option<Value>,
    /// `ignore`, without the `re:` of expressions.
    skips: Option<Vec<String>>,
}

impl ToCompressed {
    /// Reads the settings; `None` if they are of another scheme.
    ///
    /// # Errors
    /// If a setting is impossible, or there are several groups.
    pub fn read(keys: &Keys) -> Result<Option<Self>> {
        if keys.is_of_another(&[METHOD]) {
            return Ok(None);
        }
        let groups = keys.object("config_groups");
        let group = match &groups {
            None => None,
            Some(groups) => {
                let names: Vec<&str> = groups.entries().map(|(name, _)| name).collect();
                let [name] = names[..] else {
                    let reason = format!("expected one group, found {}", names.len());
                    return Err(keys.error("config_groups", reason));
                };
                let group = groups.object(name);
                Some(group.ok_or_else(|| groups.error(name, "expected an object"))?)
            }
        };
        let weights = group.as_ref().map(|group| {
            let weights = group.object("weights");
            weights.ok_or_else(|| group.error("weights", "expected an object"))
        });
        let weights = weights.transpose()?;
        let scheme = WeightScheme::read(weights.as_ref().unwrap_or(keys))?;
        if scheme.indexed {
            let reason = "groups in the order of activations need calibration data";
            return Err(keys.error("actorder", reason));
        }
        check(keys, scheme)?;
        let activations = group
            .as_ref()
            .and_then(|group| group.object("input_activations"));
        if let Some(activations) = &activations
            && activations
                .value("dynamic")
                .is_none_or(|dynamic| dynamic == &json!(false))
        {
            let reason = "fixed scales of inputs need calibration data; choose dynamic ones";
            return Err(activations.error("dynamic", reason));
        }
        let activations = activations.and_then(|keys| keys.all().cloned());
        let ignored = keys.get::<Vec<String>>("ignore")?;
        let plain = |name: String| name.strip_prefix("re:").map(str::to_owned).unwrap_or(name);
        Ok(Some(Self {
            scheme,
            activations,
            skips: ignored.map(|names| names.into_iter().map(plain).collect()),
        }))
    }

    fn format(&self) -> &'static str {
        match (self.scheme.numbers, self.activations.is_some()) {
            (Numbers::Integers { .. }, false) => "pack-quantized",
            (Numbers::Integers { .. }, true) => "int-quantized",
            (Numbers::Fp8, false) => "naive-quantized",
            (Numbers::Fp8, true) => "float-quantized",
            (Numbers::Fp4, _) if self.scheme.strategy == Strategy::Group(NV_GROUP) => {
                "nvfp4-pack-quantized"
            }
            (Numbers::Fp4, _) => "mxfp4-pack-quantized",
        }
    }

    /// The arguments as the library writes them.
    fn weights(&self) -> Value {
        let (bits, kind, symmetric) = match self.scheme.numbers {
            Numbers::Integers { bits, symmetric } => (bits, "int", symmetric),
            Numbers::Fp8 => (8, "float", true),
            Numbers::Fp4 => (4, "float", true),
        };
        let (strategy, size, blocks) = match self.scheme.strategy {
            Strategy::Tensor => ("tensor", None, None),
            Strategy::Channel => ("channel", None, None),
            Strategy::Group(size) => ("group", Some(size), None),
            Strategy::Block(sizes) => ("block", None, Some(sizes)),
        };
        let mut weights = json!({
            "num_bits": bits,
            "type": kind,
            "symmetric": symmetric,
            "group_size": size,
            "strategy": strategy,
            "block_structure": blocks,
            "dynamic": false,
            "actorder": null,
        });
        match self.format() {
            "nvfp4-pack-quantized" => {
                weights["strategy"] = json!("tensor_group");
                weights["scale_dtype"] = json!("torch.float8_e4m3fn");
            }
            "mxfp4-pack-quantized" => weights["scale_dtype"] = json!("torch.uint8"),
            _ => {}
        }
        weights
    }
}

/// What the library cannot write.
fn check(keys: &Keys, scheme: WeightScheme) -> Result<()> {
    match (scheme.numbers, scheme.strategy) {
        (Numbers::Fp4, Strategy::Group(NV_GROUP | MX_GROUP)) => Ok(()),
        (Numbers::Fp4, _) => {
            let reason = "4-bit floats are in groups of 16 (NVFP4) or 32 (MXFP4)";
            Err(keys.error("group_size", reason))
        }
        (Numbers::Integers { .. }, Strategy::Block(_)) => {
            Err(keys.error("strategy", "integers are not in blocks of rows and columns"))
        }
        _ => Ok(()),
    }
}

impl Quantizer for ToCompressed {
    fn config(&self, model: &QuantizedModel) -> Value {
        let format = self.format();
        json!({
            "quant_method": METHOD,
            "version": VERSION,
            "format": format,
            "config_groups": {
                "group_0": {
                    "targets": ["Linear"],
                    "weights": self.weights(),
                    "input_activations": self.activations,
                    "output_activations": null,
                    "format": format,
                },
            },
            "ignore": model.skips.unwrap_or(model.dense),
            "kv_cache_scheme": null,
            "quantization_status": "compressed",
            "global_compression_ratio": null,
            "sparsity_config": {},
            "transform_config": {},
        })
    }

    fn skips(&self) -> Option<&[String]> {
        self.skips.as_deref()
    }

    /// Scales have the dtype of the model.
    fn quantize(&self, dense: &DenseLayer, search: &dyn CodeSearch) -> Result<Vec<NewTensor>> {
        let (strategy, [n, k]) = (self.scheme.strategy, dense.weight.shape);
        if let Strategy::Group(size) = strategy
            && !k.is_multiple_of(size)
        {
            let expected = format!("in_features to be a multiple of `group_size` {size}");
            return Err(dense.sizes_error(expected));
        }
        let shape = strategy.scale_shape([n, k]);
        match self.scheme.numbers {
            Numbers::Integers { bits, symmetric } => {
                self.integers(dense, bits as usize, symmetric, &shape, search)
            }
            numbers => {
                let packed = numbers == Numbers::Fp4;
                let kind = match self.format() {
                    "nvfp4-pack-quantized" => {
                        ScaleKind::Fp8Over(global_scale(dense.weight, dense.format))
                    }
                    "mxfp4-pack-quantized" => ScaleKind::Powers,
                    _ => ScaleKind::Floats(dense.format),
                };
                let blocks = strategy.blocks();
                let grid = FloatBlocks::new(dense.weight, blocks, kind, packed, dense.format);
                let codes = search.codes(dense.weight, &grid);
                let scales = match kind {
                    ScaleKind::Floats(format) => float_dtype(format),
                    ScaleKind::Powers => Dtype::U8,
                    ScaleKind::Fp8Over(_) => Dtype::F8_E4M3,
                };
                let mut tensors = vec![
                    match packed {
                        true => {
                            dense.new_tensor(PACKED, Dtype::U8, &[n, k / 2], code_pairs(&codes))
                        }
                        false => dense.new_tensor(WEIGHT, Dtype::F8_E4M3, &[n, k], codes),
                    },
                    dense.new_tensor(SCALE, scales, &shape, grid.scale_bytes()),
                ];
                if let ScaleKind::Fp8Over(global) = kind {
                    let bytes = global.to_le_bytes().to_vec();
                    tensors.push(dense.new_tensor(GLOBAL, Dtype::F32, &[1], bytes));
                }
                Ok(tensors)
            }
        }
    }
}

impl ToCompressed {
    fn integers(
        &self,
        dense: &DenseLayer,
        bits: usize,
        symmetric: bool,
        shape: &[usize],
        search: &dyn CodeSearch,
    ) -> Result<Vec<NewTensor>> {
        let ([n, k], format) = (dense.weight.shape, dense.format);
        let (strategy, middle) = (self.scheme.strategy, 1u8 << (bits - 1));
        let grid = IntegerBlocks::new(dense.weight, strategy.blocks(), bits, symmetric, format);
        let codes = search.codes(dense.weight, &grid);
        let signed = |codes: &[u8]| codes.iter().map(|code| code.wrapping_sub(middle)).collect();
        let scales = format.to_bytes(&grid.scales);
        let mut tensors = vec![dense.new_tensor(SCALE, float_dtype(format), shape, scales)];
        let zeros = grid
            .zeros
            .iter()
            .map(|zero| (zero + f32::from(middle)) as u8);
        let zeros: Vec<u8> = zeros.collect();
        if self.activations.is_some() {
            tensors.push(dense.new_tensor(WEIGHT, Dtype::I8, &[n, k], signed(&codes)));
            if !symmetric {
                tensors.push(dense.new_tensor(ZERO, Dtype::I8, shape, signed(&zeros)));
            }
            return Ok(tensors);
        }
        let fields = Fields::dense(bits);
        let words = fields.write(&codes, k);
        tensors.push(dense.new_tensor(PACKED, Dtype::I32, &[n, fields.words(k)], words));
        let sizes = [n as i64, k as i64].into_iter().flat_map(i64::to_le_bytes);
        tensors.push(dense.new_tensor(SHAPE, Dtype::I64, &[2], sizes.collect()));
        if !symmetric {
            tensors.push(match strategy {
                Strategy::Tensor => dense.new_tensor(ZERO, Dtype::I8, &[1], signed(&zeros)),
                _ => {
                    let shape = [fields.words(n), zeros.len() / n];
                    let bytes = packed_zeros(fields, &zeros, n);
                    dense.new_tensor(ZERO, Dtype::I32, &shape, bytes)
                }
            });
        }
        Ok(tensors)
    }
}

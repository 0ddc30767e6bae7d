//! Rounding a dense weight without calibration data.

use qoft_scheme::{
    CodeSearch, DenseLayer, Dtype, IntegerGrid, Keys, NewTensor, QuantizedModel, Quantizer, Result,
    float_dtype, groups_in_order,
};
use serde_json::{Value, json};

use crate::config::{GptqConfig, ModuleConfig};
use crate::layout::DEFAULT_GROUP_SIZE;
use crate::requantize::tensor_bytes;
use crate::words::words_of;

/// The width where the settings have none.
const DEFAULT_BITS: usize = 4;

/// Sizes of groups that the library's kernels take, beside the whole width of a layer.
const GROUP_SIZES: [usize; 7] = [16, 32, 64, 128, 256, 512, 1024];

/// The settings of all layers.
pub struct ToGptq {
    config: GptqConfig,
    /// `modules_to_not_convert`.
    skips: Option<Vec<String>>,
}

impl ToGptq {
    /// Reads the settings; `None` if they are of another scheme.
    ///
    /// # Errors
    /// If a value is of the wrong kind, or stands for a layout that is not supported.
    pub fn read(keys: &Keys) -> Result<Option<Self>> {
        if keys.is_of_another(&["gptq"]) {
            return Ok(None);
        }
        let config = GptqConfig::read(keys.clone())?;
        let skips = keys.get("modules_to_not_convert")?;
        Ok(Some(Self { config, skips }))
    }
}

impl Quantizer for ToGptq {
    /// With the keys that GPTQModel and AutoGPTQ need to read it.
    fn config(&self, model: &QuantizedModel) -> Value {
        let GptqConfig {
            common,
            zero_points,
            ..
        } = &self.config;
        let size = common.group_size.unwrap_or(DEFAULT_GROUP_SIZE);
        let mut config = json!({
            "quant_method": "gptq",
            "bits": common.bits.unwrap_or(DEFAULT_BITS),
            "group_size": Keys::written_group_size(size),
            "desc_act": common.desc_act,
            "sym": common.sym,
            "lm_head": false,
            "true_sequential": true,
            "checkpoint_format": zero_points.name(),
        });
        if common.desc_act {
            // Calibration takes columns by their activations, and groups stay what they are.
            config["static_groups"] = json!(true);
        }
        if let Some(skips) = model.skips {
            config["modules_to_not_convert"] = json!(skips);
        }
        if let Some(dynamic) = self.config.dynamic() {
            config["dynamic"] = dynamic.clone();
        }
        config
    }

    fn skips(&self) -> Option<&[String]> {
        self.skips.as_deref()
    }

    fn stays_dense(&self, path: &str, _shape: [usize; 2]) -> Result<bool> {
        self.config.leaves_dense(path)
    }

    /// Groups follow each other.
    fn quantize(&self, dense: &DenseLayer, search: &dyn CodeSearch) -> Result<Vec<NewTensor>> {
        let config = &self.config;
        let ModuleConfig {
            bits,
            group_size,
            sym,
            ..
        } = config.module(dense.path)?;
        let bits = bits.unwrap_or(DEFAULT_BITS);
        let [n, k] = dense.weight.shape;
        // The library's kernels take whole words.
        if !n.is_multiple_of(32) || !k.is_multiple_of(32) {
            return Err(dense.sizes_error("out_features and in_features to be multiples of 32"));
        }
        let size = group_size.unwrap_or(DEFAULT_GROUP_SIZE);
        if size < usize::MAX && size != k && !GROUP_SIZES.contains(&size) {
            let sizes = GROUP_SIZES.map(|size| size.to_string()).join(", ");
            let reason = format!(
                "GPTQModel loads a group_size of {sizes} or -1 for whole rows, found {size}"
            );
            return Err(dense.error(reason));
        }
        let size = size.min(k);
        let groups = k.div_ceil(size);
        let mut grid = IntegerGrid::new(n, groups_in_order(k, size), groups, bits, dense.format);
        let codes = grid.requantize(dense.weight, sym, search);
        let [qweight, qzeros, scales] = tensor_bytes(&codes, &grid, bits, config.zero_points);
        let index: Vec<u8> = grid.index.iter().flat_map(|g| g.to_le_bytes()).collect();
        Ok(vec![
            dense.new_tensor("qweight", Dtype::I32, &[words_of(k, bits), n], qweight),
            dense.new_tensor("qzeros", Dtype::I32, &[groups, words_of(n, bits)], qzeros),
            dense.new_tensor("scales", float_dtype(grid.format), &[groups, n], scales),
            dense.new_tensor("g_idx", Dtype::I32, &[k], index),
        ])
    }
}

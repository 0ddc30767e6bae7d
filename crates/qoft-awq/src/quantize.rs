//! Rounding a dense weight without calibration data.

use qoft_scheme::kernels::{Codes, FloatFormat, transpose};
use qoft_scheme::{
    CodeSearch, DenseLayer, Dtype, IntegerGrid, Keys, NewTensor, QuantizedModel, Quantizer, Result,
    float_dtype, groups_in_order,
};
use serde_json::{Value, json};

use crate::config::{AwqConfig, AwqVersion};
use crate::layout::{DEFAULT_GROUP_SIZE, PACK, gemm_words, gemv_width};
use crate::requantize::{BITS, gemv_zeros, with_starts};

/// The settings of all layers.
pub struct ToAwq {
    config: AwqConfig,
    /// `modules_to_not_convert`.
    skips: Option<Vec<String>>,
}

impl ToAwq {
    /// Reads the settings; `None` if they are of another scheme.
    ///
    /// # Errors
    /// If a value is of the wrong kind, or stands for a layout that is not supported.
    pub fn read(keys: &Keys) -> Result<Option<Self>> {
        if keys.is_of_another(&["awq"]) {
            return Ok(None);
        }
        let mut config = AwqConfig::read(keys.clone())?;
        if let Some(symmetric) = keys.get::<bool>("symmetric")? {
            if symmetric && keys.flag("zero_point", false)? {
                return Err(keys.error("symmetric", "true, and `zero_point` as well"));
            }
            config.zero_point = !symmetric;
        }
        Ok(Some(Self {
            config,
            skips: keys.get("modules_to_not_convert")?,
        }))
    }

    fn version(&self) -> AwqVersion {
        self.config.version.unwrap_or(AwqVersion::Gemm)
    }
}

impl Quantizer for ToAwq {
    /// As AutoAWQ writes it.
    fn config(&self, model: &QuantizedModel) -> Value {
        let size = self.config.common_group_size();
        let size = size.unwrap_or(DEFAULT_GROUP_SIZE);
        json!({
            "quant_method": "awq",
            "bits": 4,
            "group_size": Keys::written_group_size(size),
            "zero_point": self.config.zero_point,
            "version": match self.version() {
                AwqVersion::Gemm => "gemm",
                AwqVersion::Gemv => "gemv",
            },
            "modules_to_not_convert": model.skips,
        })
    }

    fn skips(&self) -> Option<&[String]> {
        self.skips.as_deref()
    }

    fn scales_inputs(&self) -> bool {
        true
    }

    fn quantize(&self, dense: &DenseLayer, search: &dyn CodeSearch) -> Result<Vec<NewTensor>> {
        let config = &self.config;
        let [n, k] = dense.weight.shape;
        let size = config.group_size(dense.path)?;
        let size = size.unwrap_or(DEFAULT_GROUP_SIZE).min(k);
        if !k.is_multiple_of(size) || !k.is_multiple_of(PACK) || !n.is_multiple_of(PACK) {
            let expected = format!(
                "out_features and in_features to be multiples of {PACK}, and the latter of `group_size` {size}"
            );
            return Err(dense.sizes_error(expected));
        }
        let count = k / size;
        // The libraries compute in half precision at most.
        let format = match dense.format {
            FloatFormat::F32 => FloatFormat::F16,
            half => half,
        };
        let mut grid = IntegerGrid::new(n, groups_in_order(k, size), count, BITS, format);
        let codes = grid.requantize(dense.weight, !config.zero_point, search);
        let bytes = format.to_bytes(&grid.scales);
        let dtype = float_dtype(format);
        let integers =
            |name, shape: [usize; 2], bytes| dense.new_tensor(name, Dtype::I32, &shape, bytes);
        match self.version() {
            AwqVersion::Gemm => {
                let scales = transpose(&bytes, format.size(), [n, count]);
                Ok(vec![
                    integers("qweight", [k, n / PACK], gemm_words(&codes, [n, k])),
                    integers(
                        "qzeros",
                        [count, n / PACK],
                        gemm_words(&grid.zeros, [n, count]),
                    ),
                    dense.new_tensor("scales", dtype, &[count, n], scales),
                ])
            }
            AwqVersion::Gemv => {
                let Some(width) = gemv_width(count, size) else {
                    let reason = format!(
                        "the GEMV layout has groups of 32, 64, and 128 or more, found {size}"
                    );
                    return Err(dense.error(reason));
                };
                let zeros = gemv_zeros(&vec![0; n * width * 4], &grid.zeros, n);
                let empty = vec![0; n * width * PACK * format.size()];
                let scales = with_starts(&empty, &bytes, n);
                let codes = Codes::pack(4, codes).bytes.to_vec();
                Ok(vec![
                    integers("qweight", [n, k / PACK], codes),
                    integers("qzeros", [n, width], zeros),
                    dense.new_tensor("scales", dtype, &[n, width * PACK], scales),
                ])
            }
        }
    }
}

//! Scales and codes as OpenAI's `downcast_to_mxfp` finds them, which transformers calls for dense models
//! of gpt-oss.

use qoft_scheme::kernels::{
    FP4, FloatFormat, Matrix, block_exponents, code_pairs, fp4_code, powers_of_two,
};
use qoft_scheme::{
    CodeSearch, DenseLayer, Dtype, FloatGrid, Keys, NewTensor, QuantizedModel, Quantizer, Result,
};
use serde_json::{Value, json};

use crate::config::{METHOD, SKIPS, may_be_mxfp4, skips};
use crate::layout::{BLOCK, BLOCKS, GROUP, SCALES};

/// The settings of all layers.
pub struct ToMxfp4 {
    skips: Option<Vec<String>>,
}

impl ToMxfp4 {
    /// Reads the settings; `None` if they are of another scheme.
    ///
    /// # Errors
    /// If the list of modules is none.
    pub fn read(keys: &Keys) -> Result<Option<Self>> {
        match may_be_mxfp4(keys) {
            true => Ok(Some(Self {
                skips: skips(keys)?,
            })),
            false => Ok(None),
        }
    }
}

impl Quantizer for ToMxfp4 {
    fn config(&self, model: &QuantizedModel) -> Value {
        json!({"quant_method": METHOD, SKIPS: model.skips.unwrap_or(model.dense)})
    }

    fn skips(&self) -> Option<&[String]> {
        self.skips.as_deref()
    }

    /// Transformers replaces the modules of experts, and no others.
    fn experts_alone(&self) -> bool {
        true
    }

    /// Weights are rounded to bf16 before, as the library does.
    fn quantize(&self, dense: &DenseLayer, search: &dyn CodeSearch) -> Result<Vec<NewTensor>> {
        let [n, k] = dense.weight.shape;
        if !k.is_multiple_of(GROUP) {
            let expected = format!("in_features to be a multiple of {GROUP}");
            return Err(dense.sizes_error(expected));
        }
        let mut weight = dense.weight.clone();
        weight.round(FloatFormat::Bf16);
        if !weight.is_finite() {
            return Err(dense.error("a weight is too large for bf16"));
        }
        let scales = exponents(&weight);
        let codes = search.codes(&weight, &grid(&scales, k));
        let groups = k / GROUP;
        Ok(vec![
            dense.new_tensor(BLOCKS, Dtype::U8, &[n, groups, BLOCK], code_pairs(&codes)),
            dense.new_tensor(SCALES, Dtype::U8, &[n, groups], scales),
        ])
    }
}

/// For each group the exponent of the power of two that brings its largest weight to the largest number,
/// or just below it.
pub fn exponents(weight: &Matrix) -> Vec<u8> {
    block_exponents(weight, [1, GROUP], FP4[7])
}

/// The numbers of rows of `k` weights.
pub fn grid(exponents: &[u8], k: usize) -> FloatGrid {
    FloatGrid::new(FP4, fp4_code).with_coded_scales(exponents, &powers_of_two(), k, GROUP)
}

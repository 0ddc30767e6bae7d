//! Quantizing as EETQ does.

use qoft_scheme::kernels::{FloatFormat, Floats, Matrix};
use qoft_scheme::{
    CodeSearch, DenseLayer, Dtype, Grid, Keys, NewTensor, QuantizedModel, Quantizer, Result,
};
use serde_json::{Value, json};

use crate::config;
use crate::cut::{CODES, SCALES};
use crate::stored::{ByteOrder, TILE};

/// The settings of all layers.
pub struct ToEetq {
    /// `modules_to_not_convert`.
    skips: Option<Vec<String>>,
}

impl ToEetq {
    /// Reads the settings; `None` if they are of another scheme.
    ///
    /// # Errors
    /// If they ask for something else than symmetric 8-bit weights.
    pub fn read(keys: &Keys) -> Result<Option<Self>> {
        if keys.is_of_another(&["eetq"]) {
            return Ok(None);
        }
        config::check_settings(keys)?;
        let skips = keys.get("modules_to_not_convert")?;
        Ok(Some(Self { skips }))
    }
}

impl Quantizer for ToEetq {
    fn config(&self, model: &QuantizedModel) -> Value {
        json!({
            "quant_method": "eetq",
            "weights": "int8",
            "modules_to_not_convert": model.skips,
        })
    }

    fn skips(&self) -> Option<&[String]> {
        self.skips.as_deref()
    }

    /// Tensors have transformers' names, and scales the one dtype that the library has for them.
    fn quantize(&self, dense: &DenseLayer, search: &dyn CodeSearch) -> Result<Vec<NewTensor>> {
        let [n, k] = dense.weight.shape;
        if !n.is_multiple_of(TILE) || !k.is_multiple_of(TILE) {
            return Err(dense.sizes_error(format!(
                "out_features and in_features to be multiples of {TILE}"
            )));
        }
        let grid = ChannelGrid::new(dense.weight, FloatFormat::F16)?;
        let codes = search.codes(dense.weight, &grid);
        let bytes = ByteOrder::Sm80.encode(&codes, [n, k]);
        Ok(vec![
            dense.new_tensor(CODES[0], Dtype::I8, &[k, n], bytes),
            dense.new_tensor(SCALES, Dtype::F16, &[n], grid.scale_bytes()),
        ])
    }
}

/// A scale for each row. The library chooses codes with those that are not rounded yet.
pub struct ChannelGrid {
    exact: Vec<f32>,
    stored: Floats,
}

impl ChannelGrid {
    /// The scales of a weight's rows, stored in `format`.
    ///
    /// # Errors
    /// If one is too large for it.
    pub fn new(weight: &Matrix, format: FloatFormat) -> Result<Self> {
        let largest = |row: &[f32]| row.iter().fold(0.0f32, |max, v| max.max(v.abs()));
        let exact: Vec<f32> = weight.rows().map(|row| largest(row) / 128.0).collect();
        let stored = Floats::from_f32(&exact, format)?;
        Ok(Self { exact, stored })
    }

    /// The scales as they are stored.
    pub fn scale_bytes(&self) -> Vec<u8> {
        self.stored.format().to_bytes(&self.exact)
    }
}

impl Grid for ChannelGrid {
    fn nearest(&self, n: usize, _k: usize, value: f32) -> (u8, f32) {
        // In a row of zeros the library divides 0 by 0, and finds the largest code.
        let code = match self.exact[n] {
            0.0 => 127.0,
            scale => (value / scale).round().clamp(-128.0, 127.0),
        };
        (code as i8 as u8, code * self.stored.get(n))
    }
}

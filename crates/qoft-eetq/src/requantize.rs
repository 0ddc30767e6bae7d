//! Quantizing as EETQ does.

use qoft_core::kernels::{Floats, Matrix};
use qoft_core::{Grid, LayerSource, NewTensor, QuantBackend, RequantizeOptions, Result};

use crate::layout::{Found, SCALES, fused_names};
use crate::stored::{Layout, encode};

/// The layer again, in the layout and scale dtype that it has.
pub fn requantize(
    backend: &dyn QuantBackend,
    layer: &LayerSource,
    weight: &Matrix,
    options: &RequantizeOptions,
    layout: Option<Layout>,
) -> Result<Vec<NewTensor>> {
    let found = Found::read(backend, layer, layout)?;
    if found.is_cut {
        let names = fused_names(layer).map_or(String::new(), |(_, names)| names.join(", "));
        let reason = format!(
            "EETQ quantized {names} as one matrix and then cut its bytes: each of these layers \
             holds bytes of the others, so one of them cannot be written alone. Merge into dense \
             weights instead"
        );
        return Err(layer.error(backend, reason));
    }
    layer.check_weight(backend, weight, found.shape)?;
    let format = layer.tensor(SCALES)?.float_format()?;
    let largest = |row: &[f32]| row.iter().fold(0.0f32, |max, v| max.max(v.abs()));
    let exact: Vec<f32> = weight.rows().map(|row| largest(row) / 128.0).collect();
    let stored = Floats::from_f32(&exact, format).map_err(layer.weight_error(backend))?;
    let grid = Rows { exact, stored };
    let codes = options.search.codes(weight, &grid);
    Ok(vec![
        layer.rewritten(found.name, encode(found.layout, &codes, found.shape))?,
        layer.rewritten(SCALES, format.to_bytes(&grid.exact))?,
    ])
}

/// A scale for each row. The library chooses codes with those that are not rounded yet.
struct Rows {
    exact: Vec<f32>,
    stored: Floats,
}

impl Grid for Rows {
    fn nearest(&self, n: usize, _k: usize, value: f32) -> (u8, f32) {
        // In a row of zeros the library divides 0 by 0, and finds the largest code.
        let code = match self.exact[n] {
            0.0 => 127.0,
            scale => (value / scale).round().clamp(-128.0, 127.0),
        };
        (code as i8 as u8, code * self.stored.get(n))
    }
}

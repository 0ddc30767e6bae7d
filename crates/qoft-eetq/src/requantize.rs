//! Quantizing as EETQ does.

use qoft_scheme::kernels::{Floats, Matrix};
use qoft_scheme::{Grid, LayerSource, NewTensor, QuantBackend, RequantizeOptions, Result};

use crate::layout::{Found, SCALES};
use crate::stored::Layout;

/// The layer again, in the layout and scale dtype that it has. The bytes of layers that were cut
/// from the same matrix change with its codes; their codes and scales stay.
pub fn requantize(
    backend: &dyn QuantBackend,
    layer: &LayerSource,
    weight: &Matrix,
    options: &RequantizeOptions,
    layout: Option<Layout>,
) -> Result<Vec<NewTensor>> {
    let Found {
        name,
        place,
        layout,
        ..
    } = Found::read(backend, layer, layout)?;
    layer.check_weight(backend, weight, place.shape())?;
    let format = layer.tensor(SCALES)?.float_format()?;
    let largest = |row: &[f32]| row.iter().fold(0.0f32, |max, v| max.max(v.abs()));
    let exact: Vec<f32> = weight.rows().map(|row| largest(row) / 128.0).collect();
    let stored = Floats::from_f32(&exact, format).map_err(layer.weight_error(backend))?;
    let grid = Rows { exact, stored };
    let codes = options.search.codes(weight, &grid);
    let parts = place.layers.iter().zip(place.with_codes(layout, &codes));
    let tensors = parts.map(|(path, bytes)| layer.sibling(path).rewritten(name, bytes));
    let scales = layer.rewritten(SCALES, format.to_bytes(&grid.exact));
    tensors.chain([scales]).collect()
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

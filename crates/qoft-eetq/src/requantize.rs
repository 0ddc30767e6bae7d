//! Quantizing a changed weight as EETQ does.

use qoft_scheme::kernels::Matrix;
use qoft_scheme::{NewTensor, Requantize, Result};

use crate::layout::EetqLayer;
use crate::place::SCALES;
use crate::quantize::Rows;

impl EetqLayer {
    /// The layer again, in the layout and scale dtype that it has. The bytes of layers that were
    /// cut from the same matrix change with its codes; their codes and scales stay.
    ///
    /// # Errors
    /// If a scale is not finite, or a tensor is missing.
    pub fn requantize(&self, weight: &Matrix, how: &Requantize) -> Result<Vec<NewTensor>> {
        let layer = &how.current;
        let place = self.place.within(layer, self.name)?;
        let format = self.scales.float_format()?;
        let grid = Rows::new(weight, format)?;
        let codes = how.search.codes(weight, &grid);
        let parts = place
            .layers
            .iter()
            .zip(place.with_codes(self.layout, &codes));
        let tensors = parts.map(|(path, bytes)| layer.sibling(path).rewritten(self.name, bytes));
        let scales = layer.rewritten(SCALES, grid.scale_bytes());
        layer.with_rest(tensors.chain([scales]).collect::<Result<_>>()?)
    }
}

//! Quantizing a changed weight of a layer. Blocks that have not changed keep their scales.

use qoft_scheme::kernels::{Matrix, equal_blocks, powers_of_two};
use qoft_scheme::{NewTensor, Purpose, Requantize, Result};

use crate::layout::{Fp8Layer, WEIGHT, is_power};
use crate::quantize::{Blocks, ScaleFormat};

impl Fp8Layer {
    /// The layer again, with its blocks and the dtype of its scales; fixed scales of inputs stay.
    ///
    /// # Errors
    /// If a scale is not finite, or a tensor is missing.
    pub fn requantize(&self, weight: &Matrix, how: &Requantize) -> Result<Vec<NewTensor>> {
        let format = ScaleFormat::of(&self.scales)?;
        let mut blocks = Blocks::new(weight, self.blocks, format, 0.0)?;
        let before = Matrix::decode(&*self.load(Purpose::Dequantize)?.weight);
        blocks.keep(
            &equal_blocks(weight, &before, self.blocks),
            &self.stored_scales()?,
        );
        drop(before);
        let codes = how.search.codes(weight, &blocks);
        let layer = &how.current;
        layer.with_rest(vec![
            layer.rewritten(WEIGHT, codes)?,
            layer.rewritten(self.scales_name, blocks.scale_bytes())?,
        ])
    }

    /// The scales in the file.
    fn stored_scales(&self) -> Result<Vec<f32>> {
        if !is_power(&self.scales) {
            return self.scales.to_finite_f32();
        }
        let powers = powers_of_two();
        let bytes = self.scales.bytes().iter();
        Ok(bytes.map(|&byte| powers[usize::from(byte)]).collect())
    }
}

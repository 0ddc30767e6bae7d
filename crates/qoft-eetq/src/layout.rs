//! EETQ's tensors ↔ our packed form.

use qoft_scheme::kernels::{CodeMap, Codes, GroupedWeight, Groups, Scales};
use qoft_scheme::{Dtype, Error, LayerSource, Result, TensorView};

use crate::cut::{CutMatrix, LayerCodes, SCALES, sizes};
use crate::detect::{choose, readings};
use crate::stored::{ByteOrder, TILE};

/// A layer's tensors and what they are.
pub struct EetqLayer {
    /// The name of the tensor that holds the codes.
    pub name: &'static str,
    /// Where they are.
    pub cut: CutMatrix,
    /// The order that they have in the file.
    pub order: ByteOrder,
    /// One for each output.
    pub scales: TensorView,
}

impl EetqLayer {
    /// Finds a layer's tensors in a checkpoint whose bytes have some order.
    ///
    /// # Errors
    /// If a tensor is missing or does not fit the others.
    pub fn parse(layer: &LayerSource, order: ByteOrder) -> Result<Self> {
        let LayerCodes { name, tensor, cuts } = LayerCodes::of(layer)?;
        let [_, n] = sizes(&tensor)?;
        let scales = layer.tensor(SCALES)?;
        scales
            .expect_dtype(&[Dtype::F16, Dtype::F32])?
            .expect_shape(&[n])?;
        let readings = readings(&cuts, &[order]);
        // Codes of some other quantizer are where the names say.
        let reading = choose(&readings)
            .or_else(|| readings.first())
            .ok_or_else(|| no_tiles(&tensor))?;
        Ok(Self {
            name,
            cut: reading.cut.clone(),
            order,
            scales,
        })
    }

    /// # Errors
    /// If a scale or a weight is not finite.
    pub fn packed(&self) -> Result<GroupedWeight> {
        let codes = Codes::new(self.cut.codes(self.order), 8);
        let (shape, scales) = (self.cut.shape(), Scales::Plain(self.scales.floats()?));
        let parts = GroupedWeight::builder(shape, codes, CodeMap::Int8, Groups::ROW, scales);
        Ok(parts.build("int8")?)
    }
}

fn no_tiles(tensor: &TensorView) -> Error {
    let expected = format!("sizes that are multiples of {TILE}");
    tensor.error(expected, tensor.shown_shape())
}

//! EETQ's tensors ↔ our packed form.

use qoft_scheme::kernels::{CodeMap, Codes, GroupedWeight, Groups, Scales};
use qoft_scheme::{Dtype, Error, LayerSource, LoadedLinear, Result, TensorView};

use crate::detect::{choose, readings};
use crate::place::{Place, SCALES, Stock, sizes};
use crate::stored::{Layout, TILE};

/// A layer's tensors and what they are.
pub struct EetqLayer {
    /// The name of the tensor that holds the codes.
    pub name: &'static str,
    /// Where they are.
    pub place: Place,
    /// The order that they have in the file.
    pub layout: Layout,
    /// One for each output.
    pub scales: TensorView,
}

impl EetqLayer {
    /// Finds a layer's tensors in a checkpoint whose bytes have some order.
    ///
    /// # Errors
    /// If a tensor is missing or does not fit the others.
    pub fn parse(layer: &LayerSource, layout: Layout) -> Result<Self> {
        let Stock {
            name,
            tensor,
            places,
        } = Stock::of(layer)?;
        let [_, n] = sizes(&tensor)?;
        let scales = layer.tensor(SCALES)?;
        scales
            .expect_dtype(&[Dtype::F16, Dtype::F32])?
            .expect_shape(&[n])?;
        let readings = readings(&places, &[layout]);
        // Codes of some other quantizer are where the names say.
        let reading = choose(&readings)
            .or_else(|| readings.first())
            .ok_or_else(|| no_tiles(&tensor))?;
        Ok(Self {
            name,
            place: reading.place.clone(),
            layout,
            scales,
        })
    }

    /// # Errors
    /// If a scale or a weight is not finite.
    pub fn load(&self) -> Result<LoadedLinear> {
        let codes = Codes {
            bytes: self.place.codes(self.layout).into(),
            bits: 8,
        };
        let (shape, scales) = (self.place.shape(), Scales::Plain(self.scales.floats()?));
        let parts = GroupedWeight::builder(shape, codes, CodeMap::Int8, Groups::ROW, scales);
        Ok(LoadedLinear::new(parts.build("int8")?))
    }
}

fn no_tiles(tensor: &TensorView) -> Error {
    let expected = format!("sizes that are multiples of {TILE}");
    tensor.error(expected, tensor.shown_shape())
}

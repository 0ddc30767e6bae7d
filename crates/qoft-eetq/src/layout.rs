//! EETQ's tensors ↔ our packed form.

use std::sync::Arc;

use qoft_scheme::kernels::{CodeMap, Codes, GroupedWeight, Groups, Scales, check_finite};
use qoft_scheme::{Dtype, Error, LayerSource, LoadedLinear, QuantBackend, Result, TensorView};

use crate::detect::{Reading, choose, has_no_bias};
use crate::place::{Place, sizes};
use crate::stored::{Layout, TILE};

/// The codes, as transformers and as EETQ itself name them.
pub const CODES: [&str; 2] = ["weight", "qweight"];
/// The scales.
pub const SCALES: &str = "weight_scales";

/// A layer's codes as they were found.
pub struct Found {
    /// The name of the tensor that holds them.
    pub name: &'static str,
    /// Where they are.
    pub place: Place,
    /// The order that they have in the file.
    pub layout: Layout,
    scales: TensorView,
}

impl Found {
    /// Reads a layer; without `layout` the order of the bytes is recognized.
    ///
    /// # Errors
    /// If a tensor is missing or does not fit the others.
    pub fn read(
        backend: &dyn QuantBackend,
        layer: &LayerSource,
        layout: Option<Layout>,
    ) -> Result<Self> {
        let is_qweight = layer.has(CODES[1]) && !layer.has(CODES[0]);
        let name = CODES[usize::from(is_qweight)];
        let tensor = layer.tensor(name)?;
        let [k, n] = sizes(&tensor)?;
        layer.check_shape(backend, [n, k])?;
        let scales = layer.tensor(SCALES)?;
        scales
            .expect_dtype(&[Dtype::F16, Dtype::F32])?
            .expect_shape(&[n])?;

        let alone = Place::alone(layer, &tensor, [k, n]);
        let fused = match is_qweight {
            true => Place::fused(layer, k)?,
            false => None,
        };
        let places: Vec<&Place> = fused.iter().chain(&alone).collect();
        let layouts = match layout {
            Some(layout) => vec![layout],
            None if has_no_bias(tensor.bytes()) => vec![Layout::Plain, Layout::Sm80, Layout::Sm70],
            None => vec![Layout::Sm80, Layout::Sm70],
        };
        let readings = readings(&places, &layouts);
        // Codes of some other quantizer: the order that most GPUs use.
        let usual = layout.unwrap_or(Layout::Sm80);
        let reading = choose(&readings)
            .or_else(|| readings.iter().find(|reading| reading.layout == usual))
            .ok_or_else(|| no_tiles(&tensor))?;
        Ok(Self {
            name,
            place: reading.place.clone(),
            layout: reading.layout,
            scales,
        })
    }
}

/// Loads a layer; without `layout` the order of the bytes is recognized.
pub fn load(
    backend: &dyn QuantBackend,
    layer: &LayerSource,
    layout: Option<Layout>,
) -> Result<LoadedLinear> {
    let found = Found::read(backend, layer, layout)?;
    let shape = found.place.shape();
    let codes = found.place.codes(found.layout);
    Ok(LoadedLinear {
        weight: Arc::new(weight(backend, layer, shape, codes, &found.scales)?),
        bias: layer.bias(shape[0])?,
        input_quantizer: None,
    })
}

fn weight(
    backend: &dyn QuantBackend,
    layer: &LayerSource,
    shape: [usize; 2],
    codes: Vec<u8>,
    scales: &TensorView,
) -> Result<GroupedWeight> {
    let codes = Codes {
        bytes: codes.into(),
        bits: 8,
    };
    let values = scales.to_finite_f32()?;
    let plain = Scales::Plain(scales.floats()?);
    let weight = GroupedWeight::new(shape, codes, CodeMap::Int8, Groups::ROW, plain, "int8")
        .map_err(layer.weight_error(backend))?;
    let largest = values.iter().fold(0.0f32, |max, v| max.max(v.abs()));
    if !(largest * 128.0).is_finite() {
        check_finite(&weight).map_err(layer.weight_error(backend))?;
    }
    Ok(weight)
}

fn no_tiles(tensor: &TensorView) -> Error {
    let found = format!("shape {:?}", tensor.shape());
    tensor.error(format!("sizes that are multiples of {TILE}"), found)
}

/// What can be tried. Only in one layout does it matter whether a layer was cut from a larger
/// matrix; in the others all places give the same.
fn readings<'a>(places: &[&'a Place], layouts: &[Layout]) -> Vec<Reading<'a>> {
    let mut readings = Vec::new();
    for &layout in layouts {
        let count = match layout {
            Layout::Sm80 => places.len(),
            Layout::Sm70 | Layout::Plain => 1,
        };
        let places = places.iter().take(count);
        readings.extend(places.map(|&place| Reading { place, layout }));
    }
    readings
}

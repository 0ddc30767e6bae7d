//! EETQ's tensors ↔ our packed form.

use std::ops::Range;
use std::sync::Arc;

use qoft_core::kernels::{CodeMap, Codes, GroupedWeight, Groups, Scales, check_finite};
use qoft_core::{Dtype, Error, LayerSource, LoadedLinear, QuantBackend, Result, TensorView};

use crate::detect::{Reading, choose, has_no_bias};
use crate::stored::{Layout, Stored, TILE};

/// The codes, as transformers and as EETQ itself name them.
pub const CODES: [&str; 2] = ["weight", "qweight"];
/// The scales.
pub const SCALES: &str = "weight_scales";

/// Layers that EETQ itself quantizes as one matrix. It then cuts the finished bytes into columns,
/// which leaves each layer with bytes of the others.
const FUSED: [&[&str]; 2] = [&["q_proj", "k_proj", "v_proj"], &["gate_proj", "up_proj"]];

/// A stored matrix and the channels of it that are wanted.
type Place = (Stored, Range<usize>);

/// A layer's codes as they were found.
pub struct Found {
    /// The tensor that holds them.
    pub name: &'static str,
    /// `[out_features, in_features]`.
    pub shape: [usize; 2],
    /// Row-major.
    pub codes: Vec<u8>,
    /// The order that they had in the file.
    pub layout: Layout,
    /// The layer is one of those that EETQ cuts out of a larger matrix.
    pub is_cut: bool,
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

        let alone = Stored::new(k, vec![(tensor.bytes().clone(), n)]).map(|stored| (stored, 0..n));
        let fused = if is_qweight { fused(layer, k)? } else { None };
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
        let mut codes = vec![0; n * k];
        reading
            .stored
            .decode(reading.layout, reading.channels.clone(), &mut codes);
        Ok(Self {
            name,
            shape: [n, k],
            codes,
            layout: reading.layout,
            is_cut: fused.is_some(),
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
    let (shape, scales) = (found.shape, found.scales);
    Ok(LoadedLinear {
        weight: Arc::new(weight(backend, layer, shape, found.codes, &scales)?),
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

/// Rows and columns.
fn sizes(tensor: &TensorView) -> Result<[usize; 2]> {
    tensor.expect_dtype(&[Dtype::I8])?;
    match *tensor.shape() {
        [rows, columns] => Ok([rows, columns]),
        _ => Err(tensor.error("a matrix", format!("shape {:?}", tensor.shape()))),
    }
}

fn no_tiles(tensor: &TensorView) -> Error {
    let found = format!("shape {:?}", tensor.shape());
    tensor.error(format!("sizes that are multiples of {TILE}"), found)
}

/// The name of a layer, and those of all that EETQ fuses where there is one of this name.
pub fn fused_names<'a>(layer: &LayerSource<'a>) -> Option<(&'a str, &'static [&'static str])> {
    let name = layer.path().rsplit('.').next()?;
    let names = FUSED.into_iter().find(|names| names.contains(&name))?;
    Some((name, names))
}

/// The matrix that a layer of EETQ's own saver may be cut from, with the layer's place in it.
///
/// # Errors
/// If the layer's name says that it has siblings, but they do not make up such a matrix.
fn fused(layer: &LayerSource, rows: usize) -> Result<Option<Place>> {
    let Some((name, names)) = fused_names(layer) else {
        return Ok(None);
    };
    let parent = &layer.path()[..layer.path().len() - name.len()];
    let (mut parts, mut channels, mut first) = (Vec::new(), 0..0, 0);
    for sibling in names {
        let path = format!("{parent}{sibling}");
        let source = layer.sibling(&path);
        // Where a sibling is not quantized, EETQ's saver was not at work.
        if source.has(CODES[0]) {
            return Ok(None);
        }
        let tensor = source.tensor(CODES[1])?;
        let [k, n] = sizes(&tensor)?;
        if k != rows {
            let expected = format!("{rows} rows as in `{}.{}`", layer.path(), CODES[1]);
            return Err(tensor.error(expected, format!("shape {:?}", tensor.shape())));
        }
        if *sibling == name {
            channels = first..first + n;
        }
        first += n;
        parts.push((tensor.bytes().clone(), n));
    }
    Ok(Stored::new(rows, parts).map(|stored| (stored, channels)))
}

/// What can be tried. Only in one layout does it matter whether a layer was cut from a larger
/// matrix; in the others all places give the same.
fn readings<'a>(places: &[&'a Place], layouts: &[Layout]) -> Vec<Reading<'a>> {
    let reading = |(stored, channels): &'a Place, layout| Reading {
        stored,
        channels: channels.clone(),
        layout,
    };
    let mut readings = Vec::new();
    for &layout in layouts {
        let count = if layout == Layout::Sm80 {
            places.len()
        } else {
            1
        };
        readings.extend(
            places
                .iter()
                .take(count)
                .map(|place| reading(place, layout)),
        );
    }
    readings
}

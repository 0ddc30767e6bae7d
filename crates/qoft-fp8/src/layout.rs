//! The scheme's tensors ↔ our packed form.
//!
//! | tensor | dtype | shape |
//! |---|---|---|
//! | `weight` | F8_E4M3 | `[out, in]` |
//! | `weight_scale_inv` or `scale` | F32, F16, BF16; F8_E8M0 or U8 for powers of two | `[⌈out / rows⌉, ⌈in / cols⌉]`; without blocks as below |
//! | or `weight_scale`, `qscale_weight` by other tools | the same | `[out, 1]` or `[out]` for rows, any shape of one element, or as above |
//! | `activation_scale`, `input_scale`, `qscale_act` | float | one element; only where inputs have a fixed scale |
//!
//! `W[n, k] = weight[n, k] · scale[n div rows, k div cols]`. The scale multiplies, whatever its name
//! is.

use std::sync::Arc;

use qoft_scheme::kernels::ops::InputQuantizer;
use qoft_scheme::kernels::{
    CodeMap, Codes, Fp8Format, GroupedWeight, Groups, Scales, powers_of_two,
};
use qoft_scheme::{Dtype, LayerSource, Result, TensorView};

use crate::config::{Activations, Fp8Config};
use crate::input::{DynamicInput, StaticInput};
use crate::tensors::{SCALES, WEIGHT};

/// Those that are of blocks where the configuration has some.
const OF_BLOCKS: [&str; 2] = ["weight_scale_inv", "scale"];
/// Names of the fixed scale of inputs.
const INPUT_SCALES: [&str; 3] = ["activation_scale", "input_scale", "qscale_act"];

/// The numbers of the codes.
pub const FORMAT: Fp8Format = Fp8Format::E4m3;

/// A layer's tensors and what they are, checked against each other.
pub struct Fp8Layer {
    /// `[out_features, in_features]`.
    pub shape: [usize; 2],
    /// Rows and columns that share a scale; [`usize::MAX`] stands for all of them.
    pub blocks: [usize; 2],
    /// The scales' name below the layer's path.
    pub scales_name: &'static str,
    /// The scales.
    pub scales: TensorView,
    codes: TensorView,
    input: Option<Input>,
}

/// How inputs are quantized.
#[derive(Debug, Clone, Copy)]
enum Input {
    Static(StaticInput),
    Dynamic(DynamicInput),
}

impl Fp8Layer {
    /// Finds a layer's tensors.
    ///
    /// # Errors
    /// If one is missing or does not fit the others.
    pub fn parse(layer: &LayerSource, config: &Fp8Config) -> Result<Self> {
        let codes = layer.tensor(WEIGHT)?;
        let shape = codes.expect_dtype(&[Dtype::F8_E4M3])?.matrix()?;
        let found = SCALES.into_iter().find(|name| layer.has(name));
        let scales_name = found.unwrap_or(SCALES[0]);
        let scales = layer.tensor(scales_name)?;
        let only_blocks = OF_BLOCKS.contains(&scales_name);
        let blocks = blocks(&scales, shape, config.blocks, only_blocks)?;
        let input = config.activations.map(|a| input(layer, a, blocks));
        Ok(Self {
            shape,
            blocks,
            scales_name,
            scales,
            codes,
            input: input.transpose()?,
        })
    }

    /// The codes stay on the memory map.
    ///
    /// # Errors
    /// If a scale or a weight is not finite.
    pub fn packed(&self) -> Result<GroupedWeight> {
        let codes = Codes::new(self.codes.bytes().clone(), 8);
        let map = CodeMap::Table256(FORMAT.table());
        let scales = match is_power(&self.scales) {
            true => Scales::coded(self.scales.bytes().clone(), powers_of_two())?,
            false => Scales::Plain(self.scales.floats()?),
        };
        let groups = Groups::Blocks(self.blocks);
        let weight = GroupedWeight::builder(self.shape, codes, map, groups, scales);
        Ok(weight.build(FORMAT.name())?)
    }

    /// How inputs are quantized, if that was asked for.
    pub fn input_quantizer(&self) -> Option<Arc<dyn InputQuantizer>> {
        self.input.map(|input| match input {
            Input::Static(input) => Arc::new(input) as Arc<dyn InputQuantizer>,
            Input::Dynamic(input) => Arc::new(input),
        })
    }
}

/// Whether scales are exponents.
pub fn is_power(scales: &TensorView) -> bool {
    matches!(scales.dtype(), Dtype::F8_E8M0 | Dtype::U8)
}

/// Rows and columns that share a scale, where the configuration has `configured`. There has to be one
/// scale for each block.
fn blocks(
    scales: &TensorView,
    [n, k]: [usize; 2],
    configured: Option<[usize; 2]>,
    only_blocks: bool,
) -> Result<[usize; 2]> {
    if !is_power(scales) {
        scales.float_format()?;
    }
    let mut expected = vec![format!("[{n}, 1]"), "one element".to_owned()];
    if let Some([rows, cols]) = configured {
        let sizes = [n.div_ceil(rows), k.div_ceil(cols)];
        if scales.shape() == sizes {
            return Ok([rows, cols]);
        }
        let of_blocks = format!("{sizes:?} for blocks of {rows} × {cols}");
        if only_blocks {
            return Err(scales.error(format!("shape {of_blocks}"), scales.shown_shape()));
        }
        expected.insert(0, of_blocks);
    }
    match *scales.shape() {
        [rows] | [rows, 1] if rows == n && n > 1 => Ok([1, usize::MAX]),
        _ if scales.elements() == 1 => Ok([usize::MAX; 2]),
        _ => Err(scales.error(
            format!("shape {}", expected.join(" or ")),
            scales.shown_shape(),
        )),
    }
}

/// How the inputs of a layer with such blocks are quantized.
fn input(layer: &LayerSource, activations: Activations, blocks: [usize; 2]) -> Result<Input> {
    match activations {
        Activations::Static => {
            let found = INPUT_SCALES.into_iter().find(|name| layer.has(name));
            let tensor = layer.tensor(found.unwrap_or(INPUT_SCALES[0]))?;
            let scale = tensor.one_positive("scale")?;
            Ok(Input::Static(StaticInput { scale }))
        }
        Activations::Dynamic => Ok(Input::Dynamic(DynamicInput {
            size: blocks[1],
            bound: None,
        })),
        Activations::Bounded(bound) => Ok(Input::Dynamic(DynamicInput {
            size: usize::MAX,
            bound: Some(bound),
        })),
    }
}

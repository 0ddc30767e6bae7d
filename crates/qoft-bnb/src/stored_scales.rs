//! The scales of a 4-bit layer as they are stored, and others that can stand in their place.

use qoft_scheme::kernels::FloatFormat;
use qoft_scheme::{Grid, Result, ScaledGrid};

use crate::grid::Levels;
use crate::layout::FourBit;

/// The numbers that a layer's weights can be if only codes and absmax values change, and not what
/// the absmax values are quantized by.
pub struct StoredScales<'a> {
    levels: Levels<16>,
    table: &'a [f32; 16],
    blocksize: usize,
    /// Blocks of a row.
    groups: usize,
    /// Those of the layer.
    scales: Vec<f32>,
    nested: Option<NestedScales<'a>>,
}

/// What codes of absmax values stand for.
struct NestedScales<'a> {
    levels: Levels<256>,
    table: &'a [f32; 256],
    block: usize,
    absmax: Vec<f32>,
    offset: f32,
    /// Those of the layer.
    codes: &'a [u8],
}

impl NestedScales<'_> {
    fn scale(&self, block: usize, code: u8) -> f32 {
        self.table[usize::from(code)] * self.absmax[block / self.block] + self.offset
    }

    fn code(&self, block: usize, scale: f32) -> u8 {
        match self.absmax[block / self.block] {
            0.0 => self.codes[block],
            outer => self.levels.nearest((scale - self.offset) / outer),
        }
    }
}

impl<'a> StoredScales<'a> {
    /// Those of a layer; `None` if its blocks do not end with its rows.
    ///
    /// # Errors
    /// If a scale is not finite.
    pub fn of(layer: &'a FourBit) -> Result<Option<Self>> {
        let (blocksize, [rows, width]) = (layer.state.blocksize, layer.shape);
        if !width.is_multiple_of(blocksize) {
            return Ok(None);
        }
        let groups = width / blocksize;
        let nested = match &layer.nested {
            None => None,
            Some(nested) => Some(NestedScales {
                levels: Levels::new(&nested.table),
                table: &nested.table,
                block: nested.block,
                absmax: nested.absmax.to_finite_f32()?,
                offset: nested.offset,
                codes: layer.absmax.bytes(),
            }),
        };
        let scales = match &nested {
            None => layer.absmax.to_finite_f32()?,
            Some(nested) => {
                let codes = nested.codes.iter().enumerate();
                codes
                    .map(|(block, &code)| nested.scale(block, code))
                    .collect()
            }
        };
        // Layers with more or fewer are refused when they are loaded.
        let fits = scales.len() == rows * groups;
        Ok(fits.then(|| Self {
            levels: Levels::new(&layer.table),
            table: &layer.table,
            blocksize,
            groups,
            scales,
            nested,
        }))
    }

    /// The bytes of the tensor of the absmax values for other scales that can be stored.
    pub fn to_bytes(&self, scales: &[f32]) -> Vec<u8> {
        let Some(nested) = &self.nested else {
            return FloatFormat::F32.to_bytes(scales);
        };
        let blocks = scales.iter().zip(&self.scales).enumerate();
        blocks
            .map(|(block, (&scale, &own))| match scale == own {
                true => nested.codes[block],
                false => nested.code(block, scale),
            })
            .collect()
    }
}

impl Grid for StoredScales<'_> {
    fn nearest(&self, n: usize, k: usize, value: f32) -> (u8, f32) {
        self.nearest_with(self.scale(n, self.group(k)), n, k, value)
    }
}

impl ScaledGrid for StoredScales<'_> {
    fn groups(&self) -> usize {
        self.groups
    }

    fn group(&self, k: usize) -> usize {
        k / self.blocksize
    }

    fn scale(&self, n: usize, group: usize) -> f32 {
        self.scales[n * self.groups + group]
    }

    fn storable(&self, n: usize, group: usize, wanted: f32) -> f32 {
        let block = n * self.groups + group;
        let found = match &self.nested {
            None => wanted,
            Some(nested) => nested.scale(block, nested.code(block, wanted)),
        };
        // Not one that turns codes over.
        match found > 0.0 && found.is_finite() {
            true => found,
            false => self.scales[block],
        }
    }

    fn nearest_with(&self, scale: f32, n: usize, k: usize, value: f32) -> (u8, f32) {
        let code = match scale {
            0.0 => self.levels.nearest(0.0),
            scale => self.levels.nearest(value / scale),
        };
        (code, self.number(scale, n, k, code))
    }

    fn number(&self, scale: f32, _n: usize, _k: usize, code: u8) -> f32 {
        self.table[usize::from(code)] * scale
    }
}

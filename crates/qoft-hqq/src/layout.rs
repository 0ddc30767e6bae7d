//! HQQ's tensors ↔ our packed form.

use qoft_scheme::kernels::{CodeMap, Codes, GroupedWeight, Groups, Scales, Zeros};
use qoft_scheme::{Dtype, LayerSource, Result, TensorView, dtype_name};

use crate::config::{Axis, LayerConfig, Packing};
use crate::repack::repack;
use crate::solve::Solver;

/// A layer's tensors and what they are, checked against each other.
pub struct HqqLayer {
    /// What the layer says of itself.
    pub config: LayerConfig,
    /// What the library looked at when it quantized the layer.
    pub solver: Solver,
    /// How its weight is reshaped.
    pub reshaped: Reshaped,
    /// The scales.
    pub scale: TensorView,
    /// The zero points.
    pub zero: TensorView,
    packed: TensorView,
}

impl HqqLayer {
    /// Finds a layer's tensors.
    ///
    /// # Errors
    /// If one is missing or does not fit the others.
    pub fn parse(layer: &LayerSource) -> Result<Self> {
        let packed = layer.tensor("W_q")?;
        let config = LayerConfig::read(layer)?;
        let reshaped = Reshaped::of(&config).map_err(|reason| layer.error(reason))?;
        let scale = layer.tensor("scale")?;
        scale.expect_shape(&reshaped.metadata)?.float_format()?;
        let zero = layer.tensor("zero")?;
        zero.expect_shape(&reshaped.metadata)?
            .expect_dtype(&[scale.dtype()])?;
        check_packed(&packed, &config, reshaped.sizes)?;
        Ok(Self {
            config,
            solver: Solver::of_layer(layer)?,
            reshaped,
            scale,
            zero,
            packed,
        })
    }

    /// Codes of 8 bits and the scales and zero points stay on the memory map.
    ///
    /// # Errors
    /// If a scale, a zero point or a weight is not finite.
    pub fn packed(&self) -> Result<GroupedWeight> {
        let [rows, cols] = self.reshaped.sizes;
        let groups = match self.config.axis {
            Axis::Rows => Groups::Flat(self.config.group_size),
            Axis::Columns => Groups::Interleaved(cols),
        };
        let packing = self.config.packing;
        let codes = Codes::new(
            match packing {
                Packing::EightBits => self.packed.bytes().clone(),
                _ => repack(self.packed.bytes(), packing, rows * cols).into(),
            },
            packing.bits(),
        );
        let (scales, zeros) = (self.scale.floats()?, self.zero.floats()?);
        // The library subtracts and multiplies in this dtype.
        let rounding = scales.format();
        let scales = Scales::Plain(scales);
        let shape = self.config.shape;
        Ok(
            GroupedWeight::builder(shape, codes, CodeMap::Unsigned, groups, scales)
                .zeros(Zeros::Floats(zeros))
                .rounding(rounding)
                .build(self.config.format)?,
        )
    }
}

/// The weight, reshaped so that a group is a row or a column.
#[derive(Debug, Clone, Copy)]
pub struct Reshaped {
    /// How many groups.
    pub groups: usize,
    /// Rows and columns.
    pub sizes: [usize; 2],
    /// The shape of scales and zero points.
    pub metadata: [usize; 2],
}

impl Reshaped {
    /// How the library reshapes a layer.
    ///
    /// # Errors
    /// If the groups do not divide the weight.
    pub fn of(config: &LayerConfig) -> std::result::Result<Self, String> {
        let ([n, k], size) = (config.shape, config.group_size);
        let groups = n
            .checked_mul(k)
            .filter(|elements| size > 0 && elements.is_multiple_of(size))
            .map(|elements| elements / size)
            .ok_or_else(|| format!("groups of {size} do not divide [{n}, {k}]"))?;
        let (sizes, metadata) = match config.axis {
            Axis::Rows => ([groups, size], [groups, 1]),
            Axis::Columns => ([size, groups], [1, groups]),
        };
        Ok(Self {
            groups,
            sizes,
            metadata,
        })
    }
}

/// Checks the codes of a weight that was reshaped to `rows` × `cols`.
fn check_packed(packed: &TensorView, config: &LayerConfig, [rows, cols]: [usize; 2]) -> Result<()> {
    let packing = config.packing;
    let word = packing.dtype();
    let mut dtypes = vec![word];
    if config.view_as_float {
        dtypes.extend([Dtype::F16, Dtype::BF16, Dtype::F32]);
    }
    packed.expect_dtype(&dtypes)?;
    // Only words of ten codes are filled up with zeros.
    if packing != Packing::ThreeBits && !rows.is_multiple_of(packing.per_word()) {
        let expected = format!("rows for {rows} codes, {} in a word", packing.per_word());
        return Err(packed.error(expected, format!("{:?}", packed.shape())));
    }
    let word_rows = rows.div_ceil(packing.per_word());
    let size = packed.dtype().bitsize();
    let width = cols
        .checked_mul(word.bitsize())
        .filter(|bits| bits.is_multiple_of(size))
        .map(|bits| bits / size)
        .ok_or_else(|| {
            let expected = format!("rows of {cols} words of {}", dtype_name(word));
            packed.error(expected, dtype_name(packed.dtype()))
        })?;
    packed.expect_shape(&[word_rows, width])?;
    Ok(())
}

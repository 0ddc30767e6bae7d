//! HQQ's tensors ↔ our packed form.

use std::sync::Arc;

use qoft_scheme::kernels::{
    CodeMap, Codes, FloatFormat, Floats, GroupedWeight, Groups, Scales, Zeros, check_finite,
};
use qoft_scheme::{Dtype, LayerSource, LoadedLinear, QuantBackend, Result, TensorView, dtype_name};

use crate::config::{Axis, LayerConfig, Packing};
use crate::repack::repack;

/// A layer. Codes of 8 bits and the scales and zero points stay on the memory map.
pub fn load(backend: &dyn QuantBackend, layer: &LayerSource) -> Result<LoadedLinear> {
    let packed = layer.tensor("W_q")?;
    let config = LayerConfig::read(backend, layer)?;
    layer.check_shape(backend, config.shape)?;
    let [n, _] = config.shape;
    let Reshaped {
        sizes: reshaped,
        metadata,
        ..
    } = Reshaped::of(backend, layer, &config)?;
    let kind = match config.axis {
        Axis::Rows => Groups::Flat(config.group_size),
        Axis::Columns => Groups::Interleaved(reshaped[1]),
    };
    let scale = layer.tensor("scale")?;
    let zero = layer.tensor("zero")?;
    let scales = scale.expect_shape(&metadata)?.floats()?;
    zero.expect_shape(&metadata)?
        .expect_dtype(&[scale.dtype()])?;
    let zeros = zero.floats()?;
    let codes = codes(&packed, &config, reshaped)?;

    let doubtful = may_overflow(&scales, &zeros, config.packing);
    // The library subtracts and multiplies in this dtype.
    let format = scales.format();
    let weight = GroupedWeight::new(
        config.shape,
        codes,
        CodeMap::Unsigned,
        kind,
        Scales::Plain(scales),
        config.format,
    )
    .and_then(|weight| weight.with_zeros(Zeros::Floats(zeros)))
    .map(|weight| weight.with_rounding(format))
    .map_err(layer.weight_error(backend))?;
    if doubtful {
        check_finite(&weight).map_err(layer.weight_error(backend))?;
    }
    Ok(LoadedLinear {
        weight: Arc::new(weight),
        bias: layer.bias(n)?,
        input_quantizer: None,
    })
}

/// The weight, reshaped so that a group is a row or a column.
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
    pub fn of(
        backend: &dyn QuantBackend,
        layer: &LayerSource,
        config: &LayerConfig,
    ) -> Result<Self> {
        let ([n, k], size) = (config.shape, config.group_size);
        let groups = n
            .checked_mul(k)
            .filter(|elements| elements.is_multiple_of(size))
            .map(|elements| elements / size)
            .ok_or_else(|| {
                let reason = format!("groups of {size} do not divide [{n}, {k}]");
                layer.error(backend, reason)
            })?;
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

/// The codes of a weight that was reshaped to `rows` × `cols`, as a stream.
fn codes(packed: &TensorView, config: &LayerConfig, [rows, cols]: [usize; 2]) -> Result<Codes> {
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
    let bytes = match packing {
        Packing::EightBits => packed.bytes().clone(),
        _ => repack(packed.bytes(), packing, rows * cols).into(),
    };
    Ok(Codes {
        bytes,
        bits: packing.bits(),
    })
}

/// Whether a code could stand for a number that the dtype of the scales cannot hold.
fn may_overflow(scales: &Floats, zeros: &Floats, packing: Packing) -> bool {
    let limit = match scales.format() {
        FloatFormat::F16 => 65_504.0,
        FloatFormat::Bf16 | FloatFormat::F32 => 3.38e38,
    };
    let largest_code = ((1u32 << packing.bits()) - 1) as f32;
    let (mut scale, mut zero) = ([0.0; 64], [0.0; 64]);
    (0..scales.len()).step_by(64).any(|start| {
        let count = (scales.len() - start).min(64);
        scales.read(start, &mut scale[..count]);
        zeros.read(start, &mut zero[..count]);
        scale.iter().zip(&zero).take(count).any(|(scale, zero)| {
            let reach = zero.abs() + largest_code;
            reach > limit || reach * scale.abs() > limit
        })
    })
}

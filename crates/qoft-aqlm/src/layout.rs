//! AQLM's tensors ↔ our packed form.

use std::sync::Arc;

use bytes::Bytes;
use qoft_scheme::kernels::{CodebookShape, CodebookWeight, Floats, transpose};
use qoft_scheme::{Dtype, LayerSource, LoadedLinear, QuantBackend, Result, TensorView, dtype_name};

use crate::config::AqlmConfig;

/// Codebooks of so many entries have their codes turned over by a forward on a CPU.
const PERMUTED_ENTRIES: usize = 256;

/// A layer's tensors and what they are, checked against each other.
pub struct Parts {
    /// `[out_features, in_features]`.
    pub shape: [usize; 2],
    /// All other sizes.
    pub sizes: CodebookShape,
    /// `[out_features / og, in_features / ig, codebooks]`, as wide as in the file.
    pub codes: Bytes,
    /// The order of the codes in the file.
    pub order: Order,
    /// The file has the codes permuted.
    pub permuted: bool,
    /// `[codebooks, entries, og, ig]`.
    pub codebooks: Floats,
    /// `[out_features / og]`.
    pub scales: Floats,
}

impl Parts {
    /// Reads a layer. Codes and large codebooks stay on the memory map.
    ///
    /// # Errors
    /// If a tensor is missing or does not fit the others.
    pub fn read(backend: &dyn QuantBackend, layer: &LayerSource) -> Result<Self> {
        let codes = layer.tensor("codes")?;
        let codebooks = layer.tensor("codebooks")?;
        let scales = layer.tensor("scales")?;
        let sizes = sizes(layer, &codes, &codebooks)?;
        let (og, ig, count) = (
            sizes.out_group_size,
            sizes.in_group_size,
            sizes.num_codebooks,
        );
        let &[out_groups, 1, 1, 1] = scales.shape() else {
            let expected = format!("shape [out_features / {og}, 1, 1, 1]");
            return Err(scales.error(expected, format!("{:?}", scales.shape())));
        };
        let order = order(&codes, &codebooks, &scales).ok_or_else(|| {
            let expected = format!("shape [{out_groups}, in_features / {ig}, {count}]");
            codes.error(expected, format!("{:?}", codes.shape()))
        })?;
        let permuted =
            order == Order::Permuted || order == Order::Either && others_are_permuted(layer);
        let in_groups = codes.shape()[usize::from(!permuted)];

        let product = |groups: usize, size: usize| {
            let too_many =
                || layer.error(backend, format!("{groups} groups of {size} are too many"));
            groups.checked_mul(size).ok_or_else(too_many)
        };
        let shape = [product(out_groups, og)?, product(in_groups, ig)?];
        layer.check_shape(backend, shape)?;
        let codes = if permuted {
            let size = sizes.code_bytes * count;
            transpose(codes.bytes(), size, [in_groups, out_groups]).into()
        } else {
            codes.bytes().clone()
        };
        Ok(Self {
            shape,
            sizes,
            codes,
            order,
            permuted,
            codebooks: codebooks.floats()?,
            scales: scales.floats()?,
        })
    }
}

/// Loads a layer.
pub fn load(backend: &dyn QuantBackend, layer: &LayerSource) -> Result<LoadedLinear> {
    let parts = Parts::read(backend, layer)?;
    let Parts {
        shape,
        sizes,
        codes,
        codebooks,
        scales,
        ..
    } = parts;
    let weight = CodebookWeight::new(shape, sizes, codes, codebooks, scales)
        .map_err(layer.weight_error(backend))?;
    Ok(LoadedLinear {
        weight: Arc::new(weight),
        bias: layer.bias(shape[0])?,
        input_quantizer: None,
    })
}

/// All sizes; they follow from the shape of the codebooks.
fn sizes(layer: &LayerSource, codes: &TensorView, codebooks: &TensorView) -> Result<CodebookShape> {
    codes.expect_dtype(&[Dtype::I8, Dtype::I16, Dtype::I32, Dtype::I64])?;
    let code_bytes = codes.dtype().bitsize() / 8;
    let found = || format!("shape {:?}", codebooks.shape());
    let &[num_codebooks, entries, out_group_size, in_group_size] = codebooks.shape() else {
        return Err(codebooks.error("[codebooks, entries, outputs, inputs]", found()));
    };
    if codebooks.elements() == 0 {
        return Err(codebooks.error("codebooks with entries", found()));
    }
    if let Some(config) = AqlmConfig::read(layer)? {
        let expected = config.codebooks_shape();
        if codebooks.shape() != expected {
            let expected = format!("shape {expected:?}, by the quantization_config");
            return Err(codebooks.error(expected, found()));
        }
    }
    if entries < 2 || !entries.is_power_of_two() {
        return Err(codebooks.error("2, 4, 8 … entries in a codebook", found()));
    }
    let nbits_per_codebook = entries.trailing_zeros();
    if nbits_per_codebook as usize > 8 * code_bytes {
        let expected = format!("an integer of {nbits_per_codebook} bits or more");
        return Err(codes.error(expected, dtype_name(codes.dtype())));
    }
    Ok(CodebookShape {
        out_group_size,
        in_group_size,
        num_codebooks,
        nbits_per_codebook,
        code_bytes,
    })
}

/// The order of the first two dimensions of `codes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Groups of outputs, groups of inputs.
    Plain,
    /// Groups of inputs, groups of outputs: a forward of the library on a CPU turns them over,
    /// and a model that is saved afterwards has them so.
    Permuted,
    /// As many groups of outputs as of inputs, so that it cannot be seen.
    Either,
}

/// The order that the shapes tell; `None` if they do not fit together.
fn order(codes: &TensorView, codebooks: &TensorView, scales: &TensorView) -> Option<Order> {
    let (&[first, second, count], &[codebooks, entries, ..]) = (codes.shape(), codebooks.shape())
    else {
        return None;
    };
    let out_groups = *scales.shape().first()?;
    let permuted = second == out_groups && entries == PERMUTED_ENTRIES;
    match (first == out_groups, permuted) {
        _ if count != codebooks => None,
        (true, true) => Some(Order::Either),
        (true, false) => Some(Order::Plain),
        (false, true) => Some(Order::Permuted),
        (false, false) => None,
    }
}

/// Whether the first layer of the checkpoint that can tell has permuted codes. A forward goes
/// through all layers.
fn others_are_permuted(layer: &LayerSource) -> bool {
    let root = layer.path().split('.').next().unwrap_or_default();
    let names = layer.sibling(root);
    let mut others = names.suffixes().filter_map(|name| {
        let path = format!("{root}.{}", name.strip_suffix(".codes")?);
        let other = layer.sibling(&path);
        let tensors = (
            other.get("codes")?,
            other.get("codebooks")?,
            other.get("scales")?,
        );
        order(&tensors.0, &tensors.1, &tensors.2).filter(|order| *order != Order::Either)
    });
    others.next() == Some(Order::Permuted)
}

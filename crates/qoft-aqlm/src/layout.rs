//! AQLM's tensors ↔ our packed form.

use bytes::Bytes;
use qoft_scheme::kernels::{CodebookShape, CodebookWeight, Floats, transpose};
use qoft_scheme::{Checkpoint, Dtype, LayerSource, Result, TensorView, dtype_name};

use crate::config::AqlmConfig;

/// Codebooks of so many entries have their codes turned over by a forward on a CPU.
const PERMUTED_ENTRIES: usize = 256;

/// A layer's tensors and what they are, checked against each other.
pub struct AqlmLayer {
    /// `[out_features, in_features]`.
    pub shape: [usize; 2],
    /// All other sizes.
    pub sizes: CodebookShape,
    /// The order of the codes in the file.
    pub order: CodesOrder,
    /// The file has the codes permuted.
    pub permuted: bool,
    codes: TensorView,
    codebooks: TensorView,
    scales: TensorView,
}

/// What a layer's tensors hold.
pub struct AqlmTensors {
    /// All sizes but the layer's own.
    pub sizes: CodebookShape,
    /// `[out_features / og, in_features / ig, codebooks]`, as wide as in the file.
    pub codes: Bytes,
    /// `[codebooks, entries, og, ig]`.
    pub codebooks: Floats,
    /// `[out_features / og]`.
    pub scales: Floats,
}

impl AqlmLayer {
    /// Finds a layer's tensors. `permuted` says whether other layers have their codes turned over.
    ///
    /// # Errors
    /// If a tensor is missing or does not fit the others.
    pub fn parse(layer: &LayerSource, config: Option<&AqlmConfig>, permuted: bool) -> Result<Self> {
        let codes = layer.tensor("codes")?;
        let codebooks = layer.tensor("codebooks")?;
        let scales = layer.tensor("scales")?;
        let sizes = sizes(config, &codes, &codebooks)?;
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
        let permuted = order == CodesOrder::Permuted || order == CodesOrder::Either && permuted;
        let in_groups = codes.shape()[usize::from(!permuted)];

        let product = |groups: usize, size: usize| {
            let too_many = || layer.error(format!("{groups} groups of {size} are too many"));
            groups.checked_mul(size).ok_or_else(too_many)
        };
        Ok(Self {
            shape: [product(out_groups, og)?, product(in_groups, ig)?],
            sizes,
            order,
            permuted,
            codes,
            codebooks,
            scales,
        })
    }

    /// Groups of outputs and of inputs.
    pub fn groups(&self) -> [usize; 2] {
        [
            self.shape[0] / self.sizes.out_group_size,
            self.shape[1] / self.sizes.in_group_size,
        ]
    }

    /// Bytes of the codes of a group.
    pub fn code_size(&self) -> usize {
        self.sizes.code_bytes * self.sizes.num_codebooks
    }

    /// What the tensors hold. Codes and large codebooks stay on the memory map.
    ///
    /// # Errors
    /// If a value is not finite.
    pub fn tensors(&self) -> Result<AqlmTensors> {
        let codes = if self.permuted {
            let [out_groups, in_groups] = self.groups();
            let sizes = [in_groups, out_groups];
            transpose(self.codes.bytes(), self.code_size(), sizes).into()
        } else {
            self.codes.bytes().clone()
        };
        Ok(AqlmTensors {
            sizes: self.sizes,
            codes,
            codebooks: self.codebooks.floats()?,
            scales: self.scales.floats()?,
        })
    }

    /// # Errors
    /// If a value or a weight is not finite.
    pub fn packed(&self) -> Result<CodebookWeight> {
        let AqlmTensors {
            sizes,
            codes,
            codebooks,
            scales,
        } = self.tensors()?;
        Ok(CodebookWeight::new(
            self.shape, sizes, codes, codebooks, scales,
        )?)
    }
}

/// All sizes; they follow from the shape of the codebooks.
fn sizes(
    config: Option<&AqlmConfig>,
    codes: &TensorView,
    codebooks: &TensorView,
) -> Result<CodebookShape> {
    codes.expect_dtype(&[Dtype::I8, Dtype::I16, Dtype::I32, Dtype::I64])?;
    let code_bytes = codes.dtype().bitsize() / 8;
    let found = || codebooks.shown_shape();
    let &[num_codebooks, entries, out_group_size, in_group_size] = codebooks.shape() else {
        return Err(codebooks.error("[codebooks, entries, outputs, inputs]", found()));
    };
    if codebooks.elements() == 0 {
        return Err(codebooks.error("codebooks with entries", found()));
    }
    if let Some(config) = config {
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
    Ok(CodebookShape::new(
        [out_group_size, in_group_size],
        num_codebooks,
        nbits_per_codebook,
        code_bytes,
    ))
}

/// The order of the first two dimensions of `codes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodesOrder {
    /// Groups of outputs, groups of inputs.
    Plain,
    /// Groups of inputs, groups of outputs: a forward of the library on a CPU turns them over,
    /// and a model that is saved afterwards has them so.
    Permuted,
    /// As many groups of outputs as of inputs, so that it cannot be seen.
    Either,
}

/// The order that the shapes tell; `None` if they do not fit together.
fn order(codes: &TensorView, codebooks: &TensorView, scales: &TensorView) -> Option<CodesOrder> {
    let (&[first, second, count], &[codebooks, entries, ..]) = (codes.shape(), codebooks.shape())
    else {
        return None;
    };
    let out_groups = *scales.shape().first()?;
    let permuted = second == out_groups && entries == PERMUTED_ENTRIES;
    match (first == out_groups, permuted) {
        _ if count != codebooks => None,
        (true, true) => Some(CodesOrder::Either),
        (true, false) => Some(CodesOrder::Plain),
        (false, true) => Some(CodesOrder::Permuted),
        (false, false) => None,
    }
}

/// Whether the first layer of a checkpoint that can tell has permuted codes. A forward goes through
/// all layers.
pub fn is_permuted(checkpoint: &Checkpoint) -> bool {
    let paths = checkpoint
        .names()
        .filter_map(|name| name.strip_suffix(".codes"));
    let mut orders = paths.filter_map(|path| {
        let layer = LayerSource::new(checkpoint, path, None);
        let tensors = (
            layer.get("codes")?,
            layer.get("codebooks")?,
            layer.get("scales")?,
        );
        order(&tensors.0, &tensors.1, &tensors.2).filter(|order| *order != CodesOrder::Either)
    });
    orders.next() == Some(CodesOrder::Permuted)
}

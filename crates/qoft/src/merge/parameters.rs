//! Packed parameters that are no linear layer's, made dense.

use std::collections::BTreeSet;

use qoft_core::kernels::FloatFormat;
use qoft_core::{PackedParameter, float_dtype};

use crate::write::{Data, Output};

/// Packed parameters that are written dense.
#[derive(Default)]
pub(super) struct DenseParameters {
    /// The tensors that they were made of.
    pub parts: BTreeSet<String>,
    /// The parameters, decoded when they are written.
    pub outputs: Vec<Output<'static>>,
}

impl DenseParameters {
    /// Of these, in a format.
    pub fn new(packed: Vec<PackedParameter>, format: FloatFormat) -> Self {
        let mut dense = Self::default();
        for parameter in packed {
            dense.parts.extend(parameter.parts.iter().cloned());
            dense.outputs.push(Output {
                name: parameter.name.clone(),
                dtype: float_dtype(format),
                shape: parameter.shape.clone(),
                data: Data::Made(Box::new(move || Ok(parameter.to_bytes(format)))),
            });
        }
        dense
    }
}

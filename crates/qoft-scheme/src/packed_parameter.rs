//! Packed parameters that are no linear layer's.

use std::fmt;
use std::sync::Arc;

use qoft_kernels::{FloatFormat, Matrix, PackedWeight};

/// A parameter that is packed, but no linear layer's: the weights of all experts of a mixture, for
/// example. It can be made dense.
#[derive(Clone)]
#[non_exhaustive]
pub struct PackedParameter {
    /// The name that the model has for it.
    pub name: String,
    /// Names of the tensors that make it up.
    pub parts: Vec<String>,
    /// Its shape where it is dense.
    pub shape: Vec<usize>,
    matrices: Vec<Arc<dyn PackedWeight>>,
    /// The model has each matrix the other way round.
    transposed: bool,
}

impl PackedParameter {
    /// One matrix.
    pub fn matrix(
        name: impl Into<String>,
        parts: impl Into<Vec<String>>,
        matrix: Arc<dyn PackedWeight>,
    ) -> Self {
        Self {
            name: name.into(),
            parts: parts.into(),
            shape: matrix.shape().to_vec(),
            matrices: vec![matrix],
            transposed: false,
        }
    }

    /// The matrices `[out_features, in_features]` of all experts, which have the same shape. The model has
    /// them as `[experts, in_features, out_features]`.
    pub fn experts(
        name: impl Into<String>,
        parts: impl Into<Vec<String>>,
        matrices: Vec<Arc<dyn PackedWeight>>,
    ) -> Self {
        let [rows, columns] = matrices.first().map_or([0; 2], |matrix| matrix.shape());
        Self {
            name: name.into(),
            parts: parts.into(),
            shape: vec![matrices.len(), columns, rows],
            matrices,
            transposed: true,
        }
    }

    /// The bytes of the dense parameter, decoded one matrix after another.
    pub fn to_bytes(&self, format: FloatFormat) -> Vec<u8> {
        let mut bytes = Vec::new();
        for matrix in &self.matrices {
            let matrix = Matrix::decode(&**matrix);
            let matrix = match self.transposed {
                true => matrix.transposed(),
                false => matrix,
            };
            bytes.extend(format.to_bytes(&matrix.values));
        }
        bytes
    }
}

impl fmt::Debug for PackedParameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} of {:?}", self.name, self.shape, self.parts)
    }
}

#[cfg(test)]
mod tests {
    use qoft_kernels::DenseWeight;

    use super::*;

    #[test]
    fn experts_are_the_other_way_round() {
        let matrix = |values: [f32; 6]| -> Arc<dyn PackedWeight> {
            let bytes = FloatFormat::F32.to_bytes(&values);
            Arc::new(DenseWeight::new(bytes.into(), FloatFormat::F32, [2, 3]))
        };
        let (first, second) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [0.5; 6]);
        let parts = vec!["w_a".to_owned()];
        let both = vec![matrix(first), matrix(second)];
        let experts = PackedParameter::experts("w", parts.clone(), both);
        assert_eq!(experts.shape, [2, 3, 2]);
        let turned = [&[1.0, 4.0, 2.0, 5.0, 3.0, 6.0][..], &second].concat();
        assert_eq!(
            experts.to_bytes(FloatFormat::F16),
            FloatFormat::F16.to_bytes(&turned)
        );
        let one = PackedParameter::matrix("w", parts, matrix(first));
        assert_eq!(one.shape, [2, 3]);
        assert_eq!(
            one.to_bytes(FloatFormat::F32),
            FloatFormat::F32.to_bytes(&first)
        );
    }
}

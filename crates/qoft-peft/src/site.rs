//! The places of a model that rotations are for.

use qoft_core::{Filter, Layer, LayerKind, Matrix};

use crate::tensors::Tensors;

/// A layer as a family of adapters sees it.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Site<'a> {
    /// Module path of the layer, for errors.
    pub path: &'a str,
    /// The kind of the layer.
    pub kind: LayerKind,
    /// Features that a rotation turns: columns of the weight. For a convolution these are all values
    /// of a filter.
    pub in_features: usize,
    /// Rows of the weight: features of the output, or the entries of a table.
    pub out_features: usize,
    /// The filters of a convolution.
    pub filter: Option<Filter>,
    weight: Weight<'a>,
    /// The parameters of the file that an adapter comes from.
    saved: Option<&'a Tensors>,
}

#[derive(Debug, Clone, Copy)]
enum Weight<'a> {
    Layer(&'a dyn Layer),
    Matrix(&'a Matrix),
}

impl<'a> Site<'a> {
    /// The layer at `path` of a model.
    pub fn of(path: &'a str, layer: &'a dyn Layer) -> Self {
        Self {
            path,
            kind: layer.kind(),
            in_features: layer.in_features(),
            out_features: layer.out_features(),
            filter: layer.filter(),
            weight: Weight::Layer(layer),
            saved: None,
        }
    }

    /// A layer that is no convolution, of which only its weight is there, `[out_features,
    /// in_features]`.
    pub fn with_weight(path: &'a str, kind: LayerKind, weight: &'a Matrix) -> Self {
        let [out_features, in_features] = weight.shape;
        Self {
            path,
            kind,
            in_features,
            out_features,
            filter: None,
            weight: Weight::Matrix(weight),
            saved: None,
        }
    }

    /// The same for an adapter whose parameters are among these.
    pub(crate) fn with_saved(self, saved: &'a Tensors) -> Self {
        Self {
            saved: Some(saved),
            ..self
        }
    }

    /// The shape that a parameter of the layer has in the file that the adapter comes from: for sizes
    /// that a configuration leaves open, or that PEFT chose in another way than the configuration says.
    pub fn saved_shape(&self, param: &str) -> Option<&'a [usize]> {
        let (shape, _) = self.saved?.get(&format!("{}.{param}", self.path))?;
        Some(shape)
    }

    /// The frozen weight, `[out_features, in_features]`, decoded.
    pub fn base_weight(&self) -> Matrix {
        match self.weight {
            Weight::Layer(layer) => layer.base_weight(),
            Weight::Matrix(matrix) => matrix.clone(),
        }
    }
}

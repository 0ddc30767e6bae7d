//! An embedding table, with adapters on the rows that are looked up.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Int, Tensor};
use qoft_kernels::{Matrix, PackedWeight};

use crate::adapter::{Adapters, LayerTensor, OftAdapter, WEIGHT};
use crate::frozen::{Frozen, Mergeable};
use crate::lanes;
use crate::layer::Layer;
use crate::ops;
use crate::still::Still;
use qoft_scheme::{LayerKind, Result};

/// `y = table[ids] · R₁ · R₂ …`: the table stays frozen, only the rotations train, unless an
/// adapter has a table of its own.
#[derive(Module, Debug)]
pub struct Embedding {
    weight: Still<Frozen<Arc<dyn PackedWeight>>>,
    /// A row that does not train.
    #[module(skip)]
    padding: Option<usize>,
    adapters: Adapters,
}

impl Embedding {
    /// A frozen table of `[entries, width]`.
    pub fn new(weight: Arc<dyn PackedWeight>) -> Self {
        Self {
            weight: Still::new(Frozen::new(weight)),
            padding: None,
            adapters: Adapters::default(),
        }
    }

    /// The same with a row that gets no gradient where a whole table trains, as the token of the
    /// padding in torch and transformers.
    #[must_use]
    pub fn with_padding(self, padding: Option<usize>) -> Self {
        Self { padding, ..self }
    }

    /// The rows of `ids`, `[batch, time]`: `[batch, time, width]`.
    ///
    /// # Panics
    /// If an id is not a row of the table.
    pub fn forward(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let [batch, time] = ids.dims();
        let rows = match lanes::parts(batch * time).filter(|_| self.adapters.has_own_weight()) {
            None => self.rows(ids),
            Some(parts) => {
                let ids = ids.reshape([1, batch * time]);
                let made = parts.into_iter().map(|(lane, rows)| {
                    let ids = ids.clone().narrow(1, rows.start, rows.len());
                    lanes::with(&lane, || self.rows(ids))
                });
                Tensor::cat(made.collect(), 0)
            }
        };
        let width = rows.dims()[1];
        let rows = self.adapters.turn_input(rows.into());
        rows.into_tensor().reshape([batch, time, width])
    }

    /// The rows of `ids`, before they are turned.
    fn rows(&self, ids: Tensor<2, Int>) -> Tensor<2> {
        let count = ids.dims().iter().product::<usize>();
        match self.adapters.own_weight() {
            Some(own) => self.trained_rows(own.value(), ids.reshape([count])),
            None => ops::embed(&**self.weight.get(), ids),
        }
    }

    /// Rows of a table that may train.
    fn trained_rows(&self, table: Tensor<2>, ids: Tensor<1, Int>) -> Tensor<2> {
        let rows = table.select(0, ids.clone());
        match self.padding.filter(|_| rows.is_tracked()) {
            None => rows,
            Some(padding) => {
                let is_padding = ids.equal_elem(padding as i64).unsqueeze_dim::<2>(1);
                let kept = is_padding.clone().bool_not().float().autodiff();
                rows.clone() * kept + rows.detach() * is_padding.float().autodiff()
            }
        }
    }

    /// The table, as it is without an adapter that has its own.
    pub fn weight(&self) -> &Arc<dyn PackedWeight> {
        self.weight.get()
    }

    /// Adds an adapter after those that are active.
    ///
    /// # Errors
    /// If the name is taken.
    pub fn push_adapter(
        &mut self,
        name: impl Into<String>,
        adapter: impl OftAdapter,
    ) -> Result<()> {
        self.adapters.push(name, adapter)
    }
}

impl Layer for Embedding {
    fn kind(&self) -> LayerKind {
        LayerKind::Embedding
    }

    fn in_features(&self) -> usize {
        self.weight.get().shape()[1]
    }

    fn out_features(&self) -> usize {
        self.weight.get().shape()[0]
    }

    fn adapters(&self) -> &Adapters {
        &self.adapters
    }

    fn adapters_mut(&mut self) -> &mut Adapters {
        &mut self.adapters
    }

    fn base_weight(&self) -> Matrix {
        self.weight.rows()
    }

    fn base_parameters(&self) -> usize {
        self.weight.get().shape().iter().product()
    }

    fn tensors(&self) -> Vec<LayerTensor> {
        vec![LayerTensor {
            dense: self.weight.get().info().dense.is_some(),
            ..LayerTensor::dense(WEIGHT, self.weight.get().shape())
        }]
    }

    fn values(&self, _tensor: &str) -> Vec<f32> {
        self.base_weight().values
    }

    fn mergeable(&self) -> Option<&dyn Mergeable> {
        Some(&*self.weight)
    }

    fn mergeable_mut(&mut self) -> Option<&mut dyn Mergeable> {
        Some(&mut *self.weight)
    }
}

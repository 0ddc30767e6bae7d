//! An embedding table, with adapters on the rows that are looked up.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Int, Tensor};
use qoft_kernels::{Matrix, PackedWeight};

use crate::adapter::OftAdapter;
use crate::adapters::Adapters;
use crate::error::Result;
use crate::frozen::Frozen;
use crate::layer::{Layer, LayerKind};
use crate::ops;

/// `y = table[ids] · R₁ · R₂ …`: the table stays frozen, only the rotations train.
#[derive(Module, Debug)]
pub struct Embedding {
    #[module(skip)]
    weight: Frozen,
    adapters: Adapters,
}

impl Embedding {
    /// A frozen table of `[entries, width]`.
    pub fn new(weight: Arc<dyn PackedWeight>) -> Self {
        Self {
            weight: Frozen::new(weight),
            adapters: Adapters::default(),
        }
    }

    /// The rows of `ids`, `[batch, time]`: `[batch, time, width]`.
    ///
    /// # Panics
    /// If an id is not a row of the table.
    pub fn forward(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let rows = ops::embed(&**self.weight.get(), ids);
        let [batch, time, width] = rows.dims();
        let rows = rows.reshape([batch * time, width]);
        let active = self.adapters.active();
        let rows = active.fold(rows, |rows, slot| slot.adapter().forward(rows));
        rows.reshape([batch, time, width])
    }

    /// The table.
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

    fn adapters(&self) -> &Adapters {
        &self.adapters
    }

    fn adapters_mut(&mut self) -> &mut Adapters {
        &mut self.adapters
    }

    fn base_weight(&self) -> Matrix {
        Matrix::decode(&**self.weight.get())
    }

    fn base_parameters(&self) -> usize {
        self.weight.get().shape().iter().product()
    }

    fn merge(&mut self) -> Result<()> {
        self.weight.merge(LayerKind::Embedding, &mut self.adapters)
    }

    fn unmerge(&mut self) -> Result<()> {
        self.weight
            .unmerge(LayerKind::Embedding, &mut self.adapters)
    }
}

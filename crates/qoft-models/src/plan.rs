//! Which layers a model has: what it is made from where there are no files.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use qoft_core::{Embedding, Error, Linear, LoadedLinear, Result};

use crate::gathered::Gathered;
use crate::layer_spec::{LayerSpec, ScaledBy};
use crate::loader::Origin;
use crate::zeros::Zeros;

/// More values than any norm, bias or similar tensor has.
const LARGEST_TENSOR: usize = 1 << 24;

/// The layers that were asked for.
#[derive(Default)]
pub struct Plan {
    layers: RefCell<Vec<LayerSpec>>,
    /// Module path → number of the layer.
    index: RefCell<HashMap<String, usize>>,
    /// Names of all other tensors.
    tensors: RefCell<BTreeSet<String>>,
    /// Tensors that files may have in the place of those of layers.
    gathered: RefCell<Vec<Gathered>>,
    /// Values by their number: however many layers there are, each size is in memory once.
    zeros: RefCell<BTreeMap<usize, Tensor<1>>>,
}

impl Plan {
    /// All layers, in the order in which they were asked for, the names of all other tensors, and tensors
    /// that files may have in the place of those of layers.
    pub fn into_parts(self) -> (Vec<LayerSpec>, BTreeSet<String>, Vec<Gathered>) {
        let (layers, tensors) = (self.layers.into_inner(), self.tensors.into_inner());
        (layers, tensors, self.gathered.into_inner())
    }

    fn add(&self, spec: LayerSpec) -> Arc<Zeros> {
        let weight = Zeros(spec.shape);
        let mut layers = self.layers.borrow_mut();
        let mut index = self.index.borrow_mut();
        index.insert(spec.path.clone(), layers.len());
        layers.push(spec);
        Arc::new(weight)
    }
}

impl Origin for Plan {
    fn linear(&self, spec: LayerSpec) -> Result<Linear> {
        let loaded = LoadedLinear::shared(self.add(spec));
        Ok(Linear::new(loaded, &Device::flex()))
    }

    fn embedding(&self, spec: LayerSpec) -> Result<Embedding> {
        Ok(Embedding::new(self.add(spec)))
    }

    fn plain(&self, spec: LayerSpec) {
        self.add(spec);
    }

    fn feeds(&self, from: &ScaledBy, into: &str) {
        if let Some(&number) = self.index.borrow().get(into) {
            self.layers.borrow_mut()[number].scaled_by = Some(from.clone());
        }
    }

    fn gathered(&self, tensor: Gathered) {
        self.gathered.borrow_mut().push(tensor);
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor<1>> {
        let count = shape
            .iter()
            .try_fold(1usize, |n, &size| n.checked_mul(size));
        let Some(count) = count.filter(|&count| count <= LARGEST_TENSOR) else {
            let reason = format!("it asks for a tensor `{name}` of {shape:?}");
            return Err(Error::file("config.json", reason));
        };
        self.tensors.borrow_mut().insert(name.to_owned());
        let mut zeros = self.zeros.borrow_mut();
        let made = zeros.entry(count);
        let made = made.or_insert_with(|| Tensor::zeros([count], &Device::flex()));
        Ok(made.clone())
    }
}

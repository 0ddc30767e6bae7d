//! A packed weight that adapters can be multiplied into, and taken out of again.

use std::sync::Arc;

use qoft_kernels::{DenseWeight, FloatFormat, Matrix, PackedWeight};

use crate::adapter::Adapters;
use qoft_scheme::LayerKind;
use qoft_scheme::Result;

/// The weight of a layer, as it is or with merged adapters.
#[derive(Debug, Clone)]
pub(crate) struct Frozen {
    current: Arc<dyn PackedWeight>,
    /// The weight as it was, where the inverse rotations would not bring it back exactly.
    kept: Option<Arc<dyn PackedWeight>>,
}

impl Frozen {
    pub(crate) fn new(weight: Arc<dyn PackedWeight>) -> Self {
        Self {
            current: weight,
            kept: None,
        }
    }

    pub(crate) fn get(&self) -> &Arc<dyn PackedWeight> {
        &self.current
    }

    /// Whether the weight is stored as plain floats.
    pub(crate) fn is_dense(&self) -> bool {
        self.current.info().dense.is_some()
    }

    /// Multiplies the active adapters into the weight, which then is dense.
    pub(crate) fn merge(&mut self, kind: LayerKind, adapters: &mut Adapters) -> Result<()> {
        let replaces = adapters.own_weight().is_some();
        if replaces {
            // What was merged before belongs to the new weight, too.
            self.unmerge(kind, adapters)?;
        }
        if let Some(merged) = adapters.merge_into(kind, || Matrix::decode(&*self.current))? {
            if replaces || !is_f32(&*self.current) {
                self.kept = Some(self.current.clone());
            }
            self.set(&merged);
        }
        Ok(())
    }

    /// Takes all merged adapters out again.
    pub(crate) fn unmerge(&mut self, kind: LayerKind, adapters: &mut Adapters) -> Result<()> {
        match self.kept.take() {
            Some(kept) => {
                self.current = kept;
                adapters.forget_merged(kind);
            }
            None if adapters.merged().next().is_some() => {
                let weight = adapters.take_out(kind, Matrix::decode(&*self.current))?;
                self.set(&weight);
            }
            None => (),
        }
        Ok(())
    }

    fn set(&mut self, weight: &Matrix) {
        self.current = Arc::new(DenseWeight::from_f32(&weight.values, weight.shape));
    }
}

/// Whether the weight is dense and holds what its merged form does: `f32`.
fn is_f32(weight: &dyn PackedWeight) -> bool {
    weight.info().dense == Some(FloatFormat::F32)
}

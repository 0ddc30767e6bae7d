//! Layers of a checkpoint, checked against the model's sizes.

use std::cell::RefCell;
use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use qoft_core::{
    Checkpoint, ClaimedLayer, Embedding, LayerKind, Linear, Purpose, Result, Schemes, dense_weight,
};

use crate::layer_spec::LayerSpec;
use crate::loader::Origin;

/// A checkpoint to be loaded.
pub struct Files<'a> {
    /// The tensors.
    pub checkpoint: &'a Checkpoint,
    /// Its quantization schemes.
    pub schemes: &'a Schemes,
    /// Where norms and biases live.
    pub device: &'a Device,
    /// Called after each block with the numbers of loaded and of all blocks.
    pub progress: RefCell<&'a mut dyn FnMut(usize, usize)>,
    /// Module paths of layers with a bias that the model does not have.
    pub unread_biases: RefCell<Vec<String>>,
}

impl Files<'_> {
    /// Warns of biases that were not read.
    pub fn tell_of_biases(&self) {
        let unread = self.unread_biases.borrow();
        if let Some(first) = unread.first() {
            tracing::warn!(
                "{}: {} layers have a bias that config.json does not ask for, the first is `{first}`; \
                 it is ignored, as transformers does",
                self.checkpoint.path().display(),
                unread.len()
            );
        }
    }
}

impl Origin for Files<'_> {
    fn linear(&self, spec: LayerSpec) -> Result<Linear> {
        let path = &spec.path;
        // Without any tensor no backend could claim the layer; what is missing is the better news.
        if self.checkpoint.under(path).next().is_none() {
            self.checkpoint.tensor(&format!("{path}.weight"))?;
        }
        let source = spec.source(self.checkpoint);
        let mut loaded = self.schemes.load(source, Purpose::Forward)?;
        // Behind the scheme, which may know why there is none.
        if spec.bias {
            self.checkpoint.tensor(&format!("{path}.bias"))?;
        }
        if !spec.bias
            && let Some(bias) = loaded.bias.take()
            && bias.iter().any(|&value| value != 0.0)
        {
            self.unread_biases.borrow_mut().push(path.clone());
        }
        let linear = Linear::new(loaded, self.device);
        let linear = match spec.parameter {
            Some(parameter) => linear.of_parameter(parameter),
            None => linear,
        };
        let linear = match spec.routes {
            true => linear.exact(),
            false => linear,
        };
        Ok(match spec.fan_in_fan_out {
            true => linear.fan_in_fan_out(),
            false => linear,
        })
    }

    fn embedding(&self, spec: LayerSpec) -> Result<Embedding> {
        let table = self.schemes.claim(spec.source(self.checkpoint));
        let reads = |table: &ClaimedLayer| {
            table.is_quantized() && table.capabilities().layers.contains(&LayerKind::Embedding)
        };
        if let Some(table) = table.filter(reads) {
            return Ok(Embedding::new(table.load(Purpose::Forward)?.weight));
        }
        let tensor = self.checkpoint.tensor(&format!("{}.weight", spec.path))?;
        tensor.expect_shape(&spec.shape)?;
        Ok(Embedding::new(Arc::new(dense_weight(&tensor)?)))
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor<1>> {
        let tensor = self.checkpoint.tensor(name)?;
        let values = tensor.expect_shape(shape)?.to_finite_f32()?;
        Ok(Tensor::from_data(values.as_slice(), self.device))
    }

    fn made(&self, done: usize, total: usize) {
        // What was packed anew is in memory of its own now.
        self.checkpoint.release();
        (self.progress.borrow_mut())(done, total);
    }
}

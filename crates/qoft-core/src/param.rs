//! Parameters of adapters.

use burn::module::{Param, ParamId};
use burn::tensor::{Device, Gradients, Tensor, TensorData};

use crate::random::stable_hash;

/// A parameter of an adapter: a name below its layer, a shape of any rank, and values.
///
/// Optimizers, files and devices see the values as a list; an adapter takes them in their shape.
/// They train if they are on an autodiff device.
#[derive(Debug, Clone)]
pub struct AdapterParam {
    name: &'static str,
    shape: Vec<usize>,
    values: Param<Tensor<1>>,
}

impl AdapterParam {
    /// A parameter with these values, row-major, such as `oft_R.weight`. `id` identifies it to
    /// optimizers and their saved states, see [`ParamPlace::id`].
    ///
    /// # Panics
    /// If the number of values does not fit the shape.
    pub fn new(
        name: &'static str,
        shape: impl Into<Vec<usize>>,
        values: Vec<f32>,
        id: ParamId,
        device: &Device,
    ) -> Self {
        let shape = shape.into();
        let wanted = shape.iter().product::<usize>();
        assert_eq!(values.len(), wanted, "values of `{name}`, {shape:?}");
        Self {
            name,
            shape,
            values: Param::initialized(id, on_device(values, device)),
        }
    }

    /// Name below the layer's path in files.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Shape in files.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Identifies it to optimizers.
    pub fn id(&self) -> ParamId {
        self.values.id
    }

    /// Number of its values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values in their shape.
    ///
    /// # Panics
    /// If `D` is not the rank of the shape.
    pub fn tensor<const D: usize>(&self) -> Tensor<D> {
        let shape: [usize; D] = self.shape.as_slice().try_into().unwrap_or_else(|_| {
            let Self { name, shape, .. } = self;
            panic!("`{name}` has the shape {shape:?}, which is not of rank {D}")
        });
        self.values.val().reshape(shape)
    }

    /// The values, row-major.
    pub fn to_vec(&self) -> Vec<f32> {
        let data = self.values.val().into_data();
        data.try_into_vec::<f32>().expect("parameters are f32")
    }

    /// Gives it other values. It trains as before.
    ///
    /// # Panics
    /// If the number of values is another one.
    pub fn set(&mut self, values: Vec<f32>) {
        assert_eq!(values.len(), self.len(), "values of `{}`", self.name);
        self.values = self.values.clone().map(|old| {
            let new = on_device(values.clone(), &old.device());
            new.set_require_grad(old.is_require_grad())
        });
    }

    /// Where the values are.
    pub fn device(&self) -> Device {
        self.values.val().device()
    }

    /// Whether gradients reach it.
    pub fn trains(&self) -> bool {
        self.values.val().is_require_grad()
    }

    /// Its gradient among those of a backward.
    pub fn gradient(&self, gradients: &Gradients) -> Option<Tensor<1>> {
        self.values.val().grad(gradients)
    }

    /// The values as Burn has them.
    pub(crate) fn values(&self) -> &Param<Tensor<1>> {
        &self.values
    }

    pub(crate) fn values_mut(&mut self) -> &mut Param<Tensor<1>> {
        &mut self.values
    }
}

/// Values that train if `device` is an autodiff device.
fn on_device(values: Vec<f32>, device: &Device) -> Tensor<1> {
    let shape = [values.len()];
    let tensor = Tensor::from_data(TensorData::new(values, shape), device);
    match device.is_autodiff() {
        true => tensor.require_grad(),
        false => tensor,
    }
}

/// Where a parameter of an adapter is:
/// `ParamPlace::of_adapter("default").at("model.layers.0.self_attn.q_proj").named("oft_R.weight")`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParamPlace<'a> {
    adapter: &'a str,
    path: &'a str,
    param: &'a str,
}

impl<'a> ParamPlace<'a> {
    /// In the adapter of this name, at the root of the model so far.
    pub const fn of_adapter(adapter: &'a str) -> Self {
        Self {
            adapter,
            path: "",
            param: "",
        }
    }

    /// The same in the layer at a module path.
    #[must_use]
    pub const fn at(self, path: &'a str) -> Self {
        Self { path, ..self }
    }

    /// The same for the parameter of this name.
    #[must_use]
    pub const fn named(self, param: &'a str) -> Self {
        Self { param, ..self }
    }

    /// Identifies the parameter: the same in every run and every release, so that saved optimizer
    /// states find their parameters.
    pub fn id(self) -> ParamId {
        ParamId::from(stable_hash(&[self.adapter, self.path, self.param]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_do_not_change_between_releases() {
        let place = ParamPlace::of_adapter("default")
            .at("model.layers.0.self_attn.q_proj")
            .named("oft_R.weight");
        let id = place.id();
        assert_eq!(id.val(), 2_912_072_315_653_049_779);
        assert_ne!(id, place.named("bias").id());
    }

    #[test]
    fn values_come_in_their_shape_and_train_on_autodiff_devices() {
        let values: Vec<f32> = (0..24).map(|v| v as f32).collect();
        let id = ParamId::from(3);
        let make =
            |device: &Device| AdapterParam::new("x", [2, 1, 3, 4], values.clone(), id, device);
        let mut param = make(&Device::flex().autodiff());
        assert!(param.trains() && !make(&Device::flex()).trains());
        let gradients = param.tensor::<4>().mul_scalar(2.0).sum().backward();
        let gradient = param.gradient(&gradients).expect("a gradient");
        assert_eq!(gradient.into_data().iter::<f32>().sum::<f32>(), 48.0);
        assert_eq!(param.tensor::<4>().dims(), [2, 1, 3, 4]);
        param.set(vec![1.0; 24]);
        assert_eq!(param.to_vec(), [1.0; 24]);
        assert!(param.trains() && param.id() == id);
    }
}

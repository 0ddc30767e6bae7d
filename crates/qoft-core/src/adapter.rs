//! What a trainable rotation is.

use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};

use burn::module::{
    Content, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor, Param,
    ParamId,
};
use burn::tensor::{Device, Tensor};

/// A family of trainable rotations of a layer's input.
///
/// Whatever its mathematics, an adapter owns a list of matrices; that is how optimizers, files
/// and devices see it.
pub trait OftAdapter: Debug + Send + Sync + 'static {
    /// Rotates the rows of `x`, `[rows, in_features]`.
    ///
    /// Whether this is training is seen by the parameters being on an autodiff device, as
    /// Burn's own dropout does it.
    fn forward(&self, x: Tensor<2>) -> Tensor<2>;

    /// Turns rows of a weight instead, `[rows, in_features]`: the product with the inverse of a
    /// rotation that is orthogonal, its transpose. A layer with weight `W · Rᵀ` and no adapter
    /// computes what one with weight `W` and this adapter does.
    fn rotate_weight(&self, rows: Tensor<2>) -> Tensor<2>;

    /// As [`Self::rotate_weight`], for layers that compute with the turned weight: a family may
    /// leave out parts of the rotation in training.
    fn forward_weight(&self, rows: Tensor<2>) -> Tensor<2> {
        self.rotate_weight(rows)
    }

    /// Turns rows back from [`Self::forward`]; `None` if the rotation has no inverse. What stands
    /// here is right for rotations that are orthogonal.
    fn unrotate(&self, rows: Tensor<2>) -> Option<Tensor<2>> {
        Some(self.rotate_weight(rows))
    }

    /// As [`Self::unrotate`], from [`Self::rotate_weight`].
    fn unrotate_weight(&self, rows: Tensor<2>) -> Option<Tensor<2>> {
        Some(self.forward(rows))
    }

    /// The parameters, each with its name below the layer in an adapter file.
    fn params(&self) -> Vec<NamedParam<'_>>;

    /// Replaces the parameters, in the order of [`Self::params`].
    fn set_params(&mut self, params: Vec<Param<Tensor<2>>>);

    /// Brings the parameters back to where the family allows them; called before each training
    /// step.
    fn constrain(&mut self) {}

    /// A copy. What it draws at random is what the original would draw next, so that gradient
    /// checkpointing can compute a block twice.
    fn boxed_clone(&self) -> Box<dyn OftAdapter>;
}

/// A parameter with its name, such as `oft_R.weight`.
#[derive(Debug)]
pub struct NamedParam<'a> {
    /// Name below the layer's path.
    pub name: &'static str,
    /// The parameter.
    pub param: &'a Param<Tensor<2>>,
}

/// Identifies a parameter of an adapter of the layer at `path`: the same in every run, so that
/// saved optimizer states find their parameters.
pub fn param_id(adapter: &str, path: &str, param: &str) -> ParamId {
    let mut hasher = DefaultHasher::new();
    (adapter, path, param).hash(&mut hasher);
    ParamId::from(hasher.finish())
}

/// A named adapter of a layer, as a Burn module.
#[derive(Debug)]
pub struct AdapterSlot {
    name: String,
    adapter: Box<dyn OftAdapter>,
}

impl AdapterSlot {
    /// Names an adapter.
    pub fn new(name: impl Into<String>, adapter: Box<dyn OftAdapter>) -> Self {
        Self {
            name: name.into(),
            adapter,
        }
    }

    /// The adapter's name, `default` unless several are used.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gives the adapter of the layer at `path` another name, and its parameters the ids that
    /// belong to it: a new adapter may take the old name.
    pub(crate) fn rename(&mut self, name: &str, path: &str) {
        name.clone_into(&mut self.name);
        let params = self.adapter.params().into_iter().map(|p| {
            let id = param_id(name, path, p.name);
            Param::initialized(id, p.param.val())
        });
        let params = params.collect();
        self.adapter.set_params(params);
    }

    /// The adapter.
    pub fn adapter(&self) -> &dyn OftAdapter {
        &*self.adapter
    }

    /// The adapter, to change it.
    pub fn adapter_mut(&mut self) -> &mut dyn OftAdapter {
        &mut *self.adapter
    }

    /// Whether its parameters are on an autodiff device, so that gradients reach them.
    pub fn trains(&self) -> bool {
        let params = self.adapter.params();
        params.iter().any(|p| p.param.val().is_require_grad())
    }

    /// Number of its values.
    pub fn parameters(&self) -> usize {
        self.adapter
            .params()
            .iter()
            .map(|p| p.param.lazy_shape().num_elements())
            .sum()
    }

    fn map_params(mut self, f: impl FnMut(Param<Tensor<2>>) -> Param<Tensor<2>>) -> Self {
        let params = self.adapter.params().into_iter().map(|p| p.param.clone());
        let params = params.collect::<Vec<_>>().into_iter().map(f).collect();
        self.adapter.set_params(params);
        self
    }
}

impl Clone for AdapterSlot {
    fn clone(&self) -> Self {
        Self {
            name: self.name.clone(),
            adapter: self.adapter.boxed_clone(),
        }
    }
}

impl Module for AdapterSlot {
    fn collect_devices(&self, devices: Vec<Device>) -> Vec<Device> {
        self.adapter
            .params()
            .iter()
            .fold(devices, |devices, p| p.param.collect_devices(devices))
    }

    fn fork(self, device: &Device) -> Self {
        self.map_params(|p| p.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        self.map_params(|p| p.to_device(device))
    }

    fn train(self) -> Self {
        self.map_params(Module::train)
    }

    fn valid(&self) -> Self {
        self.clone().map_params(|p| p.valid())
    }

    fn materialize(self) -> Self {
        self.map_params(Module::materialize)
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        for NamedParam { name, param } in self.adapter.params() {
            visitor.enter_module(name, "AdapterSlot");
            param.visit(visitor);
            visitor.exit_module(name, "AdapterSlot");
        }
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        let names: Vec<&str> = self.adapter.params().iter().map(|p| p.name).collect();
        let mut names = names.into_iter();
        self.map_params(|param| {
            let name = names.next().unwrap_or_default();
            mapper.enter_module(name, "AdapterSlot");
            let param = Module::map(param, mapper);
            mapper.exit_module(name, "AdapterSlot");
            param
        })
    }
}

impl ModuleDisplay for AdapterSlot {}

impl ModuleDisplayDefault for AdapterSlot {
    fn content(&self, content: Content) -> Option<Content> {
        Some(
            content
                .add_formatted(&self.name)
                .add_debug_attribute("adapter", &self.adapter),
        )
    }
}

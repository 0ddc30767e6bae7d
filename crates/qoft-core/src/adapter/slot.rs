//! What a named adapter has for one layer, as a Burn module.

use burn::module::{
    Content, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor, Param,
};
use burn::tensor::{Device, Tensor};

use super::own::OwnTensor;
use super::{NamedParam, OftAdapter, param_id};

/// A named adapter of a layer: a rotation, tensors that stand in for the layer's own, or both.
#[derive(Debug)]
pub struct AdapterSlot {
    name: String,
    rotation: Option<Box<dyn OftAdapter>>,
    own: Vec<OwnTensor>,
}

impl AdapterSlot {
    /// Names a rotation.
    pub fn new(name: impl Into<String>, rotation: Box<dyn OftAdapter>) -> Self {
        Self::from_parts(name, Some(rotation), Vec::new())
    }

    /// Names whatever an adapter has.
    pub fn from_parts(
        name: impl Into<String>,
        rotation: Option<Box<dyn OftAdapter>>,
        own: Vec<OwnTensor>,
    ) -> Self {
        Self {
            name: name.into(),
            rotation,
            own,
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
        let params = self.params().into_iter().map(|p| {
            let id = param_id(name, path, p.name);
            Param::initialized(id, p.param.val())
        });
        let params = params.collect();
        self.set_params(params);
    }

    /// The rotation of the layer's input.
    pub fn rotation(&self) -> Option<&dyn OftAdapter> {
        self.rotation.as_deref()
    }

    /// The rotation, to change it.
    pub fn rotation_mut(&mut self) -> Option<&mut (dyn OftAdapter + 'static)> {
        self.rotation.as_deref_mut()
    }

    /// The tensors that stand in for the layer's own.
    pub fn own(&self) -> &[OwnTensor] {
        &self.own
    }

    /// The tensor that stands in for the layer's own of this name.
    pub fn own_named(&self, name: &str) -> Option<&OwnTensor> {
        self.own.iter().find(|own| own.name() == name)
    }

    /// All parameters, each with its name: those of the rotation before the others.
    pub fn params(&self) -> Vec<NamedParam<'_>> {
        let rotation = self.rotation.iter().flat_map(|r| r.params());
        rotation
            .chain(self.own.iter().map(OwnTensor::param))
            .collect()
    }

    /// Replaces the parameters, in the order of [`Self::params`].
    ///
    /// # Panics
    /// If there are fewer than the adapter has.
    pub fn set_params(&mut self, mut params: Vec<Param<Tensor<2>>>) {
        let own = params.split_off(params.len() - self.own.len());
        for (tensor, param) in self.own.iter_mut().zip(own) {
            tensor.set_param(param);
        }
        if let Some(rotation) = &mut self.rotation {
            rotation.set_params(params);
        }
    }

    /// Whether its parameters are on an autodiff device, so that gradients reach them.
    pub fn trains(&self) -> bool {
        let params = self.params();
        params.iter().any(|p| p.param.val().is_require_grad())
    }

    /// Number of its values.
    pub fn parameters(&self) -> usize {
        let params = self.params().into_iter();
        params.map(|p| p.param.lazy_shape().num_elements()).sum()
    }

    fn map_params(mut self, f: impl FnMut(Param<Tensor<2>>) -> Param<Tensor<2>>) -> Self {
        let params = self.params().into_iter().map(|p| p.param.clone());
        let params = params.collect::<Vec<_>>().into_iter().map(f).collect();
        self.set_params(params);
        self
    }
}

impl Clone for AdapterSlot {
    fn clone(&self) -> Self {
        Self {
            name: self.name.clone(),
            rotation: self.rotation.as_ref().map(|r| r.boxed_clone()),
            own: self.own.clone(),
        }
    }
}

impl Module for AdapterSlot {
    fn collect_devices(&self, devices: Vec<Device>) -> Vec<Device> {
        let params = self.params().into_iter();
        params.fold(devices, |devices, p| p.param.collect_devices(devices))
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
        for NamedParam { name, param } in self.params() {
            visitor.enter_module(name, "AdapterSlot");
            param.visit(visitor);
            visitor.exit_module(name, "AdapterSlot");
        }
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        let names: Vec<&str> = self.params().iter().map(|p| p.name).collect();
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
                .add_debug_attribute("rotation", &self.rotation)
                .add_debug_attribute("own", &self.own),
        )
    }
}

//! What a named adapter has for one layer, as a Burn module.

use burn::module::{
    Content, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor, Param,
};
use burn::tensor::{Device, Tensor};

use super::OftAdapter;
use super::own::OwnTensor;
use crate::param::{AdapterParam, ParamPlace};

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
        for param in self.params_mut() {
            let id = ParamPlace::of_adapter(name)
                .at(path)
                .named(param.name())
                .id();
            let values = param.values_mut();
            *values = Param::initialized(id, values.val());
        }
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

    /// All parameters: those of the rotation before the others.
    pub fn params(&self) -> Vec<&AdapterParam> {
        let rotation = self.rotation.iter().flat_map(|r| r.params());
        rotation
            .chain(self.own.iter().map(OwnTensor::param))
            .collect()
    }

    /// As [`Self::params`], to change them.
    pub fn params_mut(&mut self) -> Vec<&mut AdapterParam> {
        let rotation = self.rotation.iter_mut().flat_map(|r| r.params_mut());
        rotation
            .chain(self.own.iter_mut().map(OwnTensor::param_mut))
            .collect()
    }

    /// Whether gradients reach its parameters.
    pub fn trains(&self) -> bool {
        self.params().iter().any(|param| param.trains())
    }

    /// Whether its parameters are on an autodiff device, also in a copy whose parameters have no
    /// gradients.
    pub(super) fn is_training(&self) -> bool {
        let params = self.params();
        params.iter().any(|param| param.device().is_autodiff())
    }

    /// Number of its values.
    pub fn parameters(&self) -> usize {
        self.params().into_iter().map(AdapterParam::len).sum()
    }

    /// With the tensors that do not train on a device.
    fn with_bases_on(mut self, device: &Device) -> Self {
        for own in &mut self.own {
            own.move_base(device);
        }
        self
    }

    fn map_values(mut self, mut f: impl FnMut(Param<Tensor<1>>) -> Param<Tensor<1>>) -> Self {
        for param in self.params_mut() {
            *param.values_mut() = f(param.values().clone());
        }
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
        params.fold(devices, |devices, p| p.values().collect_devices(devices))
    }

    fn fork(self, device: &Device) -> Self {
        self.with_bases_on(device)
            .map_values(|values| values.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        self.with_bases_on(device)
            .map_values(|values| values.to_device(device))
    }

    fn train(self) -> Self {
        self.map_values(Module::train)
    }

    fn valid(&self) -> Self {
        self.clone().map_values(|values| values.valid())
    }

    fn materialize(self) -> Self {
        self.map_values(Module::materialize)
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        for param in self.params() {
            visitor.enter_module(param.name(), "AdapterSlot");
            param.values().visit(visitor);
            visitor.exit_module(param.name(), "AdapterSlot");
        }
    }

    fn map<M: ModuleMapper>(mut self, mapper: &mut M) -> Self {
        for param in self.params_mut() {
            mapper.enter_module(param.name(), "AdapterSlot");
            *param.values_mut() = Module::map(param.values().clone(), mapper);
            mapper.exit_module(param.name(), "AdapterSlot");
        }
        self
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

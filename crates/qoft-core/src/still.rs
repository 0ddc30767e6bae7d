//! What layers have that does not train.

use std::fmt::Debug;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use burn::module::{
    Content, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor,
};
use burn::tensor::{Device, Tensor};
use qoft_kernels::PackedWeight;

/// What can be brought to a device.
pub trait Moves: Clone + Debug + Send {
    /// The same on a device.
    #[must_use]
    fn moved(self, device: &Device) -> Self;

    /// Where it is, unless it is not on a device.
    fn place(&self) -> Option<Device>;
}

impl<const D: usize> Moves for Tensor<D> {
    fn moved(self, device: &Device) -> Self {
        self.to_device(device)
    }

    fn place(&self) -> Option<Device> {
        Some(self.device())
    }
}

/// Packed weights are on the host; operations bring them where they are used.
impl Moves for Arc<dyn PackedWeight> {
    fn moved(self, _: &Device) -> Self {
        self
    }

    fn place(&self) -> Option<Device> {
        None
    }
}

/// A part of a layer that does not train: it moves to devices with the layer, and whether the
/// layer trains is the same to it.
#[derive(Debug, Clone)]
pub struct Still<T>(T);

impl<T> Still<T> {
    /// A part of a layer; a tensor should have no graph.
    pub fn new(part: T) -> Self {
        Self(part)
    }
}

impl<T> Deref for Still<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Still<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: Moves> Module for Still<T> {
    fn collect_devices(&self, mut devices: Vec<Device>) -> Vec<Device> {
        let place = self.0.place();
        devices.extend(place.filter(|place| !devices.contains(place)));
        devices
    }

    fn fork(self, device: &Device) -> Self {
        self.to_device(device)
    }

    fn to_device(self, device: &Device) -> Self {
        Self(self.0.moved(&device.clone().without_autodiff()))
    }

    fn train(self) -> Self {
        self
    }

    fn valid(&self) -> Self {
        self.clone()
    }

    fn materialize(self) -> Self {
        self
    }

    fn visit<V: ModuleVisitor>(&self, _: &mut V) {}

    fn map<M: ModuleMapper>(self, _: &mut M) -> Self {
        self
    }
}

impl<T: Moves> ModuleDisplay for Still<T> {}

impl<T: Moves> ModuleDisplayDefault for Still<T> {
    fn content(&self, content: Content) -> Option<Content> {
        Some(content.add_formatted(&"Still"))
    }
}

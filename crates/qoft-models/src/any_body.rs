//! A body of a type that only its architecture knows.

use std::fmt::Debug;

use burn::module::{
    Content, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor,
};
use burn::tensor::{Device, Gradients, Int, Tensor};
use qoft_core::ops::Traced;
use qoft_core::{Embedding, Layer, Walk};

use crate::body::{Body, Outputs, continued, new_cache, outputs};
use crate::cache::Cache;
use crate::checkpointing::backward_by_block;
use crate::in_training::InTraining;
use crate::positions::Tokens;

/// A [`Body`] of any type, as a Burn module. Its parameters are those of its layers' adapters.
#[derive(Debug)]
pub struct AnyBody(Box<dyn Erased>);

/// What a body can do, whatever its type.
trait Erased: Walk + Debug + Send + Sync {
    fn boxed_clone(&self) -> Box<dyn Erased>;
    fn boxed_fork(self: Box<Self>, device: &Device) -> Box<dyn Erased>;
    fn boxed_to_device(self: Box<Self>, device: &Device) -> Box<dyn Erased>;
    fn boxed_train(self: Box<Self>) -> Box<dyn Erased>;
    fn boxed_valid(&self) -> Box<dyn Erased>;
    fn boxed_materialize(self: Box<Self>) -> Box<dyn Erased>;
    fn all_devices(&self, devices: Vec<Device>) -> Vec<Device>;

    fn new_cache(&self) -> Cache;
    fn outputs(&self, tokens: Tokens, cache: Option<&mut Cache>, training: InTraining) -> Outputs;
    fn continued(&self, ids: Tensor<2, Int>, parts: Vec<(&mut Cache, usize)>) -> Traced<3>;
    fn continues_several(&self) -> bool;
    fn backward_by_block(
        &self,
        tokens: Tokens,
        training: InTraining,
        loss: &dyn Fn(Outputs) -> Tensor<1>,
        sink: &mut dyn FnMut(Gradients),
    ) -> f32;
    fn packs(&self) -> bool;
    fn token_table(&self) -> &Embedding;
}

impl<B: Body> Erased for B {
    fn boxed_clone(&self) -> Box<dyn Erased> {
        Box::new(self.clone())
    }

    fn boxed_fork(self: Box<Self>, device: &Device) -> Box<dyn Erased> {
        Box::new(self.fork(device))
    }

    fn boxed_to_device(self: Box<Self>, device: &Device) -> Box<dyn Erased> {
        Box::new(self.to_device(device))
    }

    fn boxed_train(self: Box<Self>) -> Box<dyn Erased> {
        Box::new(self.train())
    }

    fn boxed_valid(&self) -> Box<dyn Erased> {
        Box::new(self.valid())
    }

    fn boxed_materialize(self: Box<Self>) -> Box<dyn Erased> {
        Box::new(self.materialize())
    }

    fn all_devices(&self, devices: Vec<Device>) -> Vec<Device> {
        self.collect_devices(devices)
    }

    fn new_cache(&self) -> Cache {
        new_cache(self)
    }

    fn outputs(&self, tokens: Tokens, cache: Option<&mut Cache>, training: InTraining) -> Outputs {
        outputs(self, tokens, cache, training)
    }

    fn continued(&self, ids: Tensor<2, Int>, parts: Vec<(&mut Cache, usize)>) -> Traced<3> {
        self.finish(continued(self, ids, parts))
    }

    fn continues_several(&self) -> bool {
        Body::continues_several(self)
    }

    fn backward_by_block(
        &self,
        tokens: Tokens,
        training: InTraining,
        loss: &dyn Fn(Outputs) -> Tensor<1>,
        sink: &mut dyn FnMut(Gradients),
    ) -> f32 {
        backward_by_block(self, tokens, training, loss, sink)
    }

    fn packs(&self) -> bool {
        Body::packs(self)
    }

    fn token_table(&self) -> &Embedding {
        self.tokens()
    }
}

impl AnyBody {
    /// A body whose type is forgotten.
    pub fn new(body: impl Body) -> Self {
        Self(Box::new(body))
    }

    /// A cache of no tokens.
    pub(crate) fn new_cache(&self) -> Cache {
        self.0.new_cache()
    }

    /// What it computes from tokens.
    pub(crate) fn outputs(
        &self,
        tokens: Tokens,
        cache: Option<&mut Cache>,
        training: InTraining,
    ) -> Outputs {
        self.0.outputs(tokens, cache, training)
    }

    /// See [`backward_by_block`].
    pub(crate) fn backward_by_block(
        &self,
        tokens: Tokens,
        training: InTraining,
        loss: &dyn Fn(Outputs) -> Tensor<1>,
        sink: &mut dyn FnMut(Gradients),
    ) -> f32 {
        self.0.backward_by_block(tokens, training, loss, sink)
    }

    /// Hidden states `[1, time, hidden]` for the output head, of the next tokens of several sequences.
    pub(crate) fn continued(
        &self,
        ids: Tensor<2, Int>,
        parts: Vec<(&mut Cache, usize)>,
    ) -> Traced<3> {
        self.0.continued(ids, parts)
    }

    /// See [`Body::continues_several`].
    pub(crate) fn continues_several(&self) -> bool {
        self.0.continues_several()
    }

    /// See [`Body::packs`].
    pub(crate) fn packs(&self) -> bool {
        self.0.packs()
    }

    /// The table of the tokens.
    pub(crate) fn tokens(&self) -> &Embedding {
        self.0.token_table()
    }
}

impl Walk for AnyBody {
    fn walk<'a>(&'a self, path: &str, visit: &mut dyn FnMut(&str, &'a dyn Layer)) {
        self.0.walk(path, visit);
    }

    fn walk_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut dyn Layer)) {
        self.0.walk_mut(path, visit);
    }
}

impl Clone for AnyBody {
    fn clone(&self) -> Self {
        Self(self.0.boxed_clone())
    }
}

impl Module for AnyBody {
    fn collect_devices(&self, devices: Vec<Device>) -> Vec<Device> {
        self.0.all_devices(devices)
    }

    fn fork(self, device: &Device) -> Self {
        Self(self.0.boxed_fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        Self(self.0.boxed_to_device(device))
    }

    fn train(self) -> Self {
        Self(self.0.boxed_train())
    }

    fn valid(&self) -> Self {
        Self(self.0.boxed_valid())
    }

    fn materialize(self) -> Self {
        Self(self.0.boxed_materialize())
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        self.0.walk("", &mut |path, layer| {
            visitor.enter_module(path, "Layer");
            layer.adapters().visit(visitor);
            visitor.exit_module(path, "Layer");
        });
    }

    fn map<M: ModuleMapper>(mut self, mapper: &mut M) -> Self {
        self.0.walk_mut("", &mut |path, layer| {
            mapper.enter_module(path, "Layer");
            let adapters = std::mem::take(layer.adapters_mut());
            *layer.adapters_mut() = Module::map(adapters, mapper);
            mapper.exit_module(path, "Layer");
        });
        self
    }
}

impl ModuleDisplay for AnyBody {}

impl ModuleDisplayDefault for AnyBody {
    fn content(&self, content: Content) -> Option<Content> {
        Some(content.add_debug_attribute("body", &self.0))
    }
}

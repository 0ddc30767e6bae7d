//! The adapters of one layer.

use burn::module::Module;
use burn::tensor::Tensor;

use super::OftAdapter;
use super::own::{BIAS, OwnTensor, WEIGHT};
use super::slot::AdapterSlot;
use crate::ops::lifted;
use qoft_scheme::{Error, Result};

/// Named adapters, some of which are active: only those compute.
#[derive(Module, Debug, Default)]
pub struct Adapters {
    slots: Vec<AdapterSlot>,
    /// Names of those that compute, in the order in which they are applied.
    #[module(skip)]
    pub(super) active: Vec<String>,
    /// Names of those that are multiplied into the layer's weight, in that order.
    #[module(skip)]
    pub(super) merged: Vec<String>,
}

impl Adapters {
    /// Adds an adapter, to be applied after those that are active.
    ///
    /// # Errors
    /// If the name is taken.
    pub fn push(&mut self, name: impl Into<String>, adapter: impl OftAdapter) -> Result<()> {
        self.push_slot(AdapterSlot::new(name, Box::new(adapter)))
    }

    /// As [`Self::push`], for an adapter that has its name.
    ///
    /// # Errors
    /// If the name is taken, or both it and an adapter that computes have a weight instead of the
    /// layer's.
    pub fn push_slot(&mut self, slot: AdapterSlot) -> Result<()> {
        self.expect_free(slot.name())?;
        if slot.own_named(WEIGHT).is_some() {
            self.expect_no_own_weight(slot.name())?;
        }
        self.active.push(slot.name().to_owned());
        self.slots.push(slot);
        Ok(())
    }

    /// All adapters, in the order in which they were added.
    pub fn slots(&self) -> &[AdapterSlot] {
        &self.slots
    }

    /// As [`Self::slots`], to change them.
    pub fn slots_mut(&mut self) -> &mut [AdapterSlot] {
        &mut self.slots
    }

    /// The names of all adapters.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.slots.iter().map(AdapterSlot::name)
    }

    /// The adapter of this name.
    pub fn get(&self, name: &str) -> Option<&AdapterSlot> {
        self.slots.iter().find(|slot| slot.name() == name)
    }

    /// As [`Self::get`], to change it.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut AdapterSlot> {
        self.slots.iter_mut().find(|slot| slot.name() == name)
    }

    /// The adapters that compute, in the order in which they are applied to the input.
    pub fn active(&self) -> impl DoubleEndedIterator<Item = &AdapterSlot> {
        self.active.iter().filter_map(|name| self.get(name))
    }

    /// Makes exactly these adapters compute, in this order. Merged ones stay in the weight.
    ///
    /// # Errors
    /// If a name is unknown, merged or given twice, or several have a weight instead of the
    /// layer's; then nothing changes.
    pub fn activate(&mut self, names: &[&str]) -> Result<()> {
        self.check_activate(names)?;
        self.active = names.iter().map(|&name| name.to_owned()).collect();
        Ok(())
    }

    /// Fails where [`Self::activate`] would.
    pub(crate) fn check_activate(&self, names: &[&str]) -> Result<()> {
        let mut weights = Vec::new();
        for (index, name) in names.iter().enumerate() {
            self.expect_unmerged(name)?;
            if names[..index].contains(name) {
                return Err(self.duplicate(name));
            }
            let slot = self.get(name);
            weights.extend(slot.filter(|slot| slot.own_named(WEIGHT).is_some()));
        }
        let merged = self.merged.iter().filter_map(|name| self.get(name));
        weights.extend(merged.filter(|slot| slot.own_named(WEIGHT).is_some()));
        match weights[..] {
            [first, second, ..] => Err(two_weights(second.name(), first.name())),
            _ => Ok(()),
        }
    }

    /// Fails if an active or merged adapter has a weight instead of the layer's; `name` is the
    /// adapter that cannot have one then.
    ///
    /// # Errors
    /// Names both adapters.
    pub fn expect_no_own_weight(&self, name: &str) -> Result<()> {
        let computing = self.active.iter().chain(&self.merged);
        let mut slots = computing.filter_map(|name| self.get(name));
        match slots.find(|slot| slot.own_named(WEIGHT).is_some()) {
            None => Ok(()),
            Some(other) => Err(two_weights(name, other.name())),
        }
    }

    /// Lets none compute but those that are merged.
    pub fn disable(&mut self) {
        self.active.clear();
    }

    /// Removes an adapter.
    ///
    /// # Errors
    /// If there is none of this name, or it is merged.
    pub fn delete(&mut self, name: &str) -> Result<AdapterSlot> {
        self.expect_unmerged(name)?;
        self.active.retain(|active| active != name);
        let at = self.slots.iter().position(|slot| slot.name() == name);
        Ok(self.slots.remove(at.expect("an adapter that exists")))
    }

    /// Gives an adapter another name; `path` is the layer's, for the ids of its parameters.
    ///
    /// # Errors
    /// If there is none of the old name, or one of the new name.
    pub fn rename(&mut self, from: &str, to: &str, path: &str) -> Result<()> {
        self.expect(from)?;
        self.expect_free(to)?;
        let names = self.active.iter_mut().chain(&mut self.merged);
        for name in names.filter(|name| *name == from) {
            to.clone_into(name);
        }
        if let Some(slot) = self.get_mut(from) {
            slot.rename(to, path);
        }
        Ok(())
    }

    /// The rotations of the active adapters, in the order in which they are applied to the input.
    pub fn rotations(&self) -> impl DoubleEndedIterator<Item = &dyn OftAdapter> {
        self.active().filter_map(AdapterSlot::rotation)
    }

    /// The weight that an active adapter has instead of the layer's.
    pub fn own_weight(&self) -> Option<&OwnTensor> {
        self.active().rev().find_map(|slot| slot.own_named(WEIGHT))
    }

    /// As [`Self::own_weight`], of an active or merged adapter: for layers without rotations.
    pub(crate) fn computing_weight(&self) -> Option<&OwnTensor> {
        let merged = self.merged.iter().filter_map(|name| self.get(name));
        let mut computing = self.active().chain(merged);
        computing.find_map(|slot| slot.own_named(WEIGHT))
    }

    /// The biases that active and merged adapters have instead of the layer's: a merge is one of
    /// weights.
    pub fn own_biases(&self) -> impl Iterator<Item = &OwnTensor> {
        let merged = self.merged.iter().filter_map(|name| self.get(name));
        self.active()
            .chain(merged)
            .filter_map(|slot| slot.own_named(BIAS))
    }

    /// The bias that a layer with the bias `base` has. What several adapters add to it is added
    /// up.
    pub fn bias(&self, base: &Tensor<1>) -> Tensor<1> {
        let own: Vec<Tensor<1>> = self
            .own_biases()
            .map(|own| own.value().reshape(base.dims()))
            .collect();
        if let [own] = own.as_slice() {
            return own.clone();
        }
        own.into_iter().fold(base.clone(), |sum, own| {
            let (own, before) = lifted(own, base.clone());
            let (sum, change) = lifted(sum, own - before);
            sum + change
        })
    }

    /// Brings the parameters of the active adapters that train back to where their families allow
    /// them; called before each training step.
    pub fn constrain(&mut self) {
        for slot in &mut self.slots {
            let active = self.active.iter().any(|active| active == slot.name());
            if active
                && slot.trains()
                && let Some(rotation) = slot.rotation_mut()
            {
                rotation.constrain();
            }
        }
    }

    fn expect(&self, name: &str) -> Result<()> {
        match self.get(name) {
            Some(_) => Ok(()),
            None => Err(Error::UnknownAdapter {
                name: name.to_owned(),
                known: self.known(),
            }),
        }
    }

    pub(crate) fn expect_unmerged(&self, name: &str) -> Result<()> {
        self.expect(name)?;
        if self.merged.iter().any(|merged| merged == name) {
            return Err(Error::AdapterState {
                name: name.to_owned(),
                reason: "it is merged; unmerge it first".into(),
            });
        }
        Ok(())
    }

    fn expect_free(&self, name: &str) -> Result<()> {
        match self.get(name) {
            None => Ok(()),
            Some(_) => Err(self.duplicate(name)),
        }
    }

    fn duplicate(&self, name: &str) -> Error {
        Error::DuplicateAdapter {
            name: name.to_owned(),
            known: self.known(),
        }
    }

    fn known(&self) -> String {
        self.names().collect::<Vec<_>>().join(", ")
    }
}

fn two_weights(name: &str, other: &str) -> Error {
    Error::AdapterState {
        name: name.to_owned(),
        reason: format!(
            "a module that it trains whole is one that adapter `{other}` has in whole, too; only \
             one of them can be active"
        ),
    }
}

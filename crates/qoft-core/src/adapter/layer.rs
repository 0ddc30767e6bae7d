//! The adapters of one layer.

use burn::module::Module;
use burn::tensor::Tensor;
use qoft_kernels::FloatFormat;

use super::own::{BIAS, OwnTensor, WEIGHT};
use super::slot::AdapterSlot;
use super::{Composition, OftAdapter};
use crate::lanes;
use crate::ops::{Traced, lifted};
use crate::pass::{Draw, Pass};
use qoft_scheme::{Error, Result};

/// Named adapters, some of which are active: only those compute.
#[derive(Module, Debug, Default)]
pub struct Adapters {
    slots: Vec<AdapterSlot>,
    /// Names of those that compute, in the order in which the input meets them.
    #[module(skip)]
    active: Vec<String>,
    /// Names of those that are multiplied into the layer's weight, in that order.
    #[module(skip)]
    merged: Vec<String>,
    /// Where in a training run the layer is.
    #[module(skip)]
    draw: Option<Draw>,
    /// In which format a graph keeps what the layer reads.
    #[module(skip)]
    activations: Option<FloatFormat>,
}

impl Adapters {
    /// Adds an adapter to those that are active; where it stands among them is its family's.
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
        let name = slot.name().to_owned();
        match composition(&slot) {
            Composition::NextToWeight => self.active.push(name),
            Composition::NextToInput => self.active.insert(0, name),
        }
        self.slots.push(slot);
        Ok(())
    }

    /// Where in a training run the model is, if it was told by [`adapters::begin`](crate::adapters::begin).
    pub fn draw(&self) -> Option<Draw> {
        self.draw
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

    /// The adapters that compute, in the order in which the input meets them: those that [`lanes`] want, or
    /// else the active ones.
    pub fn active(&self) -> impl DoubleEndedIterator<Item = &AdapterSlot> {
        let chosen = match self.slots.is_empty() {
            true => None,
            false => lanes::choice(),
        };
        let slots: Vec<&AdapterSlot> = match chosen {
            None => self
                .active
                .iter()
                .filter_map(|name| self.get(name))
                .collect(),
            Some(chosen) => {
                let slots = chosen.names().filter_map(|name| self.get(name));
                Composition::arrange(slots, |slot| composition(slot)).collect()
            }
        };
        slots.into_iter()
    }

    /// Whether rows want different adapters here.
    pub(crate) fn has_lanes(&self) -> bool {
        !self.slots.is_empty() && lanes::several()
    }

    /// Whether any adapter, active or not, has a weight instead of the layer's.
    pub(crate) fn has_own_weight(&self) -> bool {
        self.slots
            .iter()
            .any(|slot| slot.own_named(WEIGHT).is_some())
    }

    /// The names of the adapters that compute, in an order in which [`Self::activate`] makes them
    /// compute as they do.
    pub(crate) fn activation(&self) -> Vec<&str> {
        let next_to_input = |name: &&String| {
            let slot = self.get(name);
            slot.is_some_and(|slot| composition(slot) == Composition::NextToInput)
        };
        let outer = self.active.iter().take_while(next_to_input).count();
        let (outer, others) = self.active.split_at(outer);
        let names = outer.iter().rev().chain(others);
        names.map(String::as_str).collect()
    }

    /// Makes exactly these adapters compute, as if they were added in this order. Merged ones stay
    /// in the weight.
    ///
    /// # Errors
    /// If a name is unknown, merged or given twice, or several have a weight instead of the
    /// layer's; then nothing changes.
    pub fn activate(&mut self, names: &[&str]) -> Result<()> {
        self.check_activate(names)?;
        let of = |name: &&str| {
            self.get(name)
                .map_or(Composition::NextToWeight, composition)
        };
        let arranged = Composition::arrange(names.iter().copied(), of);
        self.active = arranged.map(str::to_owned).collect();
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

    /// Gives an adapter of the layer at `path` another name, from which the ids of its parameters follow.
    ///
    /// # Errors
    /// If there is none of the old name, or one of the new name.
    pub(crate) fn rename(&mut self, path: &str, [from, to]: [&str; 2]) -> Result<()> {
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

    /// The rotations of the active adapters, in the order in which the input meets them.
    pub fn rotations(&self) -> impl DoubleEndedIterator<Item = &dyn OftAdapter> {
        self.active().filter_map(AdapterSlot::rotation)
    }

    /// The input of a layer, `[rows, in_features]`, after the active rotations.
    pub fn turn_input(&self, x: Traced<2>) -> Traced<2> {
        if self.has_lanes() {
            let turned = |x: Tensor<2>| self.turn_input(x.into()).into_tensor();
            return lanes::each(x.into_tensor(), turned).into();
        }
        let rotations = self.rotations_with_pass();
        rotations.fold(self.keep(x), |x, (rotation, pass)| {
            self.keep(rotation.forward(x.apart(), pass))
        })
    }

    /// A tensor that the layer, or what is computed beside it, reads: graphs keep it in the format of
    /// [`Self::keep_activations_in`].
    pub fn keep<const D: usize>(&self, x: impl Into<Traced<D>>) -> Traced<D> {
        let x = x.into();
        match self.activations {
            Some(format) => x.kept_in(format),
            None => x,
        }
    }

    /// Lets graphs keep activations in a format with fewer bits, see [`Traced::kept_in`].
    pub fn keep_activations_in(&mut self, format: FloatFormat) {
        self.activations = Some(format);
    }

    /// The format of [`Self::keep_activations_in`]; all bits if nothing was said.
    pub fn activations(&self) -> FloatFormat {
        self.activations.unwrap_or(FloatFormat::F32)
    }

    /// The product with the weight, `[rows, out_features]`, after the output sides of the active
    /// adapters: that of the adapter next to the weight comes first.
    pub fn change_output(&self, y: Tensor<2>) -> Tensor<2> {
        let sides = self.rotations().rev().filter_map(OftAdapter::output_side);
        sides.fold(y, |y, side| side.output(y))
    }

    /// Whether [`Self::change_output`] does anything.
    pub fn has_output_side(&self) -> bool {
        self.rotations().any(|r| r.output_side().is_some())
    }

    /// The rows of a weight after all that the active adapters do to them.
    pub fn turn_weight(&self, weight: Tensor<2>) -> Tensor<2> {
        // The last adapter stands next to the weight.
        let rotations = self.rotations_with_pass().rev();
        rotations.fold(weight, |rows, (rotation, pass)| {
            rotation.rotate_weight(rows, pass)
        })
    }

    fn rotations_with_pass(&self) -> impl DoubleEndedIterator<Item = (&dyn OftAdapter, Pass)> {
        self.active().filter_map(|slot| {
            let pass = match slot.is_training() {
                true => Pass::training_at(self.draw),
                false => Pass::EVALUATION,
            };
            Some((slot.rotation()?, pass))
        })
    }

    /// The weight that an active adapter has instead of the layer's.
    pub fn own_weight(&self) -> Option<&OwnTensor> {
        let has = self.has_own_weight();
        let mut active = has.then(|| self.active().rev()).into_iter().flatten();
        active.find_map(|slot| slot.own_named(WEIGHT))
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

    /// The names of the adapters that are multiplied into the weight, in the order in which the
    /// input meets them.
    pub fn merged(&self) -> impl Iterator<Item = &str> {
        self.merged.iter().map(String::as_str)
    }

    /// Makes these adapters active, and those merged, both in the order in which the input meets
    /// them.
    pub(crate) fn set_computing(&mut self, active: Vec<String>, merged: Vec<String>) {
        (self.active, self.merged) = (active, merged);
    }

    /// Says where in a training run the next pass is, which dropout follows from. At the start of
    /// a step the parameters of the active adapters that train are brought back to where their
    /// families allow them.
    pub fn begin(&mut self, draw: Draw) {
        self.draw = Some(draw);
        if draw.batch > 0 {
            return;
        }
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

/// Where the rotation of an adapter stands; without one it is the same.
fn composition(slot: &AdapterSlot) -> Composition {
    let rotation = slot.rotation();
    rotation.map_or(Composition::NextToWeight, OftAdapter::composition)
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

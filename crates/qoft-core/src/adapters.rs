//! Several adapters in one model: which there are, and which of them compute.
//!
//! Each layer has its own [`Adapters`]. The functions here are for whole models.

use std::collections::BTreeMap;

use crate::adapter::Adapters;
use crate::layer::Layer;
use crate::merging::Change;
use crate::pass::Draw;
use crate::walk::Walk;
use qoft_kernels::FloatFormat;
use qoft_scheme::{Error, Result};

/// The names of all adapters of a model, in the order in which its layers have them.
pub fn names(model: &impl Walk) -> Vec<String> {
    distinct(model, |adapters| {
        adapters.names().map(str::to_owned).collect()
    })
}

/// The names of the adapters that compute somewhere in the model, in an order for [`activate`].
pub fn active(model: &impl Walk) -> Vec<String> {
    distinct(model, |adapters| {
        let active = adapters.activation().into_iter();
        active.map(str::to_owned).collect()
    })
}

fn distinct(model: &impl Walk, names: impl Fn(&Adapters) -> Vec<String>) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    model.walk("", &mut |_, layer| {
        for name in names(layer.adapters()) {
            if !found.contains(&name) {
                found.push(name);
            }
        }
    });
    found
}

/// Makes exactly these adapters compute, as if they were added in this order: where each stands in
/// a layer follows from its family's [`Composition`](crate::Composition). Layers that lack one of
/// them do without it.
///
/// # Errors
/// If a name is unknown, merged or given twice, or several of them train the same module whole; then
/// nothing changes.
pub fn activate(model: &mut impl Walk, wanted: &[&str]) -> Result<()> {
    for (index, name) in wanted.iter().enumerate() {
        expect_unmerged(model, name)?;
        if wanted[..index].contains(name) {
            return Err(Error::DuplicateAdapter {
                name: (*name).to_owned(),
                known: names(model).join(", "),
            });
        }
    }
    let here = |adapters: &Adapters| -> Vec<&str> {
        let names = wanted.iter().copied();
        names.filter(|name| adapters.get(name).is_some()).collect()
    };
    for (_, layer) in model.layers() {
        layer.adapters().check_activate(&here(layer.adapters()))?;
    }
    each(model, |_, adapters| {
        let here = here(adapters);
        adapters.activate(&here)
    })
}

/// Lets no adapter compute; they stay in the model. Merged ones stay in the weights.
pub fn disable_all(model: &mut impl Walk) {
    model.walk_mut("", &mut |_, layer| layer.adapters_mut().disable());
}

/// Multiplies the active adapters into the weights of their layers. Until [`unmerge`] they do not
/// compute, and can be neither activated nor deleted. All merged weights are computed before the
/// first is replaced.
///
/// A layer that quantizes its input then quantizes what is not rotated: such a layer does not
/// compute exactly the same.
///
/// # Errors
/// If a weight gets values that are not finite; then nothing changes.
pub fn merge(model: &mut impl Walk) -> Result<()> {
    change(model, Change::merge)
}

/// Takes the merged adapters out of the weights again; they are active after it. A dense weight
/// of `f32` comes back by the inverse of each adapter, any other exactly.
///
/// # Errors
/// If an adapter has no inverse; then nothing changes.
pub fn unmerge(model: &mut impl Walk) -> Result<()> {
    change(model, Change::unmerge)
}

/// Plans a change of each layer, and makes them if all can be made.
fn change(model: &mut impl Walk, plan: impl Fn(&str, &dyn Layer) -> Result<Change>) -> Result<()> {
    let layers = model.layers().into_iter();
    let changes = layers.map(|(path, layer)| {
        let change = plan(&path, layer)?;
        Ok((path, change))
    });
    let mut changes = changes.collect::<Result<BTreeMap<String, Change>>>()?;
    model.walk_mut("", &mut |path, layer| {
        if let Some(change) = changes.remove(path) {
            change.make(layer);
        }
    });
    Ok(())
}

/// Says where in a training run the next pass through the model is: before each micro-batch of a
/// step, from the first on. Dropout follows from it, and at the start of a step parameters are
/// brought back to where their families allow them, as constrained OFT asks for.
pub fn begin(model: &mut impl Walk, draw: Draw) {
    model.walk_mut("", &mut |_, layer| layer.adapters_mut().begin(draw));
}

/// Lets graphs keep what layers read in a format with fewer bits, for their backward, which widens it
/// again. What is computed forward stays as it is; the gradients are those of the rounded activations.
/// Parameters and rotations are never rounded.
///
/// Layers tell it the operations that read their inputs. Where operations of [`ops`](crate::ops) read
/// other tensors of the model, it hands these through [`Adapters::keep`] of a layer beside them.
pub fn keep_activations_in(model: &mut impl Walk, format: FloatFormat) {
    model.walk_mut("", &mut |_, layer| {
        layer.adapters_mut().keep_activations_in(format);
    });
}

/// Removes an adapter from all layers.
///
/// # Errors
/// If there is none of this name, or it is merged.
pub fn delete(model: &mut impl Walk, name: &str) -> Result<()> {
    expect_unmerged(model, name)?;
    each(model, |_, adapters| match adapters.get(name) {
        Some(_) => adapters.delete(name).map(drop),
        None => Ok(()),
    })
}

/// Gives an adapter another name. Its parameters get new ids, so an optimizer that has trained
/// it starts anew.
///
/// # Errors
/// If there is none of the old name, or one of the new name.
pub fn rename(model: &mut impl Walk, from: &str, to: &str) -> Result<()> {
    expect(model, from)?;
    expect_free(model, to)?;
    each(model, |path, adapters| match adapters.get(from) {
        Some(_) => adapters.rename(path, [from, to]),
        None => Ok(()),
    })
}

/// Fails unless the model has an adapter of this name.
///
/// # Errors
/// The error lists the adapters that there are.
pub fn expect(model: &impl Walk, name: &str) -> Result<()> {
    let names = names(model);
    if names.iter().any(|known| known == name) {
        return Ok(());
    }
    Err(Error::UnknownAdapter {
        name: name.to_owned(),
        known: names.join(", "),
    })
}

/// Fails unless the model has an adapter of this name that is merged nowhere.
fn expect_unmerged(model: &impl Walk, name: &str) -> Result<()> {
    expect(model, name)?;
    let layers = model.layers().into_iter();
    layers
        .filter(|(_, layer)| layer.adapters().get(name).is_some())
        .try_for_each(|(_, layer)| layer.adapters().expect_unmerged(name))
}

/// Fails if the model has an adapter of this name.
///
/// # Errors
/// The error lists the names that exist.
pub fn expect_free(model: &impl Walk, name: &str) -> Result<()> {
    let names = names(model);
    if !names.iter().any(|known| known == name) {
        return Ok(());
    }
    Err(Error::DuplicateAdapter {
        name: name.to_owned(),
        known: names.join(", "),
    })
}

fn each(
    model: &mut impl Walk,
    mut change: impl FnMut(&str, &mut Adapters) -> Result<()>,
) -> Result<()> {
    let mut result = Ok(());
    model.walk_mut("", &mut |path, layer| {
        if result.is_ok() {
            result = change(path, layer.adapters_mut());
        }
    });
    result
}

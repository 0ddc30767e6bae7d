//! The model walker: how layers are found in somebody's model.

use crate::causal_conv1d::CausalConv1d;
use crate::conv2d::Conv2d;
use crate::embedding::Embedding;
use crate::layer::Layer;
use crate::linear::Linear;
use crate::norm::Norm;

/// A model whose layers can be visited.
///
/// `#[derive(Walk)]` implements it. Every field is walked, below its name: a field that holds no layers
/// has to say so by `#[walk(skip)]`, so that none is forgotten, and `#[walk(name = "…")]` gives one
/// another name in module paths. An enum, or a struct with one field that has no name, is what it
/// holds. `#[walk(layer)]` on a type is for one that is a [`Layer`] itself, and
/// `#[walk(crate = "path")]` names the path of this crate where that is not `qoft_core`.
///
/// ```
/// use qoft_core::{Linear, Norm, Walk};
///
/// #[derive(Walk)]
/// struct Block {
///     attention: Vec<Linear>,
///     #[walk(name = "post_norm")]
///     norm: Option<Norm>,
///     #[walk(skip)]
///     heads: usize,
/// }
/// ```
///
/// A field that is neither walked nor skipped is an error:
///
/// ```compile_fail,E0277
/// use qoft_core::{Linear, Walk};
///
/// #[derive(Walk)]
/// struct Block {
///     attention: Vec<Linear>,
///     heads: usize,
/// }
/// ```
pub trait Walk {
    /// Visits each layer with its module path below `path`.
    fn walk<'a>(&'a self, path: &str, visit: &mut dyn FnMut(&str, &'a dyn Layer));

    /// As [`Self::walk`], to change the layers.
    fn walk_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut dyn Layer));

    /// All layers with their module paths, in the model's order.
    fn layers(&self) -> Vec<(String, &dyn Layer)> {
        let mut found = Vec::new();
        self.walk("", &mut |path, layer| found.push((path.to_owned(), layer)));
        found
    }
}

macro_rules! walk_layer {
    ($($layer:ident),+) => {$(
        impl Walk for $layer {
            fn walk<'a>(&'a self, path: &str, visit: &mut dyn FnMut(&str, &'a dyn Layer)) {
                visit(path, self);
            }

            fn walk_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut dyn Layer)) {
                visit(path, self);
            }
        }
    )+};
}

walk_layer!(Linear, Conv2d, CausalConv1d, Embedding, Norm);

impl<T: Walk + ?Sized> Walk for Box<T> {
    fn walk<'a>(&'a self, path: &str, visit: &mut dyn FnMut(&str, &'a dyn Layer)) {
        (**self).walk(path, visit);
    }

    fn walk_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut dyn Layer)) {
        (**self).walk_mut(path, visit);
    }
}

impl<T: Walk> Walk for Option<T> {
    fn walk<'a>(&'a self, path: &str, visit: &mut dyn FnMut(&str, &'a dyn Layer)) {
        self.iter().for_each(|item| item.walk(path, visit));
    }

    fn walk_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut dyn Layer)) {
        self.iter_mut().for_each(|item| item.walk_mut(path, visit));
    }
}

impl<T: Walk> Walk for [T] {
    fn walk<'a>(&'a self, path: &str, visit: &mut dyn FnMut(&str, &'a dyn Layer)) {
        for (index, item) in self.iter().enumerate() {
            item.walk(&join(path, &index.to_string()), visit);
        }
    }

    fn walk_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut dyn Layer)) {
        for (index, item) in self.iter_mut().enumerate() {
            item.walk_mut(&join(path, &index.to_string()), visit);
        }
    }
}

impl<T: Walk> Walk for Vec<T> {
    fn walk<'a>(&'a self, path: &str, visit: &mut dyn FnMut(&str, &'a dyn Layer)) {
        self.as_slice().walk(path, visit);
    }

    fn walk_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut dyn Layer)) {
        self.as_mut_slice().walk_mut(path, visit);
    }
}

impl<T: Walk, const N: usize> Walk for [T; N] {
    fn walk<'a>(&'a self, path: &str, visit: &mut dyn FnMut(&str, &'a dyn Layer)) {
        self.as_slice().walk(path, visit);
    }

    fn walk_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut dyn Layer)) {
        self.as_mut_slice().walk_mut(path, visit);
    }
}

/// `path.name`, or `name` at the root.
pub fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// Numbers of (trainable, all) parameters of the layers, counted as if nothing were packed.
///
/// Only active adapters that are on an autodiff device train. A trained bias counts once among all,
/// since it takes the place of the layer's.
pub fn trainable_parameters(model: &impl Walk) -> (usize, usize) {
    let (mut trainable, mut all) = (0, 0);
    for (_, layer) in model.layers() {
        let adapters = layer.adapters();
        let training = adapters.active().filter(|slot| slot.trains());
        trainable += training.map(|slot| slot.parameters()).sum::<usize>();
        all += layer.base_parameters();
        for slot in adapters.slots() {
            let biases = slot.own().iter().filter(|own| !own.is_whole());
            let biases: usize = biases
                .map(|own| own.tensor().shape.iter().product::<usize>())
                .sum();
            all += slot.parameters() - biases;
        }
    }
    (trainable, all)
}

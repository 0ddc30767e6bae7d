//! The model walker: how layers are found in somebody's model.

use crate::conv2d::Conv2d;
use crate::embedding::Embedding;
use crate::layer::Layer;
use crate::linear::Linear;
use crate::norm::Norm;

/// Implements [`Walk`](crate::Walk) for a struct: `walkable!(Block { attention, mlp });` lists
/// the fields that are, or contain, layers. `walkable!(Mine);` is for a [`Layer`](crate::Layer).
#[macro_export]
macro_rules! walkable {
    ($name:ident { $($field:ident),+ $(,)? }) => {
        impl $crate::Walk for $name {
            fn walk<'a>(&'a self, path: &str, visit: &mut dyn FnMut(&str, &'a dyn $crate::Layer)) {
                $($crate::Walk::walk(
                    &self.$field,
                    &$crate::walk_join(path, stringify!($field)),
                    visit,
                );)+
            }

            fn walk_mut(
                &mut self,
                path: &str,
                visit: &mut dyn FnMut(&str, &mut dyn $crate::Layer),
            ) {
                $($crate::Walk::walk_mut(
                    &mut self.$field,
                    &$crate::walk_join(path, stringify!($field)),
                    visit,
                );)+
            }
        }
    };
    ($layer:ident) => {
        impl $crate::Walk for $layer {
            fn walk<'a>(&'a self, path: &str, visit: &mut dyn FnMut(&str, &'a dyn $crate::Layer)) {
                visit(path, self);
            }

            fn walk_mut(
                &mut self,
                path: &str,
                visit: &mut dyn FnMut(&str, &mut dyn $crate::Layer),
            ) {
                visit(path, self);
            }
        }
    };
}

/// A model whose layers can be visited.
///
/// [`walkable!`](crate::walkable) implements it for a struct from a list of its fields.
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

walkable!(Linear);
walkable!(Conv2d);
walkable!(Embedding);
walkable!(Norm);

impl<T: Walk> Walk for Option<T> {
    fn walk<'a>(&'a self, path: &str, visit: &mut dyn FnMut(&str, &'a dyn Layer)) {
        self.iter().for_each(|item| item.walk(path, visit));
    }

    fn walk_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut dyn Layer)) {
        self.iter_mut().for_each(|item| item.walk_mut(path, visit));
    }
}

impl<T: Walk> Walk for Vec<T> {
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

/// `path.name`, or `name` at the root.
#[doc(hidden)]
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

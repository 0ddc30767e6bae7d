//! The model walker: how linear layers are found in somebody's model.

use crate::linear::Linear;

/// A model whose linear layers can be visited.
///
/// [`walkable!`](crate::walkable) implements it for a struct from a list of its fields.
pub trait Walk {
    /// Visits each linear layer with its module path below `path`.
    fn walk<'a>(&'a self, path: &str, visit: &mut dyn FnMut(&str, &'a Linear));

    /// As [`Self::walk`], to change the layers.
    fn walk_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut Linear));

    /// All linear layers with their module paths, in the model's order.
    fn linears(&self) -> Vec<(String, &Linear)> {
        let mut found = Vec::new();
        self.walk("", &mut |path, linear| {
            found.push((path.to_owned(), linear))
        });
        found
    }
}

impl Walk for Linear {
    fn walk<'a>(&'a self, path: &str, visit: &mut dyn FnMut(&str, &'a Linear)) {
        visit(path, self);
    }

    fn walk_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut Linear)) {
        visit(path, self);
    }
}

impl<T: Walk> Walk for Option<T> {
    fn walk<'a>(&'a self, path: &str, visit: &mut dyn FnMut(&str, &'a Linear)) {
        self.iter().for_each(|item| item.walk(path, visit));
    }

    fn walk_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut Linear)) {
        self.iter_mut().for_each(|item| item.walk_mut(path, visit));
    }
}

impl<T: Walk> Walk for Vec<T> {
    fn walk<'a>(&'a self, path: &str, visit: &mut dyn FnMut(&str, &'a Linear)) {
        for (index, item) in self.iter().enumerate() {
            item.walk(&join(path, &index.to_string()), visit);
        }
    }

    fn walk_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut Linear)) {
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

/// Implements [`Walk`] for a struct: `walkable!(Block { attention, mlp });` lists the fields
/// that are, or contain, linear layers.
#[macro_export]
macro_rules! walkable {
    ($name:ident { $($field:ident),+ $(,)? }) => {
        impl $crate::Walk for $name {
            fn walk<'a>(&'a self, path: &str, visit: &mut dyn FnMut(&str, &'a $crate::Linear)) {
                $($crate::Walk::walk(
                    &self.$field,
                    &$crate::walk_join(path, stringify!($field)),
                    visit,
                );)+
            }

            fn walk_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut $crate::Linear)) {
                $($crate::Walk::walk_mut(
                    &mut self.$field,
                    &$crate::walk_join(path, stringify!($field)),
                    visit,
                );)+
            }
        }
    };
}

/// Numbers of (trainable, all) parameters, counted as if nothing were packed.
///
/// `other` is the number of parameters outside the linear layers.
pub fn trainable_parameters(model: &impl Walk, other: usize) -> (usize, usize) {
    let (mut trainable, mut all) = (0, other);
    for (_, linear) in model.linears() {
        let adapters: usize = linear.adapters().iter().map(|a| a.parameters()).sum();
        trainable += adapters;
        all += linear.base_parameters() + adapters;
    }
    (trainable, all)
}

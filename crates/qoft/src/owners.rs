//! Which layer a tensor belongs to.

use std::collections::HashMap;
use std::iter::successors;

use qoft_core::ClaimedLayer;

/// Finds the layer of a tensor by its name, however many layers there are.
pub struct Owners<'a, 'b>(HashMap<&'a str, &'b ClaimedLayer<'a>>);

impl<'a, 'b> Owners<'a, 'b> {
    /// Of these layers.
    pub fn new(layers: impl IntoIterator<Item = &'b ClaimedLayer<'a>>) -> Self {
        let layers = layers.into_iter();
        Self(layers.map(|layer| (layer.path(), layer)).collect())
    }

    /// The layer that a tensor is of: one that its name starts with, the innermost if there are
    /// several.
    pub fn of(&self, name: &str) -> Option<&'b ClaimedLayer<'a>> {
        let mut parents = successors(parent(name), |path| parent(path));
        parents.find_map(|path| self.at(path))
    }

    /// The layer at a module path.
    pub fn at(&self, path: &str) -> Option<&'b ClaimedLayer<'a>> {
        self.0.get(path).copied()
    }
}

/// Whether a tensor of a layer is its bias, under its plain name.
pub fn is_bias(name: &str, layer: &ClaimedLayer) -> bool {
    name.strip_prefix(layer.path()) == Some(".bias")
}

fn parent(path: &str) -> Option<&str> {
    path.rsplit_once('.').map(|(parent, _)| parent)
}

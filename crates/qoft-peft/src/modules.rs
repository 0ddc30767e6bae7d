//! What PEFT's rules see of a model: the paths and kinds of its modules.

use std::collections::{BTreeMap, BTreeSet};

use qoft_core::{LayerKind, Walk};

/// A kind of module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ModuleKind {
    /// A layer.
    Layer(LayerKind),
    /// A list: the modules in it have numbers for names.
    List,
    /// Anything else, such as a block, or a module without layers.
    Other,
}

impl ModuleKind {
    /// With an article, for messages.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Layer(LayerKind::Embedding) => "an embedding layer".to_owned(),
            Self::Layer(kind) => format!("a {} layer", kind.name()),
            Self::List => "a list of modules".to_owned(),
            Self::Other => "no layer".to_owned(),
        }
    }
}

/// The modules of a model but the root, each before those in it, and which of them is the output
/// head.
#[derive(Debug, Clone, Default)]
pub struct Modules {
    modules: Vec<(String, ModuleKind)>,
    head: String,
}

impl Modules {
    /// Modules with these paths, and those that they are in. `head` is the path of the output head.
    pub fn new<P: Into<String>>(
        modules: impl IntoIterator<Item = (P, ModuleKind)>,
        head: impl Into<String>,
    ) -> Self {
        let mut found: Vec<(String, ModuleKind)> = Vec::new();
        let mut index: BTreeMap<String, usize> = BTreeMap::new();
        let mut place = |path: &str, kind: Option<ModuleKind>| {
            let at = *index.entry(path.to_owned()).or_insert_with(|| {
                found.push((path.to_owned(), ModuleKind::Other));
                found.len() - 1
            });
            found[at].1 = kind.unwrap_or(found[at].1);
        };
        for (path, kind) in modules {
            let path = path.into();
            for (at, _) in path.match_indices('.') {
                place(&path[..at], None);
            }
            place(&path, Some(kind));
        }
        let lists = lists(&found);
        for (path, kind) in &mut found {
            if lists.contains(path) {
                *kind = ModuleKind::List;
            }
        }
        Self {
            modules: found,
            head: head.into(),
        }
    }

    /// The modules of a model that its walker knows: layers, and what they are in. Modules without
    /// layers, such as activations, are not among them.
    pub fn of(model: &impl Walk, head: &str) -> Self {
        let layers = model.layers().into_iter();
        Self::new(
            layers.map(|(path, layer)| (path, ModuleKind::Layer(layer.kind()))),
            head,
        )
    }

    /// The path of the output head.
    pub fn head(&self) -> &str {
        &self.head
    }

    /// Paths and kinds, each module before those in it.
    pub fn iter(&self) -> impl Iterator<Item = (&str, ModuleKind)> {
        self.modules
            .iter()
            .map(|(path, kind)| (path.as_str(), *kind))
    }

    /// Distinct last components of the layers' paths that an adapter may be for, for messages.
    pub(crate) fn known(&self) -> String {
        let norm = ModuleKind::Layer(LayerKind::Norm);
        let layers = self
            .iter()
            .filter(|(_, kind)| matches!(kind, ModuleKind::Layer(_)) && *kind != norm);
        let names = layers.map(|(path, _)| path.rsplit('.').next().unwrap_or(path));
        let names: BTreeSet<&str> = names.collect();
        names.into_iter().collect::<Vec<_>>().join(", ")
    }
}

/// The paths of modules that hold nothing but numbered ones.
fn lists(modules: &[(String, ModuleKind)]) -> BTreeSet<String> {
    let mut numbered = BTreeMap::new();
    for (path, _) in modules {
        if let Some((parent, name)) = path.rsplit_once('.') {
            let is_number = name.bytes().all(|b| b.is_ascii_digit());
            *numbered.entry(parent).or_insert(true) &= is_number;
        }
    }
    let lists = numbered.into_iter().filter(|(_, all)| *all);
    lists.map(|(path, _)| path.to_owned()).collect()
}

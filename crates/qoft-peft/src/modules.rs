//! What PEFT's rules see of a model: the paths and kinds of its modules.

use std::collections::{BTreeMap, BTreeSet};

use qoft_core::{LayerKind, WEIGHT, Walk};

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
    /// Paths of layers that are none of PEFT's modules, and the parameter that each of them is, or is a
    /// part of.
    parameters: Vec<(String, String)>,
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
            parameters: Vec::new(),
            head: head.into(),
        }
    }

    /// The same with linear layers that are no modules in PEFT's model: their paths, and the parameter
    /// that each of them is there, or is a part of. The modules that own these parameters are among the
    /// modules.
    #[must_use]
    pub fn with_parameters<P: Into<String>>(
        self,
        parameters: impl IntoIterator<Item = (P, P)>,
    ) -> Self {
        let parameters = parameters.into_iter();
        let parameters = parameters.map(|(path, parameter)| (path.into(), parameter.into()));
        let parameters: Vec<(String, String)> = parameters.collect();
        let owner = |(_, parameter): &(String, String)| {
            let (owner, _) = parameter.rsplit_once('.')?;
            Some((owner.to_owned(), ModuleKind::Other))
        };
        let owners: BTreeMap<String, ModuleKind> = parameters.iter().filter_map(owner).collect();
        Self {
            parameters,
            ..Self::new(self.modules.into_iter().chain(owners), self.head)
        }
    }

    /// The modules of a model that its walker knows: layers, and what they are in. Modules without
    /// layers, such as activations, are not among them.
    pub fn of(model: &impl Walk, head: &str) -> Self {
        let layers = model.layers().into_iter();
        let (parts, layers): (Vec<_>, Vec<_>) =
            layers.partition(|(_, layer)| layer.parameter().is_some());
        let layers = layers.into_iter();
        let layers = layers.map(|(path, layer)| (path, ModuleKind::Layer(layer.kind())));
        let parts = parts
            .into_iter()
            .filter_map(|(path, layer)| Some((path, layer.parameter()?.to_owned())));
        Self::new(layers, head).with_parameters(parts)
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

    /// Layers that are none of these modules: their paths, and the parameters of PEFT's model that they
    /// are, or are parts of.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        let parameters = self.parameters.iter();
        parameters.map(|(path, parameter)| (path.as_str(), parameter.as_str()))
    }

    /// Layers that are modules in PEFT's model, under other paths: their paths here and there.
    pub(crate) fn elsewhere(&self) -> impl Iterator<Item = (&str, &str)> {
        let parameters = self.parameters();
        let modules = parameters.filter_map(|(path, parameter)| Some((path, module(parameter)?)));
        modules.filter(|(path, module)| path != module)
    }

    /// Distinct last components of the layers' paths that an adapter may be for, for messages.
    pub(crate) fn known(&self) -> String {
        let norm = ModuleKind::Layer(LayerKind::Norm);
        let layers = self
            .iter()
            .filter(|(_, kind)| matches!(kind, ModuleKind::Layer(_)) && *kind != norm);
        let names = layers.map(|(path, _)| last(path));
        let experts = self.parameters.iter();
        let experts = experts.filter_map(|(path, _)| Some((experts_of(path)?, last(path))));
        let experts: BTreeSet<(&str, &str)> = experts.collect();
        let experts = experts
            .iter()
            .map(|(list, name)| format!("{list}.*.{name}"));
        let names: BTreeSet<String> = names.map(str::to_owned).chain(experts).collect();
        names.into_iter().collect::<Vec<_>>().join(", ")
    }
}

/// The module that a parameter is the weight of; none if it is one of several parameters, as those of experts
/// are.
pub(crate) fn module(parameter: &str) -> Option<&str> {
    parameter.strip_suffix(WEIGHT)?.strip_suffix('.')
}

/// The last component of a path.
pub(crate) fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// The name of the list that the layer of an expert is in.
fn experts_of(path: &str) -> Option<&str> {
    let mut parts = path.rsplit('.').skip(1);
    let number = parts.next()?;
    let is_number = number.bytes().all(|b| b.is_ascii_digit());
    parts.next().filter(|_| is_number)
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

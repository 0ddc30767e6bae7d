//! Which layers get an adapter, by PEFT's rules.

use std::collections::BTreeSet;

use qoft_core::{Error, LayerKind, Result};
use tracing::warn;

use crate::block_index::BlockIndex;
use crate::common::{CommonConfig, Layers, OneOrMany};
use crate::defaults::default_targets;
use crate::expression::Expression;
use crate::facts::ModelFacts;
use crate::modules::{ModuleKind, Modules};
use crate::parts::Parts;
use crate::saved_modules::Barred;
use crate::text_part::{is_in_text_part, text_expression};

/// The word for all linear layers but the output head, in letters of any case.
const ALL_LINEAR: &str = "all-linear";

/// From so many names on, a list is replaced by a shorter one that means the same modules. This
/// matters for `layers_to_transform`, which counts for names that are not whole paths only.
const MANY_NAMES: usize = 20;

const TARGET_MODULES: &str = "target_modules";

/// A compiled choice of modules.
#[derive(Debug)]
pub struct Targets {
    target_modules: OneOrMany,
    include: Rule,
    parts: Parts,
    limits: Limits,
}

impl Targets {
    /// Compiles what a configuration says for a model, with the model's default targets.
    ///
    /// # Errors
    /// If an expression is invalid, options contradict each other, or there is no default.
    pub fn new(config: &CommonConfig, facts: ModelFacts, modules: &Modules) -> Result<Self> {
        let default = || {
            default_targets(facts).ok_or_else(|| {
                let model_type = facts.model_type;
                let reason = format!("no default for model_type {model_type}; name the layers");
                Error::config("adapter configuration").key(TARGET_MODULES, reason)
            })
        };
        let targets = match config.target_modules.clone() {
            Some(given) => given,
            None if !config.target_parameters().is_empty() => OneOrMany::Many(Vec::new()),
            None => default()?,
        };
        Self::of(targets, config, modules)
    }

    /// As [`Self::new`], with these targets instead of the configuration's.
    fn of(targets: OneOrMany, config: &CommonConfig, modules: &Modules) -> Result<Self> {
        let limits = Limits::new(config)?;
        let target_modules = resolve(targets, modules);
        let include = Rule::new(&target_modules, TARGET_MODULES)?;
        if limits.layers.is_some() && matches!(include, Rule::Expression(_)) {
            warn!("layers_to_transform has no effect: target_modules is an expression, not a list");
        }
        Ok(Self {
            parts: Parts::new(&target_modules, config.target_parameters()),
            target_modules,
            include,
            limits,
        })
    }

    /// The names or the expression that the configuration comes to.
    pub fn target_modules(&self) -> &OneOrMany {
        &self.target_modules
    }

    /// Whether the module at `path` is meant, of whatever kind it is.
    ///
    /// # Errors
    /// If an expression takes too long to match.
    pub fn matches(&self, path: &str) -> Result<bool> {
        if self.limits.excludes(path)? {
            return Ok(false);
        }
        match &self.include {
            Rule::Expression(expression) => expression.is_match(path),
            Rule::Names(names) if names.contains(path) => Ok(true),
            names => Ok(names.matches(path)? && self.limits.layer_matches(path)?),
        }
    }
}

impl Targets {
    /// Whether the layer at `path` is meant, which is the parameter `parameter` of PEFT's model, or a part of
    /// it. Targets mean modules; they mean experts if they say so: `experts.*.down_proj`.
    ///
    /// # Errors
    /// As [`Self::matches`].
    pub fn matches_part(&self, path: &str, parameter: &str) -> Result<bool> {
        if self.limits.excludes(path)? {
            return Ok(false);
        }
        let named = match &self.include {
            Rule::Expression(expression) => self.parts.experts && expression.is_match(path)?,
            Rule::Names(names) if names.contains(path) => return Ok(true),
            Rule::Names(_) => self.parts.named(path),
        };
        Ok((named || self.parts.of_parameter(parameter)) && self.limits.layer_matches(path)?)
    }
}

/// Names, or one expression.
#[derive(Debug)]
enum Rule {
    /// Matches the whole path.
    Expression(Box<Expression>),
    /// Equal the path or its last components.
    Names(BTreeSet<String>),
}

impl Rule {
    fn new(rule: &OneOrMany, key: &'static str) -> Result<Self> {
        match rule {
            OneOrMany::One(one) => {
                Expression::full(one, key).map(|one| Self::Expression(Box::new(one)))
            }
            OneOrMany::Many(many) => Ok(Self::Names(many.iter().cloned().collect())),
        }
    }

    fn matches(&self, path: &str) -> Result<bool> {
        match self {
            Self::Expression(expression) => expression.is_match(path),
            Self::Names(names) => Ok(ends(path).iter().any(|&end| names.contains(end))),
        }
    }
}

/// What a configuration says against modules that its targets mean.
#[derive(Debug)]
struct Limits {
    exclude: Option<Rule>,
    /// What trains whole instead.
    saved: Barred,
    layers: Option<Layers>,
    index: BlockIndex,
}

impl Limits {
    fn new(config: &CommonConfig) -> Result<Self> {
        let pattern = config.layers_pattern.as_ref();
        let pattern = pattern.filter(|pattern| !pattern.is_empty());
        if pattern.is_some() && config.layers_to_transform.is_none() {
            let (file, key) = ("adapter configuration", "layers_pattern");
            return Err(Error::config(file).key(key, "it needs layers_to_transform"));
        }
        let exclude = config.exclude_modules.as_ref();
        let exclude = exclude.filter(|exclude| !exclude.is_empty());
        let layers = config.layers_to_transform.clone();
        Ok(Self {
            exclude: exclude
                .map(|rule| Rule::new(rule, "exclude_modules"))
                .transpose()?,
            saved: Barred::new(config.modules_to_save())?,
            layers: layers.filter(|layers| !layers.is_empty()),
            index: BlockIndex::new(pattern),
        })
    }

    fn excludes(&self, path: &str) -> Result<bool> {
        if let Some(exclude) = &self.exclude
            && exclude.matches(path)?
        {
            return Ok(true);
        }
        self.saved.bars(path)
    }

    /// Whether the block that a path is in may have adapters.
    fn layer_matches(&self, path: &str) -> Result<bool> {
        let Some(layers) = &self.layers else {
            return Ok(true);
        };
        let index = self.index.of(path)?;
        Ok(index.is_some_and(|index| layers.contains(index)))
    }
}

/// The error for a model of which no module is meant.
pub(crate) fn match_nothing(config: &CommonConfig, modules: &Modules) -> Error {
    let target = match &config.target_modules {
        None => "(default)".to_owned(),
        Some(OneOrMany::One(one)) => format!("`{one}`"),
        Some(OneOrMany::Many(many)) => format!("{many:?}"),
    };
    Error::NoTarget {
        target,
        known: modules.known(),
    }
}

/// The names among `target_modules` that no module of the model has, nor an expert.
pub(crate) fn unknown_names<'a>(config: &'a CommonConfig, modules: &Modules) -> Vec<&'a str> {
    let Some(OneOrMany::Many(names)) = &config.target_modules else {
        return Vec::new();
    };
    let paths = modules.iter().map(|(path, _)| path);
    let known: BTreeSet<&str> = paths.flat_map(ends).collect();
    let is_part = |name: &String| {
        let parts = Parts::new(&OneOrMany::Many(vec![name.clone()]), &[]);
        modules.parameters().any(|(path, _)| parts.named(path))
    };
    let unknown = names.iter().filter(|name| !known.contains(name.as_str()));
    unknown
        .filter(|name| !is_part(name))
        .map(String::as_str)
        .collect()
}

/// What targets come to in a model: names in place of `all-linear`, and fewer names for many.
fn resolve(targets: OneOrMany, modules: &Modules) -> OneOrMany {
    let names = match targets {
        OneOrMany::One(one) if is_all_linear(&one) => all_linear(modules),
        OneOrMany::One(one) => return OneOrMany::One(one),
        OneOrMany::Many(names) => names,
    };
    let distinct: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    if distinct.len() >= MANY_NAMES {
        let paths = modules.iter().map(|(path, _)| path);
        let others = paths.filter(|path| !ends(path).iter().any(|end| distinct.contains(end)));
        let fewer = fewest_names(&distinct, others);
        if fewer.len() < distinct.len() {
            return OneOrMany::Many(fewer);
        }
    }
    OneOrMany::Many(names)
}

fn all_linear(modules: &Modules) -> Vec<String> {
    let linear = modules.iter().filter(|&(path, kind)| {
        kind == ModuleKind::Layer(LayerKind::Linear) && path != modules.head()
    });
    linear.map(|(path, _)| path.to_owned()).collect()
}

/// Whether targets are the word for all linear layers.
fn is_all_linear(word: &str) -> bool {
    word.eq_ignore_ascii_case(ALL_LINEAR)
}

/// The targets that a file of an adapter has, which rotates these layers of a model: those of its
/// configuration, or if they are a default or a word, the names that they stand for.
///
/// # Errors
/// If an expression of the configuration is invalid.
pub(crate) fn written(
    config: &CommonConfig,
    modules: &Modules,
    rotated: &BTreeSet<&str>,
) -> Result<OneOrMany> {
    let parts: BTreeSet<&str> = modules.parameters().map(|(path, _)| path).collect();
    let rotated: &BTreeSet<&str> = &rotated.difference(&parts).copied().collect();
    match &config.target_modules {
        Some(OneOrMany::One(one)) if is_all_linear(one) => (),
        None if !config.target_parameters().is_empty() => return Ok(OneOrMany::Many(Vec::new())),
        None => (),
        Some(OneOrMany::Many(names)) => {
            return in_text_part(names.clone(), config, modules, rotated);
        }
        Some(given) => return Ok(given.clone()),
    }
    let limits = Limits::new(config)?;
    let mut others = Vec::new();
    for (path, _) in modules.iter().filter(|(path, _)| !rotated.contains(path)) {
        if !limits.excludes(path)? && limits.layer_matches(path)? {
            others.push(path);
        }
    }
    let names = OneOrMany::Many(fewest_names(rotated, others));
    let targets = Targets::of(names, config, modules)?;
    for (path, _) in modules.iter() {
        if targets.matches(path)? != rotated.contains(path) {
            // Where blocks are chosen, only whole paths mean a layer in every block.
            let paths = rotated.iter().map(|&path| path.to_owned());
            return Ok(OneOrMany::Many(paths.collect()));
        }
    }
    match targets.target_modules {
        OneOrMany::Many(names) => in_text_part(names, config, modules, rotated),
        one => Ok(one),
    }
}

/// These names; in a model that is a part of a larger one, whose other parts may have layers that are called so,
/// an expression that means them in the text part only.
fn in_text_part(
    names: Vec<String>,
    config: &CommonConfig,
    modules: &Modules,
    rotated: &BTreeSet<&str>,
) -> Result<OneOrMany> {
    let is_part = !rotated.is_empty() && rotated.iter().all(|path| is_in_text_part(path));
    let is_plain = config.layers_to_transform.is_none() && !names.iter().any(|n| n.contains('*'));
    if !is_part || !is_plain {
        return Ok(OneOrMany::Many(names));
    }
    let one = OneOrMany::One(text_expression(names.iter().map(String::as_str)));
    let targets = Targets::of(one.clone(), config, modules)?;
    for (path, _) in modules.iter() {
        if targets.matches(path)? != rotated.contains(path) {
            return Ok(OneOrMany::Many(names));
        }
    }
    Ok(one)
}

/// The fewest last components of names that are enough to tell them from other paths, as PEFT finds
/// them (`_find_minimal_target_modules`).
fn fewest_names<'a>(
    names: &BTreeSet<&'a str>,
    others: impl IntoIterator<Item = &'a str>,
) -> Vec<String> {
    let others: BTreeSet<&str> = others.into_iter().flat_map(ends).collect();
    let mut all_ends: Vec<Vec<&str>> = names.iter().map(|name| ends(name)).collect();
    all_ends.sort();
    let mut found: BTreeSet<&str> = BTreeSet::new();
    for ends in all_ends {
        let covered = ends.iter().rev().skip(1).any(|end| found.contains(end));
        let mut new = ends
            .iter()
            .filter(|end| !found.contains(*end) && !others.contains(*end));
        if !covered && let Some(end) = new.next() {
            found.insert(end);
        }
    }
    let found = if found.is_empty() { names } else { &found };
    found.iter().map(|&name| name.to_owned()).collect()
}

/// The last component of a path, its last two, and so on up to all of it.
fn ends(path: &str) -> Vec<&str> {
    let dots: Vec<usize> = path.match_indices('.').map(|(at, _)| at + 1).collect();
    let starts = dots.into_iter().rev().chain([0]);
    starts.map(|at| &path[at..]).collect()
}

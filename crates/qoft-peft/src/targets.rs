//! Which layers get an adapter, by PEFT's rules.

use std::collections::BTreeSet;

use fancy_regex::Regex;

use crate::family::{Layers, OneOrMany};
use qoft_core::LayerKind;
use qoft_core::Walk;
use qoft_core::{Error, Result};

/// What a configuration says about the layers that it is for; the keys are the same in all
/// families of adapters.
#[derive(Debug, Clone, Copy)]
pub struct TargetRules<'a> {
    /// Layers to adapt; by default those that PEFT chooses for the model.
    pub target_modules: Option<&'a OneOrMany>,
    /// Layers to leave alone.
    pub exclude_modules: Option<&'a OneOrMany>,
    /// Indices of the blocks to adapt.
    pub layers_to_transform: Option<&'a Layers>,
    /// Names under which blocks are numbered.
    pub layers_pattern: Option<&'a OneOrMany>,
}

impl TargetRules<'_> {
    /// The error for a model of which no layer is meant.
    pub fn match_nothing(&self, model: &impl Walk) -> Error {
        let layers = model.layers().into_iter();
        let layers = layers.filter(|(_, layer)| layer.kind() != LayerKind::Norm);
        let names = layers.map(|(path, _)| path.rsplit('.').next().unwrap_or(&path).to_owned());
        let known: BTreeSet<String> = names.collect();
        let target = match self.target_modules {
            None => "(default)".to_owned(),
            Some(OneOrMany::One(one)) => format!("`{one}`"),
            Some(OneOrMany::Many(many)) => format!("{many:?}"),
        };
        Error::NoTarget {
            target,
            known: known.into_iter().collect::<Vec<_>>().join(", "),
        }
    }
}

/// A compiled choice of layers.
#[derive(Debug)]
pub struct Targets {
    include: Rule,
    exclude: Option<Rule>,
    layers: Option<Layers>,
    /// Find the index of the block in a path.
    index: Vec<Regex>,
}

#[derive(Debug)]
enum Rule {
    AllLinear,
    /// Matches the whole path.
    Pattern(Regex),
    /// Equal the path or its last components.
    Names(Vec<String>),
}

impl Rule {
    fn new(rule: &OneOrMany, key: &str) -> Result<Self> {
        match rule {
            OneOrMany::One(one) if one == "all-linear" => Ok(Self::AllLinear),
            OneOrMany::One(one) => regex(&format!("^(?:{one})$"), key).map(Self::Pattern),
            OneOrMany::Many(many) => match many.as_slice() {
                [one] if one == "all-linear" => Ok(Self::AllLinear),
                _ => Ok(Self::Names(many.clone())),
            },
        }
    }

    fn matches(&self, path: &str) -> bool {
        match self {
            Self::AllLinear => true,
            Self::Pattern(regex) => regex.is_match(path).unwrap_or(false),
            Self::Names(names) => names.iter().any(|name| {
                path.strip_suffix(name.as_str())
                    .is_some_and(|p| p.is_empty() || p.ends_with('.'))
            }),
        }
    }

    fn names_exactly(&self, path: &str) -> bool {
        matches!(self, Self::Names(names) if names.iter().any(|name| name == path))
    }
}

pub(super) fn regex(pattern: &str, key: &str) -> Result<Regex> {
    Regex::new(pattern).map_err(|e| Error::config("adapter configuration", key, e))
}

impl Targets {
    /// Compiles rules, with PEFT's default for `model_type`.
    ///
    /// # Errors
    /// If an expression is invalid, options contradict each other, or there is no default.
    pub fn new(rules: &TargetRules, model_type: &str) -> Result<Self> {
        let fail =
            |key: &str, reason: String| Err(Error::config("adapter configuration", key, reason));
        let targets = match rules.target_modules {
            Some(targets) => targets.clone(),
            None => match default_targets(model_type) {
                Some(names) => OneOrMany::Many(names.iter().map(|n| (*n).to_owned()).collect()),
                None => {
                    let reason = format!("no default for model_type {model_type}; name the layers");
                    return fail("target_modules", reason);
                }
            },
        };
        let include = Rule::new(&targets, "target_modules")?;
        if matches!(include, Rule::Pattern(_)) {
            for (key, given) in [
                ("layers_to_transform", rules.layers_to_transform.is_some()),
                ("layers_pattern", rules.layers_pattern.is_some()),
            ] {
                if given {
                    return fail(
                        key,
                        "cannot be used when target_modules is an expression".into(),
                    );
                }
            }
        }
        if rules.layers_pattern.is_some() && rules.layers_to_transform.is_none() {
            return fail("layers_pattern", "needs layers_to_transform".into());
        }
        let exclude = rules.exclude_modules;
        Ok(Self {
            include,
            exclude: exclude
                .map(|rule| Rule::new(rule, "exclude_modules"))
                .transpose()?,
            layers: rules.layers_to_transform.cloned(),
            index: index_patterns(rules.layers_pattern)?,
        })
    }

    /// Whether the layer at `path` gets an adapter. `all-linear` means linear layers but the
    /// output head, which `is_head` tells; names and expressions mean layers of any kind but norms.
    pub fn matches(&self, path: &str, kind: LayerKind, is_head: bool) -> bool {
        if kind == LayerKind::Norm {
            return false;
        }
        if self.exclude.as_ref().is_some_and(|rule| rule.matches(path)) {
            return false;
        }
        let linear = kind == LayerKind::Linear && !is_head;
        if !linear && matches!(self.include, Rule::AllLinear) {
            return false;
        }
        if self.include.names_exactly(path) {
            return true;
        }
        self.include.matches(path) && self.layer_matches(path)
    }

    fn layer_matches(&self, path: &str) -> bool {
        let Some(layers) = &self.layers else {
            return true;
        };
        let captures = self
            .index
            .iter()
            .find_map(|regex| regex.captures(path).ok().flatten());
        captures
            .and_then(|c| c.get(1))
            .and_then(|m| m.as_str().parse().ok())
            .is_some_and(|index| layers.contains(index))
    }
}

fn index_patterns(pattern: Option<&OneOrMany>) -> Result<Vec<Regex>> {
    let patterns = match pattern {
        None => vec![r"^.*\.[^.]*\.(\d+)\.".to_owned()],
        Some(OneOrMany::One(one)) => vec![format!(r"^.*\.{one}\.(\d+)\.")],
        Some(OneOrMany::Many(many)) => many
            .iter()
            .map(|one| format!(r"^.*\.{one}\.(\d+)\."))
            .collect(),
    };
    patterns
        .iter()
        .map(|p| regex(p, "layers_pattern"))
        .collect()
}

/// PEFT's default `target_modules` of a model type.
pub fn default_targets(model_type: &str) -> Option<&'static [&'static str]> {
    match model_type {
        "llama" | "mistral" | "qwen2" | "qwen3" | "smollm3" | "olmo2" | "granite" => {
            Some(&["q_proj", "v_proj"])
        }
        "phi3" => Some(&["qkv_proj"]),
        "gpt2" => Some(&["c_attn"]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys of a configuration.
    #[derive(Default)]
    struct Keys {
        target_modules: Option<OneOrMany>,
        exclude_modules: Option<OneOrMany>,
        layers_to_transform: Option<Layers>,
        layers_pattern: Option<OneOrMany>,
    }

    const LINEAR: LayerKind = LayerKind::Linear;
    const Q0: &str = "model.layers.0.self_attn.q_proj";
    const Q12: &str = "model.layers.12.self_attn.q_proj";

    fn config(targets: &[&str]) -> Keys {
        let targets = OneOrMany::Many(targets.iter().map(|t| (*t).to_owned()).collect());
        Keys {
            target_modules: Some(targets),
            ..Keys::default()
        }
    }

    fn pattern(text: &str) -> Keys {
        Keys {
            target_modules: Some(OneOrMany::One(text.into())),
            ..Keys::default()
        }
    }

    fn compile(config: &Keys) -> Result<Targets> {
        let rules = TargetRules {
            target_modules: config.target_modules.as_ref(),
            exclude_modules: config.exclude_modules.as_ref(),
            layers_to_transform: config.layers_to_transform.as_ref(),
            layers_pattern: config.layers_pattern.as_ref(),
        };
        Targets::new(&rules, "llama")
    }

    #[test]
    fn names_match_whole_components() {
        let targets = compile(&config(&["proj", "self_attn.q_proj"])).unwrap();
        assert!(targets.matches(Q0, LINEAR, false));
        assert!(!targets.matches("model.layers.0.self_attn.v_proj", LINEAR, false));
        assert!(targets.matches("features.proj", LayerKind::Embedding, false));
    }

    #[test]
    fn expressions_match_the_whole_path_and_may_look_ahead() {
        let targets = compile(&pattern(r"^(?!.*layers\.1\d\.).*q_proj")).unwrap();
        assert!(targets.matches(Q0, LINEAR, false));
        assert!(!targets.matches(Q12, LINEAR, false));
        let half = compile(&pattern("q_proj")).unwrap();
        assert!(!half.matches(Q0, LINEAR, false));
    }

    #[test]
    fn all_linear_leaves_the_head_out() {
        let targets = compile(&pattern("all-linear")).unwrap();
        assert!(targets.matches(Q0, LINEAR, false));
        assert!(!targets.matches("lm_head", LINEAR, true));
        assert!(!targets.matches("embed_tokens", LayerKind::Embedding, false));
        let named = compile(&config(&["lm_head"])).unwrap();
        assert!(named.matches("lm_head", LINEAR, true));
    }

    #[test]
    fn layers_are_chosen_by_index() {
        let layers = Keys {
            layers_to_transform: Some(Layers::Many(vec![0, 3])),
            ..config(&["q_proj"])
        };
        let targets = compile(&layers).unwrap();
        assert!(targets.matches(Q0, LINEAR, false));
        assert!(!targets.matches(Q12, LINEAR, false));
        let other = Keys {
            layers_pattern: Some(OneOrMany::One("blocks".into())),
            ..layers
        };
        assert!(!compile(&other).unwrap().matches(Q0, LINEAR, false));
        let contradiction = Keys {
            layers_to_transform: Some(Layers::One(1)),
            ..pattern(".*q_proj")
        };
        assert!(compile(&contradiction).is_err());
    }

    #[test]
    fn exclusion_wins() {
        let config = Keys {
            exclude_modules: Some(OneOrMany::Many(vec!["q_proj".into()])),
            ..pattern("all-linear")
        };
        let targets = compile(&config).unwrap();
        assert!(!targets.matches(Q0, LINEAR, false));
        assert!(targets.matches("model.layers.0.mlp.up_proj", LINEAR, false));
    }
}

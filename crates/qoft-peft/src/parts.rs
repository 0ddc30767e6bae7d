//! Targets that mean layers of experts, which are parts of parameters in PEFT's model and no modules.
//!
//! PEFT's `target_modules` do not see them, so `down_proj` and `all-linear` mean the same layers here and
//! there. Here they are meant by names and expressions that say `experts`. In a name `*` stands for any one
//! component: `experts.*.down_proj` means that layer of each expert.

use std::collections::BTreeSet;

use crate::common::OneOrMany;

/// What all of transformers' mixtures call the module of their experts.
const EXPERTS: &str = "experts";
/// Stands for any one component in a name.
const ANY: &str = "*";

/// What targets say of parts of parameters.
#[derive(Debug)]
pub struct Parts {
    /// Whether an expression says the name of the experts.
    pub experts: bool,
    /// The components of names that say it, the last one first.
    names: Vec<Vec<String>>,
    /// Whole names of parameters, or their last components.
    parameters: BTreeSet<String>,
}

impl Parts {
    /// What `target_modules` and `target_parameters` say.
    pub fn new(target_modules: &OneOrMany, target_parameters: &[String]) -> Self {
        let (experts, names) = match target_modules {
            OneOrMany::One(expression) => (expression.contains(EXPERTS), Vec::new()),
            OneOrMany::Many(names) => {
                let parts = |name: &String| name.rsplit('.').map(str::to_owned).collect();
                let names = names.iter().map(parts);
                let names = names.filter(|parts: &Vec<_>| parts.iter().any(|part| part == EXPERTS));
                (false, names.collect())
            }
        };
        Self {
            experts,
            names,
            parameters: target_parameters.iter().cloned().collect(),
        }
    }

    /// Whether a name means the layer at `path`: its last components.
    pub fn named(&self, path: &str) -> bool {
        self.names.iter().any(|name| {
            let mut path = path.rsplit('.');
            let mut name = name.iter();
            name.all(|part| path.next().is_some_and(|own| part == ANY || part == own))
        })
    }

    /// Whether a parameter of PEFT's model is meant, by its name or what that ends with.
    pub fn of_parameter(&self, parameter: &str) -> bool {
        let ends = parameter
            .match_indices('.')
            .map(|(at, _)| &parameter[at + 1..]);
        let mut names = ends.chain([parameter]);
        !self.parameters.is_empty() && names.any(|name| self.parameters.contains(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "model.layers.1.mlp.experts.12.down_proj";

    fn named(names: &[&str]) -> bool {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        Parts::new(&OneOrMany::Many(names), &[]).named(PATH)
    }

    #[test]
    fn experts_are_meant_by_names_that_say_so() {
        assert!(named(&["q_proj", "experts.*.down_proj"]));
        assert!(named(&["mlp.experts.12.down_proj"]));
        assert!(!named(&["down_proj"]));
        assert!(!named(&["experts.*.up_proj", "experts.1.down_proj"]));
        assert!(!named(&["*.*.*.*.*.*.experts.*.down_proj"]));
    }

    #[test]
    fn parameters_are_meant_by_their_ends() {
        let parameter = "model.layers.1.mlp.experts.down_proj";
        let meant = |name: &str| {
            Parts::new(&OneOrMany::Many(Vec::new()), &[name.to_owned()]).of_parameter(parameter)
        };
        assert!(meant("mlp.experts.down_proj"));
        assert!(meant("down_proj"));
        assert!(meant(parameter));
        assert!(!meant("oj"));
        assert!(!meant("experts.gate_up_proj"));
    }
}

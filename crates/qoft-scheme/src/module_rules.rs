//! `dynamic`: settings of single modules, by regular expressions on their paths.

use fancy_regex::Regex;
use serde_json::Value;

use crate::error::Result;
use crate::keys::Keys;

/// The key of the configuration.
const DYNAMIC: &str = "dynamic";

/// The rules of a configuration. The first whose expression matches from the start of a module's
/// path holds for it; `-:` before an expression leaves modules dense, `+:` or nothing gives them
/// other values under the configuration's own keys.
#[derive(Debug, Clone, Default)]
pub struct ModuleRules(Vec<Rule>);

#[derive(Debug, Clone)]
struct Rule {
    pattern: Regex,
    /// As it stands in the file.
    key: String,
    /// `None`: the module is left dense.
    keys: Option<Keys>,
}

impl ModuleRules {
    /// Reads the rules, if there are any.
    ///
    /// # Errors
    /// If they are no object of objects, or an expression is wrong.
    pub fn read(config: &Keys) -> Result<Self> {
        let Some(value) = config.value(DYNAMIC) else {
            return Ok(Self::default());
        };
        if !value.is_object() {
            // The library takes it for a flag where it is one.
            return match value {
                Value::Bool(false) => Ok(Self::default()),
                _ => Err(config.error(DYNAMIC, "expected an object of rules")),
            };
        }
        let rules = config.object(DYNAMIC).into_iter();
        let rules: Vec<Rule> = rules
            .flat_map(|rules| {
                let rule = |(key, _): (&str, &Value)| Self::rule(&rules, key);
                rules.entries().map(rule).collect::<Vec<_>>()
            })
            .collect::<Result<_>>()?;
        Ok(Self(rules))
    }

    /// Reads settings of single modules under another key: those of whole paths, which come first,
    /// and those of regular expressions, which match anywhere in a path.
    ///
    /// # Errors
    /// If they are no object of objects.
    pub fn by_name(config: &Keys, name: &str) -> Result<Self> {
        let Some(rules) = config.object(name) else {
            return match config.value(name) {
                None => Ok(Self::default()),
                Some(_) => Err(config.error(name, "expected an object of settings")),
            };
        };
        let (mut paths, mut expressions) = (Vec::new(), Vec::new());
        for (key, _) in rules.entries() {
            let keys = rules.object(key);
            let keys = keys.ok_or_else(|| rules.error(key, "expected an object of settings"))?;
            let rule = |pattern| Rule {
                pattern,
                key: key.to_owned(),
                keys: Some(keys.clone()),
            };
            let path = Regex::new(&format!("^{}$", fancy_regex::escape(key)));
            paths.push(rule(path.map_err(|e| rules.error(key, e))?));
            // A path that is none still names its module.
            expressions.extend(Regex::new(key).ok().map(rule));
        }
        paths.extend(expressions);
        Ok(Self(paths))
    }

    fn rule(rules: &Keys, key: &str) -> Result<Rule> {
        let (dense, pattern) = match key.strip_prefix("-:") {
            Some(pattern) => (true, pattern),
            None => (false, key.strip_prefix("+:").unwrap_or(key)),
        };
        // Python's `re.match`: from the start, to anywhere.
        let pattern = Regex::new(&format!("^(?:{pattern})"));
        let pattern = pattern.map_err(|e| rules.error(key, &e).caused_by(e))?;
        let keys = match dense {
            true => None,
            false => Some(
                rules
                    .object(key)
                    .ok_or_else(|| rules.error(key, "expected an object of settings"))?,
            ),
        };
        Ok(Rule {
            pattern,
            key: key.to_owned(),
            keys,
        })
    }

    /// The settings of the module at `path` that differ; `None` where no rule gives it any.
    ///
    /// # Errors
    /// If an expression takes too long.
    pub fn of(&self, config: &Keys, path: &str) -> Result<Option<&Keys>> {
        Ok(self
            .rule_of(config, path)?
            .and_then(|rule| rule.keys.as_ref()))
    }

    /// Whether a rule leaves the module at `path` dense.
    ///
    /// # Errors
    /// If an expression takes too long.
    pub fn leave_dense(&self, config: &Keys, path: &str) -> Result<bool> {
        let rule = self.rule_of(config, path)?;
        Ok(rule.is_some_and(|rule| rule.keys.is_none()))
    }

    fn rule_of(&self, config: &Keys, path: &str) -> Result<Option<&Rule>> {
        for rule in &self.0 {
            let found = rule.pattern.is_match(path);
            if found.map_err(|e| config.error(DYNAMIC, format!("`{}`: {e}", rule.key)))? {
                return Ok(Some(rule));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_rule_that_matches_counts() {
        let config = Keys::new(
            "c",
            json!({"dynamic": {
                "-:.*k_proj": {},
                "+:model\\.layers\\.1\\.": {"bits": 8},
                ".*": {"bits": 2},
            }}),
        );
        let rules = ModuleRules::read(&config).unwrap();
        let bits = |path: &str| {
            let keys = rules.of(&config, path).unwrap();
            keys.map(|keys| keys.get::<u8>("bits").unwrap().unwrap())
        };
        assert_eq!(bits("model.layers.1.k_proj"), None);
        let dense = |path| rules.leave_dense(&config, path).unwrap();
        assert!(dense("model.layers.1.k_proj") && !dense("model.layers.1.q_proj"));
        assert_eq!(bits("model.layers.1.q_proj"), Some(8));
        // From the start of the path only.
        assert_eq!(bits("a.model.layers.1.q_proj"), Some(2));
        let none = Keys::new("c", json!({"dynamic": null}));
        assert!(
            ModuleRules::read(&none)
                .unwrap()
                .of(&none, "x")
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn whole_paths_come_before_expressions() {
        let config = Keys::new(
            "c",
            json!({"extra": {".*mlp.*": {"bits": 2}, "a.mlp.up": {"bits": 8}}}),
        );
        let rules = ModuleRules::by_name(&config, "extra").unwrap();
        let bits = |path: &str| {
            let keys = rules.of(&config, path).unwrap();
            keys.map(|keys| keys.get::<u8>("bits").unwrap().unwrap())
        };
        assert_eq!(bits("a.mlp.up"), Some(8));
        assert_eq!(bits("a.mlp.down"), Some(2));
        assert_eq!(bits("a.attention"), None);
        for wrong in [json!(3), json!({"a": 3})] {
            let config = Keys::new("c", json!({ "extra": wrong }));
            assert!(ModuleRules::by_name(&config, "extra").is_err());
        }
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for dynamic in [json!(1), json!({"(": {}}), json!({"a": 3})] {
            let config = Keys::new("c", json!({"dynamic": dynamic}));
            let error = ModuleRules::read(&config).unwrap_err().to_string();
            assert!(error.contains("dynamic"), "{error}");
        }
    }
}

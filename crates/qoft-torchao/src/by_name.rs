//! The configuration of each layer: one for all of them, or one for each name (`FqnToConfig`).

use fancy_regex::Regex;
use qoft_scheme::{Keys, Result};
use serde_json::{Map, Value, json};

use crate::config::{QUANT_TYPE, WeightOnly, inside};
use crate::description::{DATA, TYPE, WEIGHT};

/// The library's names of a configuration by name, that of older releases last.
const BY_NAME: [&str; 2] = ["FqnToConfig", "ModuleFqnToConfig"];
/// Its keys, as before; a file has both.
const NAMES: [&str; 2] = ["fqn_to_config", "module_fqn_to_config"];
/// The configuration of layers that no other name means.
const DEFAULT: &str = "_default";
/// What a regular expression begins with.
const EXPRESSION: &str = "re:";

/// How each layer is quantized.
pub enum LayerConfigs {
    /// All alike.
    One(WeightOnly),
    /// By names, in the order of the file.
    ByName(Vec<Entry>),
}

/// The configuration under a name.
pub struct Entry {
    name: String,
    /// Set where the name is an expression, which matches a whole path.
    expression: Option<Regex>,
    /// `None`: such layers stay dense.
    how: Option<WeightOnly>,
}

impl LayerConfigs {
    /// Reads `quant_type`: the library's configuration, or the short name of one with its settings beside it.
    ///
    /// # Errors
    /// If a configuration is of another kind or has a value that the library does not have, or an expression
    /// is wrong.
    pub fn read(keys: &Keys) -> Result<Self> {
        let Some(types) = keys.object(QUANT_TYPE) else {
            return Ok(Self::One(WeightOnly::beside(keys)?));
        };
        let only = types.object("default").unwrap_or(types);
        let name = only.get::<String>(TYPE)?.unwrap_or_default();
        if !BY_NAME.contains(&name.as_str()) {
            return Ok(Self::One(WeightOnly::read(&only)?));
        }
        let data = inside(&only)?;
        let given = NAMES.iter().filter_map(|key| data.object(key));
        let given = given.max_by_key(|names| names.entries().count());
        let names = given.ok_or_else(|| data.error(NAMES[0], "expected an object"))?;
        let entries = names.entries().map(|(name, value)| {
            let expression = name.strip_prefix(EXPRESSION).map(|pattern| {
                // Python's `re.fullmatch`.
                let found = Regex::new(&format!("^(?:{pattern})\\z"));
                found.map_err(|e| names.error(name, e))
            });
            let how = match (value, names.object(name)) {
                (Value::Null, _) => None,
                (_, Some(object)) => Some(WeightOnly::read(&object)?),
                _ => return Err(names.error(name, "expected an object or null")),
            };
            Ok(Entry {
                name: name.to_owned(),
                expression: expression.transpose()?,
                how,
            })
        });
        Ok(Self::ByName(entries.collect::<Result<_>>()?))
    }

    /// The configuration of the layer at a path, as transformers chooses it: that of the weight's name, of the
    /// layer's, of the first expression that matches one of both, the default. `None`: it stays dense.
    ///
    /// # Errors
    /// If an expression takes too long.
    pub fn of(&self, path: &str) -> Result<Option<WeightOnly>> {
        let entries = match self {
            Self::One(how) => return Ok(Some(*how)),
            Self::ByName(entries) => entries,
        };
        let weight = format!("{path}.{WEIGHT}");
        let named = |name: &str| entries.iter().find(|entry| entry.name == name);
        if let Some(entry) = named(&weight).or_else(|| named(path)) {
            return Ok(entry.how);
        }
        for entry in entries {
            for name in [&weight, path] {
                if entry.matches(name)? {
                    return Ok(entry.how);
                }
            }
        }
        Ok(named(DEFAULT).and_then(|entry| entry.how))
    }

    /// As the library writes it.
    pub fn to_json(&self) -> Value {
        let entries = match self {
            Self::One(how) => return how.to_json(),
            Self::ByName(entries) => entries.iter(),
        };
        let all: Map<String, Value> = entries
            .map(|entry| {
                let how = entry.how.map_or(Value::Null, WeightOnly::to_json);
                (entry.name.clone(), how)
            })
            .collect();
        json!({TYPE: BY_NAME[0], "_version": 1, DATA: {NAMES[0]: all, NAMES[1]: all}})
    }
}

impl Entry {
    fn matches(&self, path: &str) -> Result<bool> {
        let Some(expression) = &self.expression else {
            return Ok(false);
        };
        let wrong = |e| Keys::new(QUANT_TYPE, Value::Null).error(&self.name, e);
        expression.is_match(path).map_err(wrong)
    }
}

//! Which block of a model a layer is in, by `layers_pattern`.

use std::collections::HashMap;
use std::sync::OnceLock;

use qoft_core::Result;

use crate::common::OneOrMany;
use crate::expression::Expression;

/// The group of the index in an expression.
const INDEX: &str = "idx";

/// Find the number of the block in a path: the first one behind a name, or behind one of several, of
/// which the first that is found counts.
#[derive(Debug)]
pub(crate) struct BlockIndex {
    /// Names of letters and digits, which a component is equal to, by their places in the list: there
    /// may be very many.
    names: HashMap<String, usize>,
    /// Other names, in order, with their places.
    expressions: Vec<(usize, Compiled)>,
}

/// An expression that is compiled when it is first needed, as PEFT does: one that is wrong is no error
/// where no path gets so far.
#[derive(Debug)]
struct Compiled {
    text: String,
    expression: OnceLock<Result<Expression>>,
}

impl Compiled {
    fn new(text: String) -> Self {
        Self {
            text,
            expression: OnceLock::new(),
        }
    }

    fn get(&self) -> Result<&Expression> {
        let compile = || Expression::prefix(&self.text, "layers_pattern");
        let expression = self.expression.get_or_init(compile);
        expression.as_ref().map_err(Clone::clone)
    }
}

impl BlockIndex {
    /// Behind these names; without any, behind whatever stands before a number.
    pub fn new(names: Option<&OneOrMany>) -> Self {
        let mut index = Self {
            names: HashMap::new(),
            expressions: Vec::new(),
        };
        let names = match names {
            None => {
                let any = format!(r".*?\.[^.]*\.(?P<{INDEX}>\d+)\.");
                index.expressions.push((0, Compiled::new(any)));
                return index;
            }
            Some(OneOrMany::One(one)) => std::slice::from_ref(one),
            Some(OneOrMany::Many(many)) => many,
        };
        for (place, name) in names.iter().enumerate() {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if !name.is_empty() && name.chars().all(is_plain) {
                index.names.entry(name.clone()).or_insert(place);
            } else {
                let text = format!(r"(?:^|.*?\.){name}\.(?P<{INDEX}>\d+)\.");
                index.expressions.push((place, Compiled::new(text)));
            }
        }
        index
    }

    /// The number of the block that the layer at `path` is in; `None` where no name is in the path, or
    /// the number is none of a block.
    ///
    /// # Errors
    /// If an expression is wrong, or takes too long to match.
    pub fn of(&self, path: &str) -> Result<Option<i64>> {
        let named = self.of_names(path);
        let before = named.map_or(usize::MAX, |(place, _)| place);
        for (place, expression) in &self.expressions {
            if *place > before {
                break;
            }
            if let Some(found) = expression.get()?.group(INDEX, path)? {
                return Ok(found.and_then(|index| index.parse().ok()));
            }
        }
        Ok(named.and_then(|(_, number)| number.parse().ok()))
    }

    /// The first of the plain names that has a number and something else behind it, and the number.
    fn of_names<'a>(&self, path: &'a str) -> Option<(usize, &'a str)> {
        let parts: Vec<&str> = path.split('.').collect();
        let behind = parts.windows(3).filter_map(|part| {
            let is_number = !part[1].is_empty() && part[1].bytes().all(|b| b.is_ascii_digit());
            let place = self.names.get(part[0]).filter(|_| is_number)?;
            Some((*place, part[1]))
        });
        // Of several places of the same name the first one counts.
        behind.min_by_key(|(place, _)| *place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[&str], path: &str) -> Option<i64> {
        let names = names.iter().map(|&name| name.into()).collect();
        let index = BlockIndex::new(Some(&OneOrMany::Many(names)));
        index.of(path).unwrap()
    }

    /// The quick way is that of the expressions: one in brackets is the same one, and not plain.
    #[test]
    fn plain_names_are_expressions_too() {
        let lists = [
            &["layers"][..],
            &["h", "layers"],
            &["layers", "experts"],
            &["experts", "layers"],
            &["layer", "mlp"],
            &["a", "b", "layers"],
        ];
        let paths = [
            "model.layers.7.mlp.up_proj",
            "layers.3.x",
            "model.layers.3.mlp.experts.12.up",
            "layers.1.layers.2.x",
            "model.layers.5",
            "model.xlayers.5.y",
            "layers.x.3",
            "layers..3",
            "model.layers.99999999999999999999.x",
        ];
        for names in lists {
            let grouped: Vec<String> = names.iter().map(|name| format!("(?:{name})")).collect();
            let grouped: Vec<&str> = grouped.iter().map(String::as_str).collect();
            let mixed = [&grouped[..1], &names[1..]].concat();
            for path in paths {
                let expected = of(&grouped, path);
                assert_eq!(of(names, path), expected, "{names:?} {path}");
                assert_eq!(of(&mixed, path), expected, "{mixed:?} {path}");
            }
        }
        assert_eq!(of(&["layers"], paths[0]), Some(7));
        assert_eq!(of(&["experts", "layers"], paths[2]), Some(12));
        assert_eq!(BlockIndex::new(None).of(paths[0]).unwrap(), Some(7));
    }
}

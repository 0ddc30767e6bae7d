//! Which modules `modules_to_save` means. PEFT has two rules, which agree for usual names; lists may
//! have very many of them.

use std::collections::HashSet;

use qoft_core::Result;

use crate::expression::Expression;

/// Names that mean every module whose path ends with one of them: such a module trains whole.
#[derive(Debug, Default)]
pub(crate) struct Endings<'a>(HashSet<&'a str>);

impl<'a> Endings<'a> {
    /// Those of a list.
    pub fn new(names: &'a [String]) -> Self {
        Self(names.iter().map(String::as_str).collect())
    }

    /// Whether the module at `path` is meant.
    pub fn mean(&self, path: &str) -> bool {
        !self.0.is_empty() && ends(path).any(|end| self.0.contains(end))
    }

    /// Whether the layer at `path` is a module that is meant, or inside one.
    pub fn include(&self, path: &str) -> bool {
        modules_around(path).any(|module| self.mean(module))
    }

    /// The names that mean none of the layers with these paths, nor a module that they are in.
    pub fn meaningless<'b>(&self, paths: impl IntoIterator<Item = &'b str>) -> HashSet<&'a str> {
        let mut left = self.0.clone();
        for path in paths {
            if left.is_empty() {
                break;
            }
            for end in modules_around(path).flat_map(ends) {
                left.remove(end);
            }
        }
        left
    }
}

/// What a path ends with, from all of it to nothing.
fn ends(path: &str) -> impl Iterator<Item = &str> {
    let starts = path.char_indices().map(|(at, _)| at);
    starts.chain([path.len()]).map(|at| &path[at..])
}

/// The paths of the modules that the one at `path` is in, and its own.
fn modules_around(path: &str) -> impl Iterator<Item = &str> {
    let dots = path.match_indices('.').map(|(at, _)| &path[..at]);
    dots.chain([path])
}

/// Names that keep rotations away from the modules that they mean and all inside of these: each is an
/// expression for one or more components of a path.
#[derive(Debug, Default)]
pub(crate) struct Barred {
    /// Names of letters and digits, which one component is equal to.
    components: HashSet<String>,
    /// Such names with dots in them, each of which may stand for any character.
    dotted: Vec<String>,
    expressions: Vec<Expression>,
}

impl Barred {
    /// Those of a list.
    ///
    /// # Errors
    /// If one is no valid expression.
    pub fn new(names: &[String]) -> Result<Self> {
        let mut barred = Self::default();
        let distinct: HashSet<&String> = names.iter().collect();
        for name in distinct {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if name.is_empty() || !name.chars().all(|c| is_plain(c) || c == '.') {
                let text = format!(r"(^|.*\.){name}($|\..*)");
                let expression = Expression::prefix(&text, "modules_to_save")?;
                barred.expressions.push(expression);
            } else if name.contains('.') {
                barred.dotted.push(name.clone());
            } else {
                barred.components.insert(name.clone());
            }
        }
        Ok(barred)
    }

    /// Whether the module at `path` gets no rotation.
    ///
    /// # Errors
    /// If an expression takes too long to match.
    pub fn bars(&self, path: &str) -> Result<bool> {
        if path.split('.').any(|part| self.components.contains(part)) {
            return Ok(true);
        }
        let starts = path.match_indices('.').map(|(at, _)| at + 1);
        let rests: Vec<&str> = starts.chain([0]).map(|at| &path[at..]).collect();
        let mut dotted = self.dotted.iter();
        if dotted.any(|name| rests.iter().any(|rest| begins(rest, name))) {
            return Ok(true);
        }
        for expression in &self.expressions {
            if expression.is_match(path)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether components at the start of `path` match `name`, in which a dot stands for any character.
fn begins(path: &str, name: &str) -> bool {
    let mut rest = path.chars();
    let matches = name.chars().all(|expected| {
        let found = rest.next();
        found.is_some_and(|found| found == expected || (expected == '.' && found != '\n'))
    });
    matches && matches!(rest.next(), None | Some('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATHS: [&str; 7] = [
        "lm_head",
        "model.embed_tokens",
        "model.layers.0.mlp",
        "model.layers.0.mlp.up_proj",
        "model.layers.10.mlp.up_proj",
        "model.layersx0.mlp",
        "model.norm",
    ];

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_name_means_paths_that_end_with_it() {
        let names = list(&["head", "0.mlp", "x.norm"]);
        let endings = Endings::new(&names);
        let found = PATHS.map(|path| (endings.mean(path), endings.include(path)));
        let (yes, inside, no) = ((true, true), (false, true), (false, false));
        // `layers.10.mlp` ends with `0.mlp`, and so does `layersx0.mlp`.
        assert_eq!(found, [yes, no, yes, inside, inside, yes, no]);
        assert_eq!(endings.meaningless(PATHS), HashSet::from(["x.norm"]));
        assert!(Endings::new(&list(&[""])).mean("any"));
        assert!(!Endings::new(&[]).include("any"));
    }

    /// The quick ways are those of the expressions.
    #[test]
    fn names_bar_what_their_expressions_match() {
        for name in [
            "mlp",
            "norm",
            "layers.0",
            "layers.1",
            "model",
            "0.mlp",
            "head",
            "up_proj",
            "model.layers",
            "lm_head",
            "s.0",
            "layers.0.mlp.up_proj",
            "layers..",
            ".",
            "..",
            "m",
            "embed_tokens.",
            "a.",
        ] {
            let text = format!(r"(^|.*\.){name}($|\..*)");
            let expression = Expression::prefix(&text, "k").unwrap();
            let barred = Barred::new(&list(&[name])).unwrap();
            assert!(barred.expressions.is_empty(), "{name}");
            for path in PATHS.into_iter().chain(["a", "", "a.b", ".a"]) {
                let (found, expected) = (barred.bars(path), expression.is_match(path));
                assert_eq!(found.unwrap(), expected.unwrap(), "{name} {path}");
            }
        }
        let barred = Barred::new(&list(&["layers.[01]"])).unwrap();
        assert!(barred.bars("model.layers.1.mlp").unwrap());
        assert!(!barred.bars("model.layers.10.mlp").unwrap());
        Barred::new(&list(&["(a"])).unwrap_err();
    }
}

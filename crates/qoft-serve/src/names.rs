//! Names of models: the base model, its adapters, and several of them with strengths.

use crate::error::{ApiError, ServeError};

/// The adapters that a request wants, each with its strength.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wanted(pub Vec<(String, f64)>);

impl Wanted {
    /// The name under which a model has an adapter with a strength.
    pub fn slot(name: &str, strength: f64) -> String {
        match strength {
            1.0 => name.to_owned(),
            _ => format!("{name}={strength}"),
        }
    }
}

/// What requests can name.
#[derive(Debug, Clone)]
pub struct Names {
    /// The model without adapters.
    pub base: String,
    /// The adapters.
    pub adapters: Vec<String>,
}

impl Names {
    /// All names, the base model's first.
    ///
    /// # Errors
    /// If a name is twice there, or would be read as several.
    pub fn new(base: &str, adapters: Vec<String>) -> Result<Self, ServeError> {
        let mut seen = vec![base];
        for name in &adapters {
            let reason = match name {
                name if name.is_empty() => "it is empty",
                name if name.contains(['+', '=']) => {
                    "it has a `+` or `=`, which stand between adapters"
                }
                name if seen.contains(&name.as_str()) => "it is another one's, or the model's",
                _ => "",
            };
            if !reason.is_empty() {
                let name = name.clone();
                return Err(ServeError::Name { name, reason });
            }
            seen.push(name);
        }
        Ok(Self {
            base: base.to_owned(),
            adapters,
        })
    }

    /// All names, the base model's first.
    pub fn all(&self) -> Vec<String> {
        let base = std::iter::once(&self.base);
        base.chain(&self.adapters).cloned().collect()
    }

    /// What the `model` of a request means: the base model, `ADAPTER`, `ADAPTER=STRENGTH`, or several of these
    /// with `+` between them, of which the first one is the nearest to the input.
    ///
    /// # Errors
    /// If there is none of this name.
    pub fn wanted(&self, model: &str) -> Result<Wanted, ApiError> {
        if model == self.base {
            return Ok(Wanted::default());
        }
        let unknown = || ApiError::no_model(model, &self.all());
        let one = |part: &str| {
            let (name, strength) = match part.split_once('=') {
                None => (part, 1.0),
                Some((name, strength)) => {
                    let strength: f64 = strength.parse().map_err(|_| unknown())?;
                    (name, strength)
                }
            };
            if !strength.is_finite() {
                return Err(ApiError::field("model", "strengths are finite numbers"));
            }
            match self.adapters.iter().any(|known| known == name) {
                true => Ok((name.to_owned(), strength)),
                false => Err(unknown()),
            }
        };
        let wanted = model.split('+').map(one).collect::<Result<Vec<_>, _>>()?;
        for (index, (name, _)) in wanted.iter().enumerate() {
            if wanted[..index].iter().any(|(before, _)| before == name) {
                let message = format!("adapter `{name}` is named twice");
                return Err(ApiError::field("model", message));
            }
        }
        Ok(Wanted(wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_adapters_with_strengths() {
        let names = Names::new("base", vec!["a".into(), "b".into()]).unwrap();
        let wanted = |model: &str| names.wanted(model).map(|wanted| wanted.0);
        assert_eq!(wanted("base").unwrap(), []);
        assert_eq!(wanted("a").unwrap(), [("a".to_owned(), 1.0)]);
        let both = [("b".to_owned(), 0.5), ("a".to_owned(), 1.0)];
        assert_eq!(wanted("b=0.5+a").unwrap(), both);
        for unknown in ["c", "a+c", "a=x", "", "base+a"] {
            let error = wanted(unknown).unwrap_err();
            assert_eq!(error.code, Some("model_not_found"), "{unknown}");
            assert!(error.message.contains("base, a, b"), "{error}");
        }
        assert!(wanted("a+a").is_err() && wanted("a=inf").is_err());
    }

    #[test]
    fn names_that_mean_several_things_are_refused() {
        for names in [
            ["a", "a"],
            ["base", "b"],
            ["a+b", "c"],
            ["a=1", "c"],
            ["", "c"],
        ] {
            let names = names.map(str::to_owned).to_vec();
            assert!(Names::new("base", names).is_err());
        }
    }
}

//! What PEFT's rules have to know of a model beside its layers.

/// Facts about a model that its layers do not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModelFacts<'a> {
    /// `model_type` of its configuration, for the default targets; empty if it has none.
    pub model_type: &'a str,
    /// Path of the output head, which `all-linear` does not mean; empty if there is none.
    pub head: &'a str,
    /// The layers that get an adapter unless a configuration names others, where PEFT has no default
    /// for the type: last components of module paths.
    pub default_targets: &'a [&'a str],
    /// Module paths of parts that PEFT's model has beside this one: what adapters have for them is left
    /// alone.
    pub other_parts: &'a [&'a str],
    /// Paths that modules have in adapters of older versions of transformers, and those that they have in the
    /// model. The first path that fits counts.
    pub older_paths: &'a [(&'a str, &'a str)],
    /// The path that all modules but the head have in PEFT's model, and another one that they have where
    /// transformers loads the text part of the files alone. Adapters are written for both.
    pub alone: Option<(&'a str, &'a str)>,
}

impl<'a> ModelFacts<'a> {
    /// Nothing is known: a model of no type, without a head.
    pub const NONE: Self = Self {
        model_type: "",
        head: "",
        default_targets: &[],
        other_parts: &[],
        older_paths: &[],
        alone: None,
    };

    /// Of a model of this type, without a head.
    pub const fn of_type(model_type: &'a str) -> Self {
        Self {
            model_type,
            ..Self::NONE
        }
    }

    /// The same with the output head at a path.
    #[must_use]
    pub const fn with_head(self, head: &'a str) -> Self {
        Self { head, ..self }
    }

    /// The same with layers that get an adapter where PEFT has no default.
    #[must_use]
    pub const fn with_default_targets(self, default_targets: &'a [&'a str]) -> Self {
        Self {
            default_targets,
            ..self
        }
    }

    /// The same with parts that PEFT's model has beside this one.
    #[must_use]
    pub const fn with_other_parts(self, other_parts: &'a [&'a str]) -> Self {
        Self {
            other_parts,
            ..self
        }
    }

    /// The same with the path of a model that transformers may load alone, and that which it has then.
    #[must_use]
    pub const fn with_alone(self, alone: Option<(&'a str, &'a str)>) -> Self {
        Self { alone, ..self }
    }

    /// The name of a tensor where the text part is loaded alone, if it has another one then.
    #[must_use]
    pub fn name_alone(&self, name: &str) -> Option<String> {
        let (whole, alone) = self.alone?;
        let rest = name.strip_prefix(whole)?;
        rest.starts_with('.').then(|| format!("{alone}{rest}"))
    }

    /// The same with paths that modules have in adapters of older versions.
    #[must_use]
    pub const fn with_older_paths(self, older_paths: &'a [(&'a str, &'a str)]) -> Self {
        Self {
            older_paths,
            ..self
        }
    }
}

//! Where the files of a model type differ from its modules: names, layouts and leftovers.

use serde_json::Value;

/// What transformers' classes know about the checkpoints of a model type.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// Path of everything but the output head; absent in files of the model without its head.
    base: &'static str,
    /// Path of the output head.
    head: &'static str,
    /// Last names of the modules whose dense weights are stored as `[in_features, out_features]`.
    fan_in_fan_out: &'static [&'static str],
    /// Ends of buffers that older versions saved and that nothing reads.
    leftovers: &'static [&'static str],
}

const GPT2: Layout = Layout {
    base: "transformer",
    head: "lm_head",
    fan_in_fan_out: &["c_attn", "c_proj", "c_fc"],
    leftovers: &[".attn.bias", ".attn.masked_bias"],
};

impl Layout {
    /// Of a `config.json`; most model types need none.
    pub fn of(config: &Value) -> Option<&'static Self> {
        match config["model_type"].as_str() {
            Some("gpt2") => Some(&GPT2),
            _ => None,
        }
    }

    /// Whether the module at `path` stores its dense weight as `[in_features, out_features]`.
    pub fn is_fan_in_fan_out(&self, path: &str) -> bool {
        let name = path.rsplit('.').next().unwrap_or(path);
        self.fan_in_fan_out.contains(&name)
    }

    /// Whether nothing reads the tensor of this name.
    pub fn is_leftover(&self, name: &str) -> bool {
        self.leftovers.iter().any(|end| name.ends_with(end))
    }

    /// Whether names of this kind lack the path of the model's base.
    pub fn is_bare<'a>(&self, mut names: impl Iterator<Item = &'a str>) -> bool {
        !names.any(|name| self.is_below(name, self.base))
    }

    /// The name that a tensor of a bare checkpoint has in the whole model.
    pub fn with_base(&self, name: &str) -> String {
        if self.is_below(name, self.head) {
            name.to_owned()
        } else {
            format!("{}.{name}", self.base)
        }
    }

    fn is_below(&self, name: &str, path: &str) -> bool {
        let rest = name.strip_prefix(path);
        rest.is_some_and(|rest| rest.starts_with('.'))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_those_of_the_whole_model() {
        let layout = Layout::of(&json!({"model_type": "gpt2"})).unwrap();
        assert!(layout.is_bare(["h.0.ln_1.weight", "lm_head.weight"].into_iter()));
        assert!(!layout.is_bare(["transformer.wte.weight"].into_iter()));
        assert_eq!(layout.with_base("wte.weight"), "transformer.wte.weight");
        assert_eq!(layout.with_base("lm_head.weight"), "lm_head.weight");
        assert!(layout.is_leftover("h.3.attn.bias"));
        assert!(!layout.is_leftover("h.3.attn.c_attn.bias"));
        assert!(layout.is_fan_in_fan_out("transformer.h.3.mlp.c_proj"));
        assert!(!layout.is_fan_in_fan_out("lm_head"));
        assert!(Layout::of(&json!({"model_type": "llama"})).is_none());
    }
}

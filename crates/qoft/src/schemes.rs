//! The schemes that qoft ships, and which of them are built in. What a scheme looks like only its own
//! crate knows; one that is not there has nothing but the name of its Cargo feature.

use qoft_core::Error;

/// A scheme that qoft ships, behind a Cargo feature.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Scheme {
    /// The Cargo feature of `qoft` and `qoft-cli`.
    pub feature: &'static str,
    /// Whether it is part of this build.
    pub built_in: bool,
}

macro_rules! schemes {
    ($($feature:literal),+ $(,)?) => {
        /// All of them.
        pub const SCHEMES: &[Scheme] = &[$(Scheme {
            feature: $feature,
            built_in: cfg!(feature = $feature),
        }),+];
    };
}

schemes!("aqlm", "awq", "bnb", "eetq", "gptq", "hqq", "inc-fp8");

/// The Cargo features of schemes that this build lacks, if that may be why no backend claims a layer:
/// the scheme that the checkpoint names, or else all that are not there.
pub fn missing_features(error: &Error) -> Vec<&'static str> {
    absent(SCHEMES, error)
}

fn absent(schemes: &[Scheme], error: &Error) -> Vec<&'static str> {
    let Error::NoBackend { quant_method, .. } = error else {
        return Vec::new();
    };
    let method = quant_method.as_deref().unwrap_or_default();
    let is_named = |scheme: &&Scheme| scheme.feature.eq_ignore_ascii_case(method);
    let named = schemes.iter().find(is_named);
    let absent = named.map_or(schemes, std::slice::from_ref).iter();
    let absent = absent.filter(|scheme| !scheme.built_in);
    absent.map(|scheme| scheme.feature).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(built_in: &[&str], quant_method: Option<&str>) -> Vec<&'static str> {
        let schemes = ["awq", "bnb", "gptq", "hqq"].map(|feature| Scheme {
            feature,
            built_in: built_in.contains(&feature),
        });
        let error = Error::NoBackend {
            layer: "model.layers.0.mlp.up_proj".into(),
            quant_method: quant_method.map(str::to_owned),
            tensors: Vec::new(),
            hint: None,
            registered: vec!["dense"],
        };
        absent(&schemes, &error)
    }

    #[test]
    fn the_scheme_that_a_checkpoint_names_is_missing() {
        assert_eq!(found(&["gptq"], Some("AWQ")), ["awq"]);
        assert_eq!(found(&["awq"], Some("awq")), [""; 0]);
    }

    #[test]
    fn any_scheme_may_be_missing_where_none_is_named() {
        let rest = ["bnb", "gptq", "hqq"];
        assert_eq!(found(&["awq"], Some("bitsandbytes")), rest);
        assert_eq!(found(&["awq"], None), rest);
        assert_eq!(found(&["awq", "bnb", "gptq", "hqq"], None), [""; 0]);
    }

    #[test]
    fn other_errors_have_other_causes() {
        let error = Error::file("config.json", "no JSON");
        assert_eq!(missing_features(&error), [""; 0]);
    }
}

//! The schemes that qoft ships, and which of them are built in.

use qoft_core::Error;

/// A scheme that qoft ships, behind a Cargo feature.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Scheme {
    /// The Cargo feature of `qoft` and `qoft-cli`.
    pub feature: &'static str,
    /// Whether it is part of this build.
    pub built_in: bool,
    /// `quant_method` of its checkpoints; none where they have no such key.
    method: Option<&'static str>,
    /// Names of tensors that only layers of the scheme have.
    tensors: &'static [&'static str],
}

macro_rules! scheme {
    ($feature:literal, $method:expr, $tensors:expr) => {
        Scheme {
            feature: $feature,
            built_in: cfg!(feature = $feature),
            method: $method,
            tensors: $tensors,
        }
    };
}

/// All of them, in the order in which they are asked for a layer.
pub const SCHEMES: [Scheme; 7] = [
    scheme!("bnb", Some("bitsandbytes"), &["SCB", "weight.quant_map"]),
    scheme!("eetq", Some("eetq"), &["weight_scales"]),
    scheme!("aqlm", Some("aqlm"), &["codebooks"]),
    scheme!("awq", Some("awq"), &[]),
    scheme!("gptq", Some("gptq"), &["g_idx"]),
    scheme!("hqq", Some("hqq"), &["W_q"]),
    scheme!(
        "inc-fp8",
        None,
        &[
            "scale_weight",
            "dequant_weights.scale",
            "quant_input.scale_inv"
        ]
    ),
];

/// The Cargo feature that this build lacks, if that is why no backend claims a layer.
pub fn missing_feature(error: &Error) -> Option<&'static str> {
    absent(&SCHEMES, error)
}

fn absent(schemes: &[Scheme], error: &Error) -> Option<&'static str> {
    let Error::NoBackend {
        quant_method,
        tensors,
        ..
    } = error
    else {
        return None;
    };
    let absent = || schemes.iter().filter(|scheme| !scheme.built_in);
    let by_tensors = absent().find(|scheme| {
        let mut names = tensors.iter();
        names.any(|tensor| scheme.tensors.contains(&tensor.name.as_str()))
    });
    let method = quant_method.as_deref();
    let by_method = || absent().find(|scheme| method.is_some() && scheme.method == method);
    by_tensors.or_else(by_method).map(|scheme| scheme.feature)
}

#[cfg(test)]
mod tests {
    use qoft_core::{Dtype, FoundTensor};

    use super::*;

    fn found(built_in: &[&str], quant_method: &str, tensors: &str) -> Option<&'static str> {
        let schemes = SCHEMES.map(|scheme| Scheme {
            built_in: built_in.contains(&scheme.feature),
            ..scheme
        });
        let error = Error::NoBackend {
            layer: "model.layers.0.mlp.up_proj".into(),
            quant_method: Some(quant_method.to_owned()).filter(|method| method != "none"),
            tensors: tensors
                .split(", ")
                .map(|name| FoundTensor::new(name, Dtype::U8, &[1]))
                .collect(),
            hint: None,
            registered: vec!["dense"],
        };
        absent(&schemes, &error)
    }

    #[test]
    fn the_scheme_of_a_checkpoint_is_named() {
        let layer = "qweight, qzeros, scales";
        assert_eq!(found(&[], "awq", layer), Some("awq"));
        assert_eq!(found(&["awq"], "gptq", layer), Some("gptq"));
        assert_eq!(found(&[], "none", "W_q, scale, zero"), Some("hqq"));
        assert_eq!(found(&[], "none", "scale_weight, weight"), Some("inc-fp8"));
        assert_eq!(found(&[], "bitsandbytes", "SCB, weight"), Some("bnb"));
    }

    #[test]
    fn nothing_is_missing_where_no_scheme_fits_or_it_is_there() {
        assert_eq!(found(&[], "bitnet", "weight, weight_scale"), None);
        assert_eq!(found(&["awq"], "awq", "qweight, qzeros, scales"), None);
    }
}

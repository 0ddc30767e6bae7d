//! The table of features: the schemes that qoft ships, and which of them are built in.

use qoft_core::{Error, FoundTensor};

// The linker drops crates that nobody names, and their registrations with them.
#[cfg(feature = "aqlm")]
use qoft_aqlm as _;
#[cfg(feature = "awq")]
use qoft_awq as _;
#[cfg(feature = "bnb")]
use qoft_bnb as _;
#[cfg(feature = "compressed-tensors")]
use qoft_compressed_tensors as _;
#[cfg(feature = "eetq")]
use qoft_eetq as _;
#[cfg(feature = "fp8")]
use qoft_fp8 as _;
#[cfg(feature = "gguf")]
use qoft_gguf as _;
#[cfg(feature = "gptq")]
use qoft_gptq as _;
#[cfg(feature = "hqq")]
use qoft_hqq as _;
#[cfg(feature = "inc-fp8")]
use qoft_inc_fp8 as _;
#[cfg(feature = "mlx")]
use qoft_mlx as _;
#[cfg(feature = "modelopt")]
use qoft_modelopt as _;
#[cfg(feature = "mxfp4")]
use qoft_mxfp4 as _;
#[cfg(feature = "torchao")]
use qoft_torchao as _;

/// A scheme that qoft ships, behind a Cargo feature.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct SchemeFeature {
    /// The Cargo feature of `qoft` and `qoft-cli`.
    pub feature: &'static str,
    /// Whether it is part of this build.
    pub built_in: bool,
    /// `quant_method` of its checkpoints; none where they have no such key.
    methods: &'static [&'static str],
    /// Names of tensors that layers of few other schemes have.
    tensors: &'static [&'static str],
    /// How files end that only its crate opens.
    files: &'static [&'static str],
}

macro_rules! scheme {
    ($feature:literal, $methods:expr, $tensors:expr) => {
        scheme!($feature, $methods, $tensors, [])
    };
    ($feature:literal, $methods:expr, $tensors:expr, $files:expr) => {
        SchemeFeature {
            feature: $feature,
            built_in: cfg!(feature = $feature),
            methods: &$methods,
            tensors: &$tensors,
            files: &$files,
        }
    };
}

/// All of them, in the order in which they are asked for a layer.
pub const SCHEMES: &[SchemeFeature] = &[
    scheme!("bnb", ["bitsandbytes"], ["SCB", "weight.quant_map"]),
    scheme!("eetq", ["eetq"], ["weight_scales"]),
    scheme!("aqlm", ["aqlm"], ["codebooks"]),
    scheme!("awq", ["awq", "auto-round", "intel/auto-round"], []),
    scheme!(
        "gptq",
        ["gptq", "auto-round", "intel/auto-round"],
        ["g_idx"]
    ),
    scheme!("hqq", ["hqq"], ["W_q"]),
    scheme!(
        "inc-fp8",
        [],
        [
            "scale_weight",
            "dequant_weights.scale",
            "quant_input.scale_inv"
        ]
    ),
    scheme!("fp8", ["fp8", "fbgemm_fp8"], ["weight_scale_inv"]),
    scheme!(
        "compressed-tensors",
        ["compressed-tensors"],
        ["weight_packed", "weight_shape", "weight_global_scale"]
    ),
    scheme!("gguf", [], [], ["gguf"]),
    scheme!("mlx", ["mlx"], ["biases", "weight of U32"]),
    scheme!("modelopt", ["modelopt"], ["weight_scale_2"]),
    scheme!("mxfp4", ["mxfp4"], ["weight_blocks", "weight_scales"]),
    scheme!("torchao", ["torchao"], ["_weight_qdata"]),
];

/// The Cargo feature that this build lacks, if that is why no backend claims a layer or has a name, or
/// nothing opens a file.
pub fn missing_feature(error: &Error) -> Option<&'static str> {
    absent(SCHEMES, error)
}

/// The `quant_method` of a layer that no backend claims, if it is none of [`SCHEMES`]: another crate
/// would have to bring it.
pub fn unknown_method(error: &Error) -> Option<&str> {
    let Error::NoBackend { quant_method, .. } = error else {
        return None;
    };
    let method = quant_method.as_deref()?;
    let known = SCHEMES
        .iter()
        .any(|scheme| scheme.methods.contains(&method));
    (!known && missing_feature(error).is_none()).then_some(method)
}

fn absent(schemes: &[SchemeFeature], error: &Error) -> Option<&'static str> {
    let absent = || schemes.iter().filter(|scheme| !scheme.built_in);
    let (quant_method, tensors) = match error {
        Error::NoBackend {
            quant_method,
            tensors,
            ..
        } => (quant_method, tensors),
        Error::File { path, .. } => {
            let ending = path.extension()?.to_str()?.to_ascii_lowercase();
            let found = absent().find(|scheme| scheme.files.contains(&ending.as_str()));
            return found.map(|scheme| scheme.feature);
        }
        // Backends of one crate have names such as `bnb-4bit`.
        Error::UnknownBackend { name, .. } => return of_backend(absent(), name),
        // `BACKEND.KEY=VALUE`.
        Error::BackendOption { option, .. } => {
            return of_backend(absent(), option.split_once('.')?.0);
        }
        // The `quant_method` of settings, or the backend.
        Error::CannotQuantize { scheme, .. } => {
            let named = |found: &&SchemeFeature| {
                found.feature == scheme || found.methods.contains(&scheme.as_str())
            };
            return absent().find(named).map(|scheme| scheme.feature);
        }
        _ => return None,
    };
    let shared = |scheme: &SchemeFeature| {
        let own = |tensor: &&FoundTensor| scheme.tensors.iter().any(|known| is(tensor, known));
        tensors.iter().filter(own).count()
    };
    // The first of those with most of the names.
    let by_tensors = absent().rev().max_by_key(|scheme| shared(scheme));
    let by_tensors = by_tensors.filter(|scheme| shared(scheme) > 0);
    let method = quant_method.as_deref().unwrap_or_default();
    // AutoRound's layers are GPTQ's more often than AWQ's.
    let by_method = || absent().rfind(|scheme| scheme.methods.contains(&method));
    by_tensors.or_else(by_method).map(|scheme| scheme.feature)
}

/// Whether a tensor is called `NAME`, or `NAME of DTYPE` with its dtype. Files of several cards have the
/// numbers of card and cards behind the name.
fn is(tensor: &FoundTensor, known: &str) -> bool {
    let whole = tensor.to_string();
    let of_card = |rest: &str| rest.bytes().all(|b| b == b'_' || b.is_ascii_digit());
    whole.split(" [").next() == Some(known) || tensor.name.strip_prefix(known).is_some_and(of_card)
}

/// The feature with the backend of a name.
fn of_backend<'a>(
    absent: impl Iterator<Item = &'a SchemeFeature>,
    name: &str,
) -> Option<&'static str> {
    let has = |feature: &str| {
        let rest = name.strip_prefix(feature);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    absent
        .map(|scheme| scheme.feature)
        .find(|feature| has(feature))
}

#[cfg(test)]
mod tests {
    use qoft_core::Dtype;

    use super::*;

    fn error(quant_method: &str, tensors: &str) -> Error {
        Error::NoBackend {
            layer: "model.layers.0.mlp.up_proj".into(),
            quant_method: Some(quant_method.to_owned()).filter(|method| method != "none"),
            tensors: tensors
                .split(", ")
                .map(|name| FoundTensor::new(name, Dtype::U8, &[1]))
                .collect(),
            hint: None,
            registered: vec!["dense"],
        }
    }

    fn found(built_in: &[&str], quant_method: &str, tensors: &str) -> Option<&'static str> {
        let schemes = SCHEMES.iter().map(|scheme| SchemeFeature {
            built_in: built_in.contains(&scheme.feature),
            ..*scheme
        });
        let schemes: Vec<SchemeFeature> = schemes.collect();
        absent(&schemes, &error(quant_method, tensors))
    }

    #[test]
    fn the_scheme_of_a_checkpoint_is_named() {
        let layer = "qweight, qzeros, scales";
        assert_eq!(found(&[], "awq", layer), Some("awq"));
        assert_eq!(found(&["awq"], "gptq", layer), Some("gptq"));
        assert_eq!(found(&[], "none", "W_q, scale, zero"), Some("hqq"));
        assert_eq!(found(&[], "none", "scale_weight, weight"), Some("inc-fp8"));
        assert_eq!(found(&[], "bitsandbytes", "SCB, weight"), Some("bnb"));
        assert_eq!(found(&[], "eetq", "weight, weight_scales"), Some("eetq"));
        let layer = "weight_blocks, weight_scales";
        assert_eq!(found(&[], "mxfp4", layer), Some("mxfp4"));
        assert_eq!(found(&[], "none", layer), Some("mxfp4"));
        let layer = "qweight, qzeros, scales";
        assert_eq!(found(&[], "auto-round", layer), Some("gptq"));
        assert_eq!(found(&["gptq"], "auto-round", layer), Some("awq"));
        let layer = "weight, weight_scale";
        assert_eq!(found(&[], "fbgemm_fp8", layer), Some("fp8"));
        let method = "compressed-tensors";
        assert_eq!(found(&["fp8"], method, layer), Some(method));
        assert_eq!(
            found(&[], "none", "weight_packed, weight_scale"),
            Some(method)
        );
        assert_eq!(found(&[], "none", "weight, weight_scale_inv"), Some("fp8"));
        let cards = "scale_weight_0_2, scale_weight_1_2, weight_0_2";
        assert_eq!(found(&[], "none", cards), Some("inc-fp8"));
        let mut mlx = error("none", "scales, weight");
        if let Error::NoBackend { tensors, .. } = &mut mlx {
            tensors[1] = FoundTensor::new("weight", Dtype::U32, &[96, 8]);
        }
        let lacking = SCHEMES.iter().map(|scheme| SchemeFeature {
            built_in: false,
            ..*scheme
        });
        let lacking: Vec<SchemeFeature> = lacking.collect();
        assert_eq!(absent(&lacking, &mlx), Some("mlx"));
    }

    #[test]
    fn the_scheme_of_settings_is_named() {
        let all = SCHEMES.iter().map(|scheme| SchemeFeature {
            built_in: scheme.feature == "gptq",
            ..*scheme
        });
        let all: Vec<SchemeFeature> = all.collect();
        let lacking = |scheme: &str| {
            let error = Error::CannotQuantize {
                scheme: scheme.to_owned(),
                quantizing: vec!["gptq"],
            };
            absent(&all, &error)
        };
        assert_eq!(lacking("bitsandbytes"), Some("bnb"));
        assert_eq!(lacking("fbgemm_fp8"), Some("fp8"));
        assert_eq!(lacking("hqq"), Some("hqq"));
        assert_eq!(lacking("gptq"), None);
        assert_eq!(lacking("bitnet"), None);
    }

    #[test]
    fn nothing_is_missing_where_no_scheme_fits_or_it_is_there() {
        assert_eq!(found(&[], "bitnet", "weight, weight_scale"), None);
        assert_eq!(found(&["awq"], "awq", "qweight, qzeros, scales"), None);
    }

    #[test]
    fn a_method_that_no_scheme_of_ours_has_is_unknown() {
        let layer = "weight, weight_scale";
        assert_eq!(unknown_method(&error("bitnet", layer)), Some("bitnet"));
        assert_eq!(unknown_method(&error("none", layer)), None);
        for scheme in SCHEMES {
            for method in scheme.methods {
                assert_eq!(unknown_method(&error(method, layer)), None);
            }
        }
        let other = Error::file("config.json", "no JSON");
        assert_eq!(unknown_method(&other), None);
    }
}

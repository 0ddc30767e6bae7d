//! Layers whose sizes a scheme cannot have: the error says so, and following it is enough.

use tempfile::tempdir;

use crate::common::{arg, fixture, json_of, qoft};

/// For each backend settings that do not fit a model of 32 and 40 features, and what is expected of
/// the layer; nothing where all sizes fit.
const MISFITS: [(&str, &str); 12] = [
    ("eetq", "multiples of 64"),
    ("awq,group_size=32", "`group_size` 32"),
    ("gptq,group_size=32", "multiples of 32"),
    ("hqq,group_size=80", "multiple of `group_size` 80"),
    (
        "fp8,weight_block_size=[32,32]",
        "multiples of `weight_block_size` 32 × 32",
    ),
    (
        "compressed-tensors,group_size=32",
        "multiple of `group_size` 32",
    ),
    ("mlx,group_size=32", "multiple of `group_size` 32"),
    ("modelopt", "multiple of 16"),
    ("mxfp4", "multiple of 32"),
    (
        "torchao,quant_type=intx_weight_only,weight_dtype=int4,group_size=32",
        "multiple of `group_size` 32",
    ),
    ("bnb-8bit", ""),
    ("inc-fp8,scale_method=maxabs_pcs_pow2", ""),
];

/// Quantizes the model in memory; what was said of a layer that does not fit.
fn misfit(scheme: &str, skips: &[String]) -> Option<String> {
    let model = fixture("models/llama");
    let work = tempdir().expect("a folder");
    let rows = work.path().join("rows.jsonl");
    std::fs::write(&rows, "{\"input_ids\": [6, 7, 8]}\n").expect("a file");
    let skips = skips.join(",");
    let args = ["eval", "--model", &model, "--data", arg(&rows)];
    let how = ["--load-in", scheme];
    let run = match skips.is_empty() {
        true => qoft(&[&args[..], &how].concat()),
        false => qoft(&[&args[..], &how, &["--quantize-skip", &skips]].concat()),
    };
    (run.code != Some(0)).then_some(run.stderr)
}

#[test]
fn layers_that_do_not_fit_can_stay_dense() {
    for (scheme, expected) in MISFITS {
        let mut skips: Vec<String> = Vec::new();
        while let Some(text) = misfit(scheme, &skips) {
            // Tiles of EETQ are larger than all layers.
            if text.contains("no linear layer is left to quantize") {
                assert_eq!(scheme, "eetq", "{text}");
                break;
            }
            assert!(!expected.is_empty(), "{scheme}: {text}");
            let backend = scheme.split(',').next().expect("a name");
            for part in [
                "layer `model.",
                &format!("({backend})"),
                expected,
                ", found ",
                "(out_features × in_features)",
            ] {
                assert!(text.contains(part), "{scheme}: {part}: {text}");
            }
            let (_, help) = text.split_once("`--quantize-skip ").expect(&text);
            let (names, _) = help.split_once('`').expect(&text);
            let names = names.split(',').map(str::to_owned);
            let new: Vec<String> = names.filter(|name| !skips.contains(name)).collect();
            assert!(!new.is_empty(), "{scheme}: {text}");
            skips.extend(new);
        }
        assert_eq!(skips.is_empty(), expected.is_empty(), "{scheme}");
    }
}

#[test]
fn every_backend_that_quantizes_is_tried() {
    let backends = json_of(&["backends", "--json"])["backends"].take();
    let backends = backends.as_array().expect("a list").iter();
    let quantizing = backends.filter(|backend| backend["capabilities"]["quantize"] == true);
    for backend in quantizing.filter_map(|backend| backend["name"].as_str().map(str::to_owned)) {
        // Codes of 4 bits in pairs fit every layer of even size.
        let tried = MISFITS
            .iter()
            .any(|(scheme, _)| scheme.split(',').next() == Some(&backend));
        assert!(tried || backend == "bnb-4bit", "{backend}");
    }
}

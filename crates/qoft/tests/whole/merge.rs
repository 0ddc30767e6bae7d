//! Merging adapters: against PEFT's own merges, and against the adapted model.

use std::path::Path;

use crate::common::{load, loss, open, rows};
use burn::tensor::Device;
use qoft::core::kernels::FloatFormat;
use qoft::core::{Checkpoint, Error, Nearest, Schemes};
use qoft::models::{Architectures, ModelFolder};
use qoft::peft::{self, AdapterFolder, Families, ModelFacts};
use qoft::{MergeOptions, MergeReport, MergeTarget, ScaledAdapter, merge};
use serde_json::Value;

fn adapter(folder: &Path) -> ScaledAdapter {
    ScaledAdapter::new(
        AdapterFolder::open(folder, &Families::linked().unwrap()).unwrap(),
        1.0,
    )
}

fn merged(
    model: &Path,
    adapters: &[ScaledAdapter],
    target: MergeTarget,
    output: &Path,
) -> MergeReport {
    let folder = open(model);
    let schemes = Schemes::linked(folder.checkpoint()).unwrap();
    let options = MergeOptions::new(target).min_kept(0.0);
    merge(&folder, &schemes, adapters, options, output, &|_, _| ())
        .unwrap_or_else(|e| panic!("{e}"))
}

/// The model of each merge by PEFT in the fixtures.
const PEFT: [(&str, &str); 5] = [
    ("cayley", "llama_nf4"),
    ("all_linear", "llama_nf4"),
    ("int8_cayley", "llama_int8"),
    ("fp4_bf16_all_linear", "llama_fp4_bf16"),
    ("dense_all_linear", "llama"),
];

#[test]
fn merged_layers_equal_those_of_peft() {
    for (case, model) in PEFT {
        let work = tempfile::tempdir().unwrap();
        let output = work.path().join("merged");
        let adapters = [adapter(&qoft_fixtures::path(&format!("adapters/{case}")))];
        let model = qoft_fixtures::path(&format!("models/{model}"));
        merged(
            &model,
            &adapters,
            MergeTarget::SameScheme(&Nearest),
            &output,
        );
        let ours = Checkpoint::open(&output).unwrap();
        let file = qoft_fixtures::path(&format!("merged/{case}.safetensors"));
        let theirs = std::fs::read(file).unwrap();
        let theirs = safetensors::SafeTensors::deserialize(&theirs).unwrap();
        for (name, theirs) in theirs.iter() {
            let ours = ours.tensor(name).unwrap();
            if name.contains("quant_state") {
                // The offset of the statistics in it may have another last digit.
                continue;
            }
            assert_eq!(ours.dtype(), theirs.dtype(), "{case}: {name}");
            assert_eq!(ours.shape(), theirs.shape(), "{case}: {name}");
            let (ours, theirs) = (ours.bytes(), theirs.data());
            if case.starts_with("dense") || name.ends_with("absmax") || name.ends_with("SCB") {
                check_statistics(case, name, ours, theirs);
            } else {
                // torch adds up the terms of a product in another order: in one weight of these
                // models the last bit decides to which side an int8 code is rounded.
                let pairs = ours.iter().zip(theirs.iter());
                let different = pairs.filter(|(a, b)| a != b).count();
                let allowed = usize::from(case.starts_with("int8"));
                assert!(
                    different <= allowed,
                    "{case}: {name}: {different} bytes differ"
                );
            }
        }
    }
}

/// Floats up to the last bits; the codes of nested ones up to one step in a hundred.
fn check_statistics(case: &str, name: &str, ours: &[u8], theirs: &[u8]) {
    if name.ends_with("weight.absmax") && !case.starts_with("fp4") {
        let pairs = ours.iter().zip(theirs);
        let off = pairs
            .map(|(&a, &b)| usize::from(a.abs_diff(b)))
            .sum::<usize>();
        assert!(off * 100 <= ours.len(), "{case}: {name}: {off} steps");
        return;
    }
    let floats = |bytes: &[u8]| {
        let mut values = vec![0.0; bytes.len() / 4];
        FloatFormat::F32.decode(bytes, &mut values);
        values
    };
    for (a, b) in floats(ours).into_iter().zip(floats(theirs)) {
        assert!(
            (a - b).abs() <= 2e-6 * b.abs().max(0.1),
            "{case}: {name}: {a} {b}"
        );
    }
}

/// Each family composes as PEFT does it.
#[test]
fn two_householder_adapters_merge_as_in_peft() {
    let file = std::fs::read_to_string(qoft_fixtures::path("hra/expected.json")).unwrap();
    let expected: Value = serde_json::from_str(&file).unwrap();
    for pair in expected["pairs"].as_array().unwrap() {
        let folder = |name: &str| qoft_fixtures::path("hra").join(pair[name].as_str().unwrap());
        let adapters = ["first", "second"].map(|name| adapter(&folder(name)));
        let work = tempfile::tempdir().unwrap();
        let output = work.path().join("merged");
        let model = qoft_fixtures::path("models/llama");
        let target = MergeTarget::Dense(FloatFormat::F32);
        merged(&model, &adapters, target, &output);
        let found = loss(&load(&output, &[]), &rows(&expected["rows"]));
        let reference = pair["merged"].as_f64().unwrap();
        assert!((found - reference).abs() < 1e-5, "{found} {reference}");
    }
}

/// Loss of the model in a folder with adapters on it.
fn adapted_loss(model: &Path, adapters: &[&Path], rows: &[Vec<i32>]) -> f64 {
    let mut model = load(model, &[]);
    for (number, folder) in adapters.iter().enumerate() {
        let (name, device) = (number.to_string(), Device::flex());
        peft::load(
            &mut model,
            folder,
            &Families::linked().unwrap(),
            ModelFacts::of_type("llama").with_head("lm_head"),
            &name,
            &device,
        )
        .unwrap_or_else(|e| panic!("{e}"));
    }
    loss(&model, rows)
}

#[test]
fn a_dense_merge_has_the_adapted_loss_on_every_scheme() {
    let mut cases = 0;
    for scheme in [
        "aqlm",
        "awq",
        "compressed-tensors",
        "eetq",
        "fp8",
        "gptq",
        "hqq",
        "inc-fp8",
    ] {
        for folder in qoft_fixtures::folders(&format!("schemes/{scheme}")) {
            let Ok(text) = std::fs::read_to_string(folder.join("reference.json")) else {
                continue;
            };
            let reference: Value = serde_json::from_str(&text).unwrap();
            let rows = rows(&reference["rows"]);
            let work = tempfile::tempdir().unwrap();
            let output = work.path().join("merged");
            let trained = folder.join("trained");
            let target = MergeTarget::Dense(FloatFormat::F32);
            let report = merged(&folder, &[adapter(&trained)], target, &output);
            assert!(
                report
                    .layers
                    .iter()
                    .all(|layer| layer.relative_error == 0.0)
            );
            let found = loss(&load(&output, &[]), &rows);
            let expected = adapted_loss(&folder, &[&trained], &rows);
            // A dense layer does not quantize its input; one of this scheme does.
            let tolerance = if scheme == "inc-fp8" { 0.1 } else { 2e-4 };
            let case = folder.display();
            assert!(
                (found - expected).abs() < tolerance,
                "{case}: {found} {expected}"
            );
            cases += 1;
        }
    }
    assert!(cases >= 12, "only {cases} models");
}

/// A 4-bit layer whose dtype is bf16 computes with products that are not rounded to bf16, as those of
/// its dequantization are.
#[test]
fn a_dense_merge_has_the_values_that_the_model_computes_with() {
    let model = qoft_fixtures::path("models/llama_fp4_bf16");
    let folder = qoft_fixtures::path("adapters/fp4_bf16_all_linear");
    let path = qoft_fixtures::path("adapters/expected.json");
    let reference: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let rows = rows(&reference["rows"]);
    let work = tempfile::tempdir().unwrap();
    let output = work.path().join("merged");
    let target = MergeTarget::Dense(FloatFormat::F32);
    merged(&model, &[adapter(&folder)], target, &output);
    let found = loss(&load(&output, &[]), &rows);
    let expected = adapted_loss(&model, &[&folder], &rows);
    assert!((found - expected).abs() < 1e-5, "{found} {expected}");
}

#[test]
fn a_merge_in_the_same_scheme_is_near_the_adapted_loss() {
    let mut cases = 0;
    // How far the loss may be from the adapted one. These models are small, and their adapters
    // change weights by less than the 2 to 4 bits of some schemes can tell.
    let schemes = [
        ("aqlm", 0.2),
        ("awq", 0.07),
        ("compressed-tensors", 0.1),
        ("eetq", 0.01),
        ("fp8", 0.02),
        ("gptq", 0.03),
        ("hqq", 0.12),
        ("inc-fp8", 0.02),
    ];
    for (scheme, tolerance) in schemes {
        for folder in qoft_fixtures::folders(&format!("schemes/{scheme}")) {
            let Ok(text) = std::fs::read_to_string(folder.join("reference.json")) else {
                continue;
            };
            let name = folder.file_name().unwrap().to_str().unwrap();
            // Codes of 2 to 4 bits lose all that the adapters of AutoRound's models change.
            let tolerance = match name.starts_with("auto_round") {
                true => 0.06,
                false => tolerance,
            };
            let reference: Value = serde_json::from_str(&text).unwrap();
            let rows = rows(&reference["rows"]);
            let work = tempfile::tempdir().unwrap();
            let output = work.path().join("merged");
            let trained = folder.join("trained");
            let target = MergeTarget::SameScheme(&Nearest);
            let report = merged(&folder, &[adapter(&trained)], target, &output);
            let found = loss(&load(&output, &[]), &rows);
            let base = loss(&load(&folder, &[]), &rows);
            let expected = adapted_loss(&folder, &[&trained], &rows);
            let errors = report.layers.iter().map(|layer| layer.relative_error);
            let worst = errors.fold(0.0, f64::max);
            println!(
                "{scheme}/{name}: base {base:.4}, adapted {expected:.4}, merged {found:.4}, \
                 relative error up to {worst:.4}"
            );
            assert!((found - expected).abs() < tolerance, "{scheme}/{name}");
            cases += 1;
        }
    }
    assert!(cases >= 16, "only {cases} models");
}

#[test]
fn several_adapters_merge_in_the_order_in_which_they_apply() {
    let model = qoft_fixtures::path("models/llama_nf4");
    let [first, second] =
        ["neumann5", "second"].map(|case| qoft_fixtures::path("adapters").join(case));
    let path = qoft_fixtures::path("adapters/expected.json");
    let reference: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let rows = rows(&reference["rows"]);
    let work = tempfile::tempdir().unwrap();
    let output = work.path().join("merged");
    let adapters = [adapter(&first), adapter(&second)];
    merged(
        &model,
        &adapters,
        MergeTarget::Dense(FloatFormat::F32),
        &output,
    );
    let found = loss(&load(&output, &[]), &rows);
    let expected = adapted_loss(&model, &[&first, &second], &rows);
    assert!((found - expected).abs() < 1e-5, "{found} {expected}");
    let expected = reference["cases"]["two_adapters"]["loss"].as_f64().unwrap();
    assert!((found - expected).abs() < 2e-5, "{found} {expected}");
}

/// Dense layers have their bias in one piece.
#[test]
fn the_bias_of_several_cards_is_put_together() {
    let model = qoft_fixtures::path("schemes/inc-fp8/two_cards");
    let work = tempfile::tempdir().unwrap();
    let output = work.path().join("dense");
    // It has some layers of a model only, so its architecture must not be known.
    let folder = ModelFolder::open(&model, &Architectures::new([]).unwrap()).unwrap();
    let schemes = Schemes::linked(folder.checkpoint()).unwrap();
    let target = MergeTarget::Dense(FloatFormat::F32);
    merge(&folder, &schemes, &[], target, &output, &|_, _| ()).unwrap();
    let (before, dense) = (Checkpoint::open(&model), Checkpoint::open(&output));
    let (before, dense) = (before.unwrap(), dense.unwrap());
    let values = |checkpoint: &Checkpoint, name: &str| {
        let name = format!("model.layers.0.mlp.{name}");
        checkpoint.tensor(&name).unwrap().to_f32().unwrap()
    };
    let [first, second] = [0, 1].map(|card| values(&before, &format!("up_proj.bias_{card}_2")));
    assert_eq!(values(&dense, "up_proj.bias"), [first, second].concat());
    let common = values(&before, "down_proj.bias_0_2");
    assert_eq!(values(&dense, "down_proj.bias"), common);
    assert!(!dense.names().any(|name| name.ends_with("_2")));
}

#[test]
fn a_merge_that_keeps_too_little_is_an_error_and_leaves_nothing() {
    let work = tempfile::tempdir().unwrap();
    let model = qoft_fixtures::path("models/llama_nf4");
    let mut weak = adapter(&qoft_fixtures::path("adapters/all_linear"));
    weak.strength = 0.05;
    let weak = [weak];
    let (folder, output) = (open(&model), work.path().join("merged"));
    let schemes = Schemes::linked(folder.checkpoint()).unwrap();
    let merged =
        |options: MergeOptions| merge(&folder, &schemes, &weak, options, &output, &|_, _| ());
    let same = MergeOptions::from(MergeTarget::SameScheme(&Nearest));
    let error = merged(same).unwrap_err();
    let Error::LittleKept { kept, min_kept, of } = error else {
        panic!("{error}");
    };
    assert!(kept < 0.3 && min_kept == 0.5, "{kept} {min_kept}");
    assert_eq!(of, "the weights");
    assert_eq!(std::fs::read_dir(work.path()).unwrap().count(), 0);
    // Exactly as much as is there will do.
    let report = merged(same.min_kept(kept)).unwrap();
    assert_eq!(report.change_kept(), kept);
    std::fs::remove_dir_all(&output).unwrap();
    assert!(merged(same.min_kept(kept + 1e-9)).is_err());
    // Dense weights keep it all.
    let dense = MergeOptions::from(MergeTarget::Dense(FloatFormat::F32));
    let report = merged(dense.min_kept(1.0)).unwrap();
    assert!(report.change_kept() > 0.999);
}

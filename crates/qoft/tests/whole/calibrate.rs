//! Merging with codes that are chosen by calibration data.

use std::path::Path;

use crate::common::{load, loss, open, rows};
use burn::tensor::Device;
use qoft::core::kernels::Matrix;
use qoft::core::{Checkpoint, CodeSearch, Error, LayerSource, Nearest, Purpose, Schemes};
use qoft::models::CausalLm;
use qoft::peft::{self, AdapterFolder, Families, ModelFacts};
use qoft::train::data::Example;
use qoft::{
    Calibration, CalibrationOptions, LayerSearch, MergeOptions, MergeReport, MergeTarget,
    OutputChange, ScaledAdapter, merge,
};
use qoft_calibrate::Hessian;
use serde_json::Value;

const LAYER: &str = "model.layers.1.mlp.down_proj";

/// An nf4 or int8 model, and an adapter for all of its layers.
const CASES: [(&str, &str); 2] = [
    ("llama_nf4", "all_linear"),
    ("llama_int8", "int8_all_linear"),
];

fn adapter(name: &str) -> ScaledAdapter {
    let folder = qoft_fixtures::path(&format!("adapters/{name}"));
    ScaledAdapter::new(
        AdapterFolder::open(&folder, &Families::linked().unwrap()).unwrap(),
        1.0,
    )
}

fn examples() -> Vec<Example> {
    let text = std::fs::read(qoft_fixtures::path("adapters/expected.json")).unwrap();
    let text: Value = serde_json::from_slice(&text).unwrap();
    rows(&text["rows"]).into_iter().map(example).collect()
}

fn example(row: Vec<i32>) -> Example {
    Example::new(row.iter().map(|&id| id as u32).collect(), row)
}

fn adapted(model: &Path, adapter: &ScaledAdapter) -> CausalLm {
    let (mut model, head) = (load(model, &[]), "lm_head");
    let model_type = model.config().model_type.clone();
    let folder = &adapter.folder;
    peft::attach_folder(
        &mut model,
        folder,
        1.0,
        ModelFacts::of_type(&model_type).with_head(head),
        "default",
        &Device::flex(),
    )
    .unwrap();
    model
}

fn collect(
    model: &CausalLm,
    examples: &[Example],
    adapter: &ScaledAdapter,
    folder: &Path,
    memory: usize,
) -> Result<(Calibration, Vec<(usize, usize)>), Error> {
    let mut options = CalibrationOptions::default();
    options.memory = memory;
    let mut calls = Vec::new();
    let calibration = Calibration::collect(
        model,
        examples,
        &|path| adapter.changes(path),
        folder,
        &options,
        &Device::flex(),
        &mut |done, total| calls.push((done, total)),
    )?;
    Ok((calibration, calls))
}

/// The weight of a layer of a checkpoint.
fn weight(folder: &Path, layer: &str) -> Matrix {
    let checkpoint = Checkpoint::open(folder).unwrap();
    let source = LayerSource::new(&checkpoint, layer, None);
    let schemes = Schemes::linked(&checkpoint).unwrap();
    let loaded = schemes.load(source, Purpose::Forward).unwrap();
    Matrix::decode(&*loaded.weight)
}

/// The squared error of a layer's outputs.
fn output_error(weight: &Matrix, exact: &Matrix, hessian: &Hessian) -> f64 {
    let width = hessian.width();
    let mut sum = 0.0;
    for (row, exact) in weight.rows().zip(exact.rows()) {
        let off: Vec<f64> = row
            .iter()
            .zip(exact)
            .map(|(a, b)| f64::from(a - b))
            .collect();
        for i in 0..width {
            let products = (0..width).map(|j| off[j] * f64::from(hessian.get(i, j)));
            sum += off[i] * products.sum::<f64>();
        }
    }
    sum
}

#[test]
fn outputs_are_closer_to_those_of_the_rotated_weights() {
    for (model, name) in CASES {
        let work = tempfile::tempdir().unwrap();
        let (path, adapter) = (
            qoft_fixtures::path(&format!("models/{model}")),
            adapter(name),
        );
        let model = adapted(&path, &adapter);
        let (calibration, calls) =
            collect(&model, &examples(), &adapter, work.path(), usize::MAX).unwrap();
        assert_eq!(calls.last(), Some(&(examples().len(), examples().len())));
        let merged = |target, name: &str| {
            let output = work.path().join(name);
            let folder = open(&path);
            let schemes = Schemes::linked(folder.checkpoint()).unwrap();
            let adapters = std::slice::from_ref(&adapter);
            let options = MergeOptions::new(target).min_kept(0.0);
            merge(&folder, &schemes, adapters, options, &output, &|_, _| ()).unwrap();
            output
        };
        let exact = merged(
            MergeTarget::Dense(qoft::core::kernels::FloatFormat::F32),
            "dense",
        );
        let nearest = merged(MergeTarget::SameScheme(&Nearest), "nearest");
        let found = merged(MergeTarget::SameScheme(&calibration), "calibrated");
        let mut sums = (0.0, 0.0);
        for layer in Checkpoint::open(&exact).unwrap().modules() {
            let Some(hessian) = calibration.hessian(layer).unwrap() else {
                continue;
            };
            let exact = weight(&exact, layer);
            let error = |folder| output_error(&weight(folder, layer), &exact, &hessian);
            let (found, nearest) = (error(&found), error(&nearest));
            assert!(
                found <= nearest * 1.001,
                "{name}: {layer}: {found} {nearest}"
            );
            (sums.0, sums.1) = (sums.0 + found, sums.1 + nearest);
        }
        assert!(sums.0 < 0.8 * sums.1, "{name}: {sums:?}");
        let ids: Vec<Vec<i32>> = examples()
            .into_iter()
            .map(|row| row.labels.to_vec())
            .collect();
        let (merged, adapted) = (loss(&load(&found, &[]), &ids), loss(&model, &ids));
        assert!((merged - adapted).abs() < 0.3, "{name}: {merged} {adapted}");
    }
}

/// The nearest codes, for layers whose inputs are known.
struct Seen<'a>(&'a Calibration);

impl LayerSearch for Seen<'_> {
    fn search(&self, _: &str, _: Option<&Matrix>) -> Result<Box<dyn CodeSearch + '_>, Error> {
        Ok(Box::new(Nearest))
    }

    fn inputs(&self, layer: &str) -> Result<Option<Hessian>, Error> {
        self.0.inputs(layer)
    }
}

/// What a merge costs: the errors of all outputs, and what is undone of their changes.
fn cost(report: &MergeReport) -> f64 {
    let outputs = report
        .layers
        .iter()
        .filter_map(|layer| layer.change.outputs);
    let cost =
        |o: OutputChange| (o.error.powi(2) + 2.0 * (1.0 - o.kept).powi(2)) * o.relative.powi(2);
    outputs.map(cost).sum()
}

#[test]
fn every_scheme_keeps_more_with_calibration() {
    let mut cases = 0;
    for scheme in ["awq", "gptq", "hqq"] {
        for folder in qoft_fixtures::folders(&format!("schemes/{scheme}")) {
            let Ok(text) = std::fs::read_to_string(folder.join("reference.json")) else {
                continue;
            };
            let name = format!("{scheme}/{}", folder.file_name().unwrap().display());
            let reference: Value = serde_json::from_str(&text).unwrap();
            let rows = rows(&reference["rows"]);
            let examples: Vec<Example> = rows.iter().map(|row| example(row.clone())).collect();
            let work = tempfile::tempdir().unwrap();
            let trained =
                AdapterFolder::open(&folder.join("trained"), &Families::linked().unwrap());
            let trained = ScaledAdapter::new(trained.unwrap(), 1.0);
            let model = adapted(&folder, &trained);
            let (calibration, _) =
                collect(&model, &examples, &trained, work.path(), usize::MAX).unwrap();
            let opened = open(&folder);
            let schemes = Schemes::linked(opened.checkpoint()).unwrap();
            let merged = |search: &dyn LayerSearch, name: &str| {
                let options = MergeOptions::new(MergeTarget::SameScheme(search)).min_kept(0.0);
                let adapters = std::slice::from_ref(&trained);
                let output = work.path().join(name);
                merge(&opened, &schemes, adapters, options, &output, &|_, _| ()).unwrap()
            };
            let nearest = merged(&Seen(&calibration), "nearest");
            let found = merged(&calibration, "calibrated");
            let (before, after) = (cost(&nearest), cost(&found));
            let kept = [&nearest, &found].map(|report| report.kept().outputs.unwrap());
            println!("{name}: {before:.2e} {after:.2e}, kept {kept:.3?}");
            assert!(after <= before, "{name}: {after} {before}");
            cases += 1;
        }
    }
    assert!(cases >= 8, "only {cases} models");
}

#[test]
fn memory_decides_how_often_rows_are_read_and_nothing_else() {
    let work = tempfile::tempdir().unwrap();
    let adapter = adapter("all_linear");
    let model = adapted(&qoft_fixtures::path("models/llama_nf4"), &adapter);
    let examples = &examples()[..2];
    let (large, calls) = collect(&model, examples, &adapter, work.path(), usize::MAX).unwrap();
    assert_eq!(calls, [(1, 2), (2, 2)]);
    let (small, calls) = collect(&model, examples, &adapter, work.path(), 0).unwrap();
    let layers = 14;
    assert_eq!(calls.last(), Some(&(2 * layers, 2 * layers)));
    let hessian = large.hessian(LAYER).unwrap().unwrap();
    assert!(hessian.get(0, 0) > 0.0);
    assert_eq!(small.hessian(LAYER).unwrap(), Some(hessian));
    assert_eq!(large.hessian("lm_head").unwrap(), None);
    assert!(matches!(
        large.search("lm_head", None).err(),
        Some(Error::Calibration { .. })
    ));
    drop((large, small));
    assert_eq!(std::fs::read_dir(work.path()).unwrap().count(), 0);
}

#[test]
fn data_that_says_nothing_is_refused() {
    let work = tempfile::tempdir().unwrap();
    let adapter = adapter("all_linear");
    let model = adapted(&qoft_fixtures::path("models/llama_nf4"), &adapter);
    let row = |ids: &[u32]| Example::new(ids.to_vec(), vec![-100; ids.len()]);
    for (examples, reason) in [
        (vec![], "no tokens"),
        (vec![row(&[])], "no tokens"),
        (vec![row(&[1, u32::MAX])], "token id 4294967295"),
    ] {
        let error = collect(&model, &examples, &adapter, work.path(), 0)
            .err()
            .unwrap();
        assert!(matches!(error, Error::Calibration { .. }));
        assert!(error.to_string().contains(reason), "{error}");
    }
}

//! Files that are damaged or of an unsupported kind, and unusual ones that are neither.

use std::collections::BTreeMap;

use qoft_conformance::expected_weights;
use qoft_eetq::REGISTRATION;
use qoft_scheme::{
    BackendOptions, Checkpoint, Dtype, LayerSource, Matrix, Purpose, Registry, Result,
};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

const LAYER: &str = "model.layers.0.";

/// A checkpoint: a fixture that can be changed.
#[derive(Clone)]
struct File {
    config: Value,
    tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
}

impl File {
    fn fixture(name: &str) -> Self {
        let folder = qoft_fixtures::path(&format!("schemes/eetq/{name}"));
        let config = std::fs::read_to_string(folder.join("config.json")).unwrap();
        let bytes = std::fs::read(folder.join("model.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let tensors = tensors.iter().map(|(name, t)| {
            let tensor = (t.dtype(), t.shape().to_vec(), t.data().to_vec());
            (name.to_owned(), tensor)
        });
        Self {
            config: serde_json::from_str(&config).unwrap(),
            tensors: tensors.collect(),
        }
    }

    fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut file = self.clone();
        change(&mut file);
        file
    }

    fn tensor(&mut self, name: &str) -> &mut (Dtype, Vec<usize>, Vec<u8>) {
        self.tensors.get_mut(name).unwrap()
    }

    /// Loads a layer, given its path, with an option of the backend.
    fn load(&self, path: &str, option: Option<&str>) -> Result<Vec<f32>> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), self.config.to_string()).unwrap();
        let tensors = self.tensors.iter().map(|(name, (dtype, shape, bytes))| {
            (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        let bytes = safetensors::serialize(tensors, None).unwrap();
        std::fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
        let checkpoint = Checkpoint::open(folder.path())?;
        let options: Vec<&str> = option.into_iter().collect();
        let options = BackendOptions::parse(&options)?;
        let schemes = Registry::new([&REGISTRATION])?.open(&checkpoint, &options)?;
        let layer = schemes.claim(LayerSource::new(&checkpoint, path, None));
        let layer = layer.unwrap_or_else(|| panic!("{path} is not claimed"));
        Ok(Matrix::decode(&*layer.load(Purpose::Forward)?.weight).values)
    }

    /// The layer is claimed, and the message of its error contains all of `parts`.
    #[track_caller]
    fn fails(&self, path: &str, parts: &[&str]) {
        let message = self.load(path, None).expect_err("an error").to_string();
        for part in parts {
            assert!(message.contains(part), "{part:?} is not in: {message}");
        }
    }
}

fn expected(fixture: &str, path: &str) -> Vec<f32> {
    let folder = qoft_fixtures::path(&format!("schemes/eetq/{fixture}"));
    expected_weights(&folder).remove(path).unwrap().values
}

#[test]
fn tensors_that_do_not_fit_are_refused() {
    let file = File::fixture("sm80_layers");
    let missing = file.with(|f| _ = f.tensors.remove("wide.weight_scales"));
    missing.fails("wide", &["wide.weight_scales", "missing"]);
    let missing = file.with(|f| _ = f.tensors.remove("wide.weight"));
    missing.fails("wide", &["wide.weight", "missing"]);
    let other = file.with(|f| f.tensor("wide.weight").0 = Dtype::U8);
    other.fails("wide", &["wide.weight", "dtype I8", "U8"]);
    let other = file.with(|f| f.tensor("wide.weight_scales").0 = Dtype::BF16);
    other.fails("wide", &["wide.weight_scales", "dtype F16", "BF16"]);
    let nan = file.with(|f| f.tensor("wide.weight_scales").2[1] = 0x7e);
    nan.fails("wide", &["wide.weight_scales", "finite"]);
    let flat = file.with(|f| f.tensor("wide.weight").1 = vec![192 * 64]);
    flat.fails("wide", &["wide.weight", "a matrix", "[12288]"]);
    let narrow = file.with(|f| {
        f.tensor("wide.weight").1 = vec![192, 48];
        f.tensor("wide.weight").2.truncate(192 * 48);
        f.tensor("wide.weight_scales").1 = vec![48];
        f.tensor("wide.weight_scales").2.truncate(96);
    });
    narrow.fails("wide", &["wide.weight", "multiples of 64", "[192, 48]"]);
    let short = file.with(|f| f.tensor("wide.weight").1 = vec![96, 128]);
    short.fails("wide", &["wide.weight_scales", "[128]", "[64]"]);
    let bias = file.with(|f| f.tensor("bias.bias").1 = vec![2, 64]);
    bias.fails("bias", &["bias.bias", "[128]", "[2, 64]"]);
}

#[test]
fn other_formats_are_refused_by_name() {
    for (key, value) in [
        ("weights", json!("int4")),
        ("bits", json!(4)),
        ("zero_point", json!(true)),
        ("bits", json!("x")),
    ] {
        let mut file = File::fixture("sm80_layers");
        file.config["quantization_config"][key] = value;
        file.fails("wide", &["quantization_config"]);
    }
}

#[test]
fn infinite_weights_are_refused() {
    let scales = |value: f32| value.to_le_bytes().repeat(64);
    let file = |value| {
        File::fixture("sm80_layers").with(|f| {
            *f.tensor("wide.weight_scales") = (Dtype::F32, vec![64], scales(value));
        })
    };
    file(1e38).fails("wide", &["wide", "infinite"]);
    let weight = file(1.0).load("wide", None).unwrap();
    assert!(weight.iter().all(|w| w.fract() == 0.0 && w.abs() <= 128.0));
}

#[test]
fn the_layout_can_be_given() {
    for (fixture, right, wrong) in [
        ("sm80_layers", "sm80", "sm70"),
        ("sm70_layers", "sm70", "plain"),
    ] {
        let (file, expected) = (File::fixture(fixture), expected(fixture, "wide"));
        let load = |layout| file.load("wide", Some(&format!("eetq.layout={layout}")));
        assert!(load(right).unwrap() == expected);
        assert!(load(wrong).unwrap() != expected);
        let error = load("sm90").unwrap_err().to_string();
        assert!(error.contains("sm80 or sm70 or plain"), "{error}");
    }
}

#[test]
fn a_matrix_without_bias_is_recognized() {
    // Without a bias and with the swapped bytes in order, this layout is the plain one.
    let file = File::fixture("sm70_layers").with(|f| {
        let codes = f.tensors.values_mut().filter(|t| t.0 == Dtype::I8);
        for word in codes.flat_map(|codes| codes.2.as_chunks_mut::<4>().0) {
            let [a, b, c, d] = *word;
            *word = [a, c, b, d].map(|byte| byte ^ 0x80);
        }
    });
    let expected = expected("sm70_layers", "wide");
    assert!(file.load("wide", None).unwrap() == expected);
}

/// Layers of 128 inputs under EETQ's own names.
fn separate(fixture: &str) -> File {
    File::fixture(fixture).with(|f| {
        let stored = std::mem::take(&mut f.tensors);
        for (from, to) in [
            ("bias", "q_proj"),
            ("special", "k_proj"),
            ("bias", "v_proj"),
        ] {
            for (old, new) in [("weight", "qweight"), ("weight_scales", "weight_scales")] {
                let tensor = stored[&format!("{from}.{old}")].clone();
                f.tensors.insert(format!("{to}.{new}"), tensor);
            }
        }
    })
}

#[test]
fn layers_of_eetqs_names_need_not_be_cut_from_a_larger_one() {
    for fixture in ["sm80_layers", "sm70_layers"] {
        let file = separate(fixture);
        for (from, to) in [
            ("bias", "q_proj"),
            ("special", "k_proj"),
            ("bias", "v_proj"),
        ] {
            let weight = file.load(to, None).unwrap();
            assert!(weight == expected(fixture, from), "{fixture} {to}");
        }
        let dense = file.with(|f| {
            let codes = f.tensors.remove("k_proj.qweight").unwrap();
            f.tensors.insert("k_proj.weight".into(), codes);
        });
        let weight = dense.load("q_proj", None).unwrap();
        assert!(weight == expected(fixture, "bias"), "{fixture}");
    }
}

#[test]
fn a_part_of_a_fused_matrix_needs_the_others() {
    let file = File::fixture("fused_sm80");
    let (q, k) = (
        format!("{LAYER}self_attn.q_proj"),
        format!("{LAYER}self_attn.k_proj.qweight"),
    );
    let missing = file.with(|f| _ = f.tensors.remove(&k));
    missing.fails(&q, &[&k, "missing"]);
    let shorter = file.with(|f| f.tensor(&k).1 = vec![32, 64]);
    shorter.fails(&q, &[&k, "64 rows", "[32, 64]"]);
    let other = file.with(|f| f.tensor(&k).0 = Dtype::U8);
    other.fails(&q, &[&k, "dtype I8"]);
}

//! Files that are damaged or of an unsupported kind, and unusual ones that are neither.

use qoft_aqlm::Aqlm;
use qoft_conformance::{TestLayer, TestTensor};
use qoft_scheme::Dtype;
use serde_json::{Value, json};

fn floats(shape: &[usize], values: impl Fn(usize) -> f32) -> TestTensor {
    let count = shape.iter().product();
    let bytes = (0..count).flat_map(|i| values(i).to_le_bytes());
    (Dtype::F32, shape.to_vec(), bytes.collect())
}

/// 3 outputs in single groups, 8 inputs in groups of 2, two codebooks of 4 entries.
fn good() -> TestLayer {
    let codes = (0..24).map(|i| if i % 2 == 0 { i / 2 } else { 0xff });
    let tensors = [
        ("codes", (Dtype::I8, vec![3, 4, 2], codes.collect())),
        ("codebooks", floats(&[2, 4, 1, 2], |i| i as f32)),
        ("scales", floats(&[3, 1, 1, 1], |i| i as f32 + 1.0)),
    ];
    let config = json!({
        "quant_method": "aqlm", "in_group_size": 2, "out_group_size": 1,
        "num_codebooks": 2, "nbits_per_codebook": 2,
    });
    TestLayer::new(&Aqlm, "proj", config, tensors)
}

#[test]
fn the_file_that_the_others_are_made_of_is_read() {
    let weight = good().weight();
    // Codes (0, −1) and (1, −1), then the same of the last row: (8, −1) is (0, −1).
    assert_eq!(
        weight[..4],
        [0.0 + 14.0, 1.0 + 15.0, 2.0 + 14.0, 3.0 + 15.0]
    );
    assert_eq!(weight[16..18], [3.0 * 14.0, 3.0 * 16.0]);
}

#[test]
fn sizes_follow_from_the_tensors_without_a_configuration() {
    let expected = good().weight();
    for config in [Value::Null, json!({"quant_method": "bitsandbytes"})] {
        let file = good().config(config);
        assert_eq!(file.weight(), expected);
    }
    // The defaults are 1x16 with groups of 8.
    let file = good().config(json!({"quant_method": "aqlm"}));
    file.fails(&["proj.codebooks", "[1, 65536, 1, 8]", "[2, 4, 1, 2]"]);
}

#[test]
fn the_configuration_must_agree() {
    let file = good();
    for (key, value) in [
        ("in_group_size", 4),
        ("out_group_size", 2),
        ("num_codebooks", 1),
        ("nbits_per_codebook", 3),
    ] {
        let found = ["proj.codebooks", "quantization_config", "[2, 4, 1, 2]"];
        file.key(key, json!(value)).fails(&found);
        for value in [json!(0), json!(-1), json!("x"), json!(null), json!(1.5)] {
            let parts = ["quantization_config", key, &value.to_string()];
            file.key(key, value.clone()).fails(&parts);
        }
    }
    let file = file.key("nbits_per_codebook", json!(60));
    file.fails(&["nbits_per_codebook", "from 1 to 24", "60"]);
}

#[test]
fn missing_tensors_are_named() {
    for name in ["codes", "codebooks", "scales"] {
        good()
            .without(&[name])
            .fails(&[&format!("proj.{name}"), "missing"]);
    }
}

#[test]
fn wrong_shapes_and_dtypes_are_named() {
    let file = good().config(Value::Null);
    let codes = |shape: &[usize]| (Dtype::I8, shape.to_vec(), vec![0; shape.iter().product()]);
    for shape in [&[3, 4, 3][..], &[4, 3, 2], &[2, 4, 2], &[3, 8], &[24]] {
        let parts = ["proj.codes", "[3, in_features / 2, 2]"];
        file.tensor("codes", codes(shape)).fails(&parts);
    }
    let unsigned = (Dtype::U8, vec![3, 4, 2], vec![0; 24]);
    file.tensor("codes", unsigned)
        .fails(&["proj.codes", "I8", "U8"]);
    let many = floats(&[2, 512, 1, 2], |_| 0.0);
    file.tensor("codebooks", many)
        .fails(&["proj.codes", "9 bits", "I8"]);
    let three = floats(&[2, 3, 1, 2], |_| 0.0);
    file.tensor("codebooks", three)
        .fails(&["proj.codebooks", "[2, 3, 1, 2]"]);
    for shape in [&[0, 4, 1, 2][..], &[2, 4, 0, 2], &[2, 4, 1, 0], &[2, 4, 2]] {
        let codebooks = floats(shape, |_| 0.0);
        file.tensor("codebooks", codebooks)
            .fails(&["proj.codebooks"]);
    }
    for shape in [&[3][..], &[3, 1, 1, 2], &[2, 1, 1, 1]] {
        let scales = floats(shape, |_| 1.0);
        assert!(file.tensor("scales", scales).load().is_err());
    }
    let bias = floats(&[4], |_| 0.0);
    file.tensor("bias", bias)
        .fails(&["proj.bias", "[3]", "[4]"]);
}

#[test]
fn values_that_are_not_finite_are_refused() {
    let file = good();
    for name in ["codebooks", "scales"] {
        let (_, shape, _) = file.get(name);
        let nan = floats(&shape, |i| if i == 2 { f32::NAN } else { 1.0 });
        file.tensor(name, nan).fails(&["proj.", name, "finite"]);
        // Finite themselves, but not their product with the other tensor.
        let huge = floats(&shape, |_| 3e38);
        file.tensor(name, huge).fails(&["proj", "infinite"]);
    }
}

#[test]
fn the_model_may_expect_another_shape() {
    let error = good().expecting([3, 16]).load().unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("[3, 8]") && text.contains("[3, 16]"),
        "{text}"
    );
}

/// 256 entries and as many groups of outputs as of inputs; `codes` turned over or not.
fn square(name: &str, in_groups: usize, permuted: bool) -> Vec<(String, TestTensor)> {
    let mut codes = (0..4 * in_groups).map(|i| i as u8).collect::<Vec<_>>();
    let mut shape = vec![4, in_groups, 1];
    if permuted {
        let turned = (0..codes.len()).map(|i| codes[i % 4 * in_groups + i / 4]);
        codes = turned.collect();
        shape = vec![in_groups, 4, 1];
    }
    vec![
        (format!("{name}.codes"), (Dtype::I8, shape, codes)),
        (
            format!("{name}.codebooks"),
            floats(&[1, 256, 1, 1], |i| i as f32),
        ),
        (format!("{name}.scales"), floats(&[4, 1, 1, 1], |_| 1.0)),
    ]
}

#[test]
fn codes_that_a_forward_turned_over_are_turned_back() {
    let load = |layers: &[(&str, usize, bool)]| {
        let tensors = layers
            .iter()
            .flat_map(|&(name, k, permuted)| square(name, k, permuted));
        let empty = TestLayer::new(&Aqlm, "m.proj", Value::Null, []);
        let file = tensors.fold(empty, |file, (name, t)| file.beside(&name, t));
        file.weight()
    };
    let counting = |count: usize| (0..count).map(|i| i as f32).collect::<Vec<_>>();
    assert_eq!(load(&[("m.proj", 3, true)]), counting(12));
    // A square layer is as the others of the checkpoint are.
    let other = |permuted| ("m.other", 5, permuted);
    for permuted in [true, false] {
        let layers = [
            ("m.a", 4, permuted),
            ("m.proj", 4, permuted),
            other(permuted),
        ];
        assert_eq!(load(&layers), counting(16));
    }
    assert_eq!(load(&[("m.proj", 4, false)]), counting(16));
}

//! Files that are damaged or of an unsupported kind, and unusual ones that are neither.

use qoft_conformance::{TestLayer, TestTensor};
use qoft_gptq::Gptq;
use qoft_scheme::Dtype;
use serde_json::{Value, json};

fn ints(shape: &[usize], values: impl IntoIterator<Item = u32>) -> TestTensor {
    let bytes = values.into_iter().flat_map(u32::to_le_bytes).collect();
    (Dtype::I32, shape.to_vec(), bytes)
}

fn floats(shape: &[usize], value: f32) -> TestTensor {
    let bytes = value.to_le_bytes().repeat(shape.iter().product());
    (Dtype::F32, shape.to_vec(), bytes)
}

/// 64 inputs in two groups, 8 outputs, 4 bits; all codes are 9, all zero points 8.
fn good() -> TestLayer {
    let tensors = [
        ("qweight", ints(&[8, 8], [0x9999_9999; 64])),
        ("qzeros", ints(&[2, 1], [0x7777_7777; 2])),
        ("scales", floats(&[2, 8], 0.5)),
        ("g_idx", ints(&[64], (0..64).map(|k| k / 32))),
    ];
    let config = json!({"quant_method": "gptq", "bits": 4, "group_size": 32});
    TestLayer::new(&Gptq, "proj", config, tensors)
}

#[test]
fn unsupported_kinds_are_refused_by_name() {
    let file = good();
    for key in ["checkpoint_format", "format"] {
        for format in ["marlin", "Bitblas", "gptq_p", "something"] {
            let file = file.key(key, json!(format));
            file.fails(&["quantization_config", key, format, "supported are gptq"]);
        }
    }
    let marlin = file.key("is_marlin_format", json!(true));
    marlin.fails(&["is_marlin_format", "marlin"]);
    for bits in [1, 5, 6, 7, 16] {
        let text = format!("{bits} bits");
        file.key("bits", json!(bits)).fails(&["`bits`", &text]);
    }
    file.key("rotation", json!("hadamard"))
        .fails(&["rotation", "input"]);
    file.key("activation", json!({"mode": "w4afp8"}))
        .fails(&["activation", "input"]);
    let marlin = file.config(json!({"quant_method": "gptq"}));
    let marlin = marlin.only("B", ints(&[4, 16], [0; 64]));
    let marlin = marlin.tensor("s", floats(&[2, 8], 1.0));
    marlin.fails(&["`proj`", "Marlin"]);
}

#[test]
fn single_modules_may_have_another_width_but_none_that_is_unsupported() {
    let dynamic = good().key("dynamic", json!({"+:.*": {"bits": 8}}));
    let wide = dynamic
        .tensor("qweight", ints(&[16, 8], [0x8181_8181; 128]))
        .tensor("qzeros", ints(&[2, 2], [0x7f7f_7f7f; 4]));
    assert_eq!(wide.weight(), [0.5; 512]);
    let odd = dynamic
        .tensor("qweight", ints(&[12, 8], [0; 96]))
        .tensor("qzeros", ints(&[2, 2], [0; 4]));
    odd.fails(&["proj.qweight", "8-bit codes of 64", "[12, 8]"]);
    let six = odd.key("dynamic", json!({"+:.*": {"bits": 6}}));
    six.fails(&["dynamic", "`bits`", "6 bits"]);
    let wide = wide.key("dynamic", Value::Null);
    wide.fails(&["proj.qzeros", "[2, 1]", "[2, 2]"]);
}

#[test]
fn groups_of_single_modules_are_those_of_their_rule_where_there_is_no_index() {
    // Groups of 16 in place of 32; their scales are 1 to 4.
    let scales = (1..5u8).flat_map(|group| f32::from(group).to_le_bytes().repeat(8));
    let file = good()
        .without(&["g_idx"])
        .tensor("qzeros", ints(&[4, 1], [0x7777_7777; 4]))
        .tensor("scales", (Dtype::F32, vec![4, 8], scales.collect()));
    let rule = |size: i64| file.key("dynamic", json!({"+:.*proj": {"group_size": size}}));
    let row: Vec<f32> = (0..64u8).map(|k| f32::from(k / 16 + 1)).collect();
    assert_eq!(rule(16).weight(), row.repeat(8));
    // Another module's rule does not count, nor does one that does not fit.
    let other = file.key("dynamic", json!({"+:.*other": {"group_size": 16}}));
    other.fails(&["proj.scales", "groups of 64", "32 in each"]);
    rule(64).fails(&["proj.scales", "groups of 64", "64 in each"]);
    rule(-1).fails(&["proj.scales", "all in one"]);
    // Groups in the order of activations need their index, by a rule as well.
    let ordered = file.key(
        "dynamic",
        json!({".*": {"group_size": 16, "desc_act": true}}),
    );
    ordered.fails(&["g_idx", "missing"]);
}

#[test]
fn wrong_values_in_the_configuration_are_named() {
    for (key, value) in [
        ("bits", json!("four")),
        ("group_size", json!(0)),
        ("group_size", json!(-2)),
        ("desc_act", json!(1)),
        ("sym", json!([])),
        ("checkpoint_format", json!(2)),
    ] {
        let name = format!("`{key}`");
        good()
            .key(key, value)
            .fails(&["quantization_config", &name]);
    }
}

#[test]
fn wrong_tensors_are_named() {
    let file = good();
    for name in ["qweight", "qzeros", "scales"] {
        file.without(&[name])
            .fails(&[&format!("proj.{name}"), "missing"]);
    }
    let cases = [
        ("qweight", ints(&[7, 8], [0; 56]), "64 input channels"),
        ("qweight", ints(&[64], [0; 64]), "a matrix"),
        ("qweight", ints(&[0, 8], []), "a matrix"),
        ("qweight", ints(&[0, usize::MAX / 8], []), "a matrix"),
        ("qweight", (Dtype::I16, vec![8, 8], vec![0; 128]), "I32"),
        ("qzeros", ints(&[2, 2], [0; 4]), "[2, 1]"),
        ("qzeros", floats(&[2, 1], 0.0), "I32"),
        ("scales", floats(&[2, 4], 1.0), "[2, 8]"),
        ("scales", floats(&[2, 8], f32::NAN), "finite"),
        ("scales", ints(&[2, 8], [1; 16]), "F32"),
        ("g_idx", ints(&[64], [2; 64]), "from 0 to 1"),
        (
            "g_idx",
            ints(&[64], [u32::MAX; 64]),
            "-1 for input channel 0",
        ),
        ("g_idx", ints(&[8, 8], [0; 64]), "a vector"),
        ("bias", floats(&[7], 0.0), "[8]"),
    ];
    for (name, tensor, message) in cases {
        file.tensor(name, tensor)
            .fails(&[&format!("proj.{name}"), message]);
    }
    let error = file.expecting([8, 32]).load().unwrap_err().to_string();
    assert!(
        error.contains("[8, 64]") && error.contains("[8, 32]"),
        "{error}"
    );
}

#[test]
fn weights_that_overflow_are_refused() {
    let large = |value: f32| good().tensor("scales", floats(&[2, 8], value));
    assert_eq!(large(1e30).weight(), [1e30; 512]);
    let codes = ints(&[8, 8], [0x7fff_ffff; 64]);
    large(3e38)
        .tensor("qweight", codes)
        .fails(&["`proj`", "weights"]);
}

#[test]
fn a_layer_without_group_index_has_groups_in_order() {
    let file = good().tensor("scales", {
        let values = [[1f32; 8], [2.0; 8]];
        let bytes = values.as_flattened().iter().flat_map(|v| v.to_le_bytes());
        (Dtype::F32, vec![2, 8], bytes.collect())
    });
    let expected = file.weight();
    assert_eq!(expected[..33], [[1.0; 32].as_slice(), &[2.0]].concat());
    let bare = file.without(&["g_idx"]);
    assert_eq!(bare.weight(), expected);
    bare.key("desc_act", json!(true))
        .fails(&["g_idx", "missing"]);
    bare.key("group_size", json!(64))
        .fails(&["proj.scales", "64 in each"]);
    bare.key("group_size", json!(-1))
        .fails(&["proj.scales", "all in one"]);
    // The tensors alone tell the size too.
    assert_eq!(bare.key("group_size", Value::Null).weight(), expected);
}

#[test]
fn padding_is_told_from_codes_by_the_model_or_the_group_index() {
    let file = good();
    let short = file.tensor("g_idx", ints(&[60], (0..60).map(|k| k / 32)));
    short.fails(&["proj.qweight", "60 input channels", "zeros"]);
    let padded = (0..64).map(|i| if i < 56 { 0x9999_9999 } else { 0x9999 });
    let padded = short.tensor("qweight", ints(&[8, 8], padded));
    assert_eq!(padded.weight(), [0.5; 480]);
    let bare = padded.without(&["g_idx"]);
    assert_eq!(bare.expecting([8, 60]).weight(), [0.5; 480]);
}

#[test]
fn the_version_of_symmetric_zero_points_shows() {
    let file = good();
    let expected = [0.5; 512];
    assert_eq!(file.weight(), expected);
    let v2 = file.tensor("qzeros", ints(&[2, 1], [0x8888_8888; 2]));
    assert_eq!(v2.weight(), expected);
    let v2 = v2.key("checkpoint_format", json!("gptq_v2"));
    assert_eq!(v2.weight(), expected);
    let mislabelled = file.key("format", json!("gptq_v2"));
    assert_eq!(mislabelled.weight(), expected);
    // Of other layers only the label says it.
    let asymmetric = mislabelled.key("sym", json!(false));
    assert_eq!(asymmetric.weight(), [1.0; 512]);
}

#[test]
fn a_zero_point_of_0_borrows_from_its_neighbour() {
    // Zero points 0, 5, 5, …: 0x5555_5550 − 0x1111_1111.
    let file = good().key("sym", json!(false));
    let file = file.tensor("qzeros", ints(&[2, 1], [0x4444_443f; 2]));
    let weight = file.weight();
    assert_eq!(weight[..64], [4.5; 64]);
    assert_eq!(weight[64..], [2.0; 448]);
}

#[test]
fn weights_are_rounded_to_the_dtype_of_the_scales() {
    // 0.1 and 7 · 0.1 in bf16.
    let scales = (Dtype::BF16, vec![2, 8], [0xcd, 0x3d].repeat(16));
    let file = good().tensor("scales", scales);
    let file = file.tensor("qweight", ints(&[8, 8], [0xffff_ffff; 64]));
    assert_eq!(file.weight(), [0.699_218_75; 512]);
}

#[test]
fn a_layer_is_recognized_by_its_tensors() {
    let file = good();
    let silent = file.config(Value::Null);
    assert!(silent.claimed());
    assert_eq!(silent.weight(), [0.5; 512]);
    assert!(silent.without(&["g_idx"]).claimed());
    for method in ["awq", "bitsandbytes", "eetq"] {
        assert!(
            !file.key("quant_method", json!(method)).claimed(),
            "{method}"
        );
    }
    // AWQ's shapes.
    let awq = silent
        .without(&["g_idx"])
        .tensor("qweight", ints(&[64, 1], [0; 64]));
    assert!(!awq.claimed());
    // What is left of a damaged layer is still one.
    assert!(file.without(&["qweight"]).claimed());
    // A module that is excluded from quantization.
    let dense = file.only("weight", floats(&[8, 64], 1.0));
    assert!(!dense.claimed());
}

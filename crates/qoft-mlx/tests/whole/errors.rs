//! Files that are damaged or unusual, and what configurations say.

use qoft_conformance::{TestLayer, TestTensor};
use qoft_mlx::Mlx;
use qoft_scheme::Dtype;
use serde_json::{Value, json};

fn floats(shape: &[usize], value: f32) -> TestTensor {
    let bytes = value.to_le_bytes().repeat(shape.iter().product());
    (Dtype::F32, shape.to_vec(), bytes)
}

fn words(shape: [usize; 2], byte: u8) -> TestTensor {
    let count = shape.iter().product::<usize>() * 4;
    (Dtype::U32, shape.to_vec(), vec![byte; count])
}

/// 2 outputs, 64 inputs, 4 bits in groups of 32: all codes are 9, scales 0.5 and offsets −4.
fn good() -> TestLayer {
    let tensors = [
        ("weight", words([2, 8], 0x99)),
        ("scales", floats(&[2, 2], 0.5)),
        ("biases", floats(&[2, 2], -4.0)),
    ];
    TestLayer::new(&Mlx, "proj", json!({"group_size": 32, "bits": 4}), tensors)
}

/// 2 outputs, 64 inputs in MXFP4: all numbers are 1.5, all scales 2.
fn small_floats() -> TestLayer {
    let tensors = [
        ("weight", words([2, 8], 0x33)),
        ("scales", (Dtype::U8, vec![2, 2], vec![128; 4])),
    ];
    TestLayer::new(&Mlx, "proj", json!({"mode": "mxfp4"}), tensors)
}

#[test]
fn the_files_that_the_others_are_made_of_are_read() {
    assert_eq!(good().value(), 0.5);
    assert_eq!(small_floats().value(), 3.0);
}

#[test]
fn parameters_of_a_module_come_first() {
    let file = good().config(json!({"group_size": 64, "bits": 8, "mode": "mxfp8"}));
    file.fails(&[
        "quantization_config",
        "`group_size`",
        "mxfp8 has groups of 32",
    ]);
    let own = file.key("proj", json!({"group_size": 32, "bits": 4}));
    assert_eq!(own.value(), 0.5);
    // What is left out there has the library's default, not the value for all modules.
    let own = file.key("proj", json!({"group_size": 32}));
    assert_eq!(own.value(), 0.5);
    let dense = good().key("proj", json!(false));
    dense.fails(&["`proj`", "the module has scales", "false"]);
    assert_eq!(good().key("proj", json!(true)).value(), 0.5);
}

#[test]
fn sizes_that_the_model_knows_tell_the_parameters() {
    let bare = good().config(Value::Null);
    assert_eq!(bare.expecting([2, 64]).value(), 0.5);
    let file = small_floats().config(Value::Null).expecting([2, 64]);
    assert_eq!(file.value(), 3.0);
    // Without any sizes the defaults hold, 4 bits in groups of 64.
    bare.fails(&["`proj.scales`", "[2, 1]", "[2, 2]"]);
    let odd = bare.expecting([2, 36]);
    odd.fails(&["`proj.weight`", "36 input features", "found 7"]);
    let odd = small_floats().config(Value::Null).expecting([2, 128]);
    odd.fails(&["`proj.scales`", "mxfp4", "2 bits in groups of 64"]);
}

#[test]
fn impossible_parameters_are_named() {
    for (key, value, parts) in [
        ("bits", json!(7), ["`bits`", "1 to 6 or 8, found 7"]),
        ("bits", json!("4"), ["`bits`", "expected a whole number"]),
        ("group_size", json!(0), ["`group_size`", "found 0"]),
        (
            "group_size",
            json!(-1),
            ["`group_size`", "expected a whole number"],
        ),
        ("mode", json!("fp4"), ["`mode`", "affine or mxfp4"]),
    ] {
        good().key(key, value).fails(&parts);
    }
    good()
        .key("group_size", json!(48))
        .fails(&["`proj.weight`", "groups of 48"]);
    good()
        .key("bits", json!(3))
        .fails(&["`proj.weight`", "3 bits"]);
}

#[test]
fn tensors_must_fit() {
    let file = good();
    for name in ["weight", "scales", "biases"] {
        let missing = format!("`proj.{name}` is missing");
        file.without(&[name]).fails(&[&missing]);
    }
    file.tensor("scales", floats(&[2, 1], 0.5))
        .fails(&["`proj.scales`", "[2, 2]", "[2, 1]"]);
    file.tensor("biases", floats(&[1, 2], 0.5))
        .fails(&["`proj.biases`", "[2, 2]", "[1, 2]"]);
    let half = (Dtype::F16, vec![2, 2], vec![0; 8]);
    file.tensor("biases", half)
        .fails(&["`proj.biases`", "F32", "F16"]);
    file.tensor("weight", floats(&[2, 8], 0.0))
        .fails(&["`proj.weight`", "U32", "F32"]);
    let bytes = (Dtype::U8, vec![2, 2], vec![128; 4]);
    file.tensor("scales", bytes)
        .fails(&["`proj.scales`", "F32", "U8"]);
    small_floats()
        .tensor("scales", floats(&[2, 2], 1.0))
        .fails(&["`proj.scales`", "U8", "F32"]);
}

#[test]
fn weights_that_are_not_finite_are_refused() {
    for name in ["scales", "biases"] {
        good()
            .tensor(name, floats(&[2, 2], f32::NAN))
            .fails(&[name, "finite"]);
    }
    let large = good().tensor("scales", floats(&[2, 2], 3e38));
    large.fails(&["proj", "infinite"]);
    let last = (Dtype::U8, vec![2, 2], vec![255; 4]);
    small_floats()
        .tensor("scales", last)
        .fails(&["proj", "finite"]);
}

#[test]
fn other_layers_are_left_alone() {
    assert!(!good().only("weight", words([2, 8], 0)).claimed());
    assert!(
        !good()
            .renamed("weight", "qweight")
            .without(&["biases"])
            .claimed()
    );
    let other = json!({"quant_method": "gptq", "bits": 4, "group_size": 32});
    assert!(!good().config(other).claimed());
}

//! Files that are damaged, unusual, or of a kind that is refused.

use qoft_conformance::{TestLayer, TestTensor};
use qoft_mxfp4::Mxfp4;
use qoft_scheme::{Dtype, Keys, QuantBackend};
use serde_json::{Value, json};

fn bytes(shape: &[usize], byte: u8) -> TestTensor {
    (
        Dtype::U8,
        shape.to_vec(),
        vec![byte; shape.iter().product()],
    )
}

/// 2 outputs, 64 inputs: all numbers are 1.5, and scales 4.
fn layer() -> TestLayer {
    let tensors = [
        ("weight_blocks", bytes(&[2, 2, 16], 0x33)),
        ("weight_scales", bytes(&[2, 2], 129)),
    ];
    TestLayer::new(&Mxfp4, "proj", json!({"quant_method": "mxfp4"}), tensors)
}

#[test]
fn layers_are_told_by_their_tensors() {
    assert_eq!(layer().value(), 6.0);
    assert_eq!(layer().config(Value::Null).value(), 6.0);
    let listed = layer().key("modules_to_not_convert", json!(["proj"]));
    assert_eq!(listed.value(), 6.0);
    assert!(!layer().key("quant_method", json!("eetq")).claimed());
    // EETQ's scales.
    let other = layer().without(&["weight_blocks"]);
    assert!(!other.tensor("weight", bytes(&[2, 64], 1)).claimed());
}

#[test]
fn tensors_must_fit() {
    for name in ["weight_blocks", "weight_scales"] {
        let missing = format!("`proj.{name}` is missing");
        layer().without(&[name]).fails(&[&missing]);
    }
    let with = |name, tensor| layer().tensor(name, tensor);
    with("weight_scales", bytes(&[2, 1], 129)).fails(&["`proj.weight_scales`", "[2, 2]", "[2, 1]"]);
    with("weight_blocks", bytes(&[2, 32], 0)).fails(&["`proj.weight_blocks`", "16", "[2, 32]"]);
    with("weight_blocks", bytes(&[0, 2, 16], 0)).fails(&["`proj.weight_scales`", "[0, 2]"]);
    let empty = with("weight_blocks", bytes(&[0, 2, 16], 0));
    empty
        .tensor("weight_scales", bytes(&[0, 2], 0))
        .fails(&["`proj.weight_blocks`", "[0, 2, 16]"]);
    let signed = (Dtype::I8, vec![2, 2], vec![0; 4]);
    with("weight_scales", signed).fails(&["U8", "I8"]);
    with("weight_scales", bytes(&[2, 2], 255)).fails(&["`proj.weight_scales`", "255"]);
    // 6 · 2^127.
    let large = with("weight_blocks", bytes(&[2, 2, 16], 0x77));
    large
        .tensor("weight_scales", bytes(&[2, 2], 254))
        .fails(&["finite"]);
}

#[test]
fn experts_are_no_linear_layer() {
    let experts = layer().tensor("weight_blocks", bytes(&[3, 2, 2, 16], 0));
    let experts = experts.tensor("weight_scales", bytes(&[3, 2, 2], 0));
    experts.fails(&["3 experts", "adapters do not train"]);
}

#[test]
fn other_schemes_settings_are_not_its_own() {
    let quantizer = |value| Mxfp4.quantizer(&Keys::new("settings", value));
    assert!(quantizer(json!({"quant_method": "fp8"})).unwrap().is_none());
    let list = json!({"modules_to_not_convert": ["lm_head", "q_proj"]});
    let quantizer = quantizer(list).unwrap().unwrap();
    assert_eq!(quantizer.skips().unwrap(), ["lm_head", "q_proj"]);
}

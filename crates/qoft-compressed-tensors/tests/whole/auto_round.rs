//! AutoRound's own files with floats: the tensors of compressed-tensors below another configuration.

use qoft_compressed_tensors::CompressedTensors;
use qoft_conformance::{TestLayer, TestTensor};
use qoft_scheme::Dtype;
use qoft_scheme::kernels::FloatFormat;
use serde_json::{Value, json};

const PATH: &str = "model.layers.0.mlp.up_proj";

/// As AutoRound 0.16.1 writes it with `format="auto_round"`.
fn config(data_type: &str, bits: u32, group_size: Value, packing: &str) -> Value {
    json!({
        "quant_method": "auto-round",
        "data_type": data_type,
        "bits": bits,
        "group_size": group_size,
        "sym": true,
        "packing_format": packing,
    })
}

fn floats(shape: &[usize], value: f32) -> TestTensor {
    let values = vec![value; shape.iter().product()];
    let bytes = FloatFormat::F32.to_bytes(&values);
    (Dtype::F32, shape.to_vec(), bytes)
}

fn bytes(dtype: Dtype, shape: &[usize], byte: u8) -> TestTensor {
    (dtype, shape.to_vec(), vec![byte; shape.iter().product()])
}

/// 8-bit floats that are all 1.5, with scales of 2.
fn fp8(group_size: Value, scales: &[usize]) -> TestLayer {
    let tensors = [
        ("weight", bytes(Dtype::F8_E4M3, &[4, 32], 0x3c)),
        ("weight_scale", floats(scales, 2.0)),
    ];
    let config = config("fp", 8, group_size, "auto_round:fp8_static");
    TestLayer::new(&CompressedTensors, PATH, config, tensors)
}

/// 4-bit floats that are all 1.
fn pairs(data_type: &str, group_size: usize, more: &[(&'static str, TestTensor)]) -> TestLayer {
    let mut tensors = vec![("weight_packed", bytes(Dtype::U8, &[4, 16], 0x22))];
    tensors.extend(more.iter().cloned());
    let config = config(data_type, 4, json!(group_size), "auto_round:llm_compressor");
    TestLayer::new(&CompressedTensors, PATH, config, tensors)
}

#[test]
fn scales_are_of_rows_or_of_the_whole_weight() {
    assert_eq!(fp8(json!(-1), &[4]).value(), 3.0);
    assert_eq!(fp8(json!(-1), &[4, 1]).value(), 3.0);
    assert_eq!(fp8(json!(0), &[1]).value(), 3.0);
    assert_eq!(fp8(json!([2, 16]), &[2, 2]).value(), 3.0);
    fp8(json!(-1), &[3]).fails(&["weight_scale"]);
}

#[test]
fn floats_of_four_bits_have_groups() {
    // The exponent 128 means 2; 0x38 is 1 in eight bits.
    let mx = [("weight_scale", bytes(Dtype::U8, &[4, 1], 128))];
    assert_eq!(pairs("mx_fp", 32, &mx).value(), 2.0);
    let nv = [
        ("weight_scale", bytes(Dtype::F8_E4M3, &[4, 2], 0x38)),
        ("weight_global_scale", floats(&[1], 4.0)),
    ];
    assert_eq!(pairs("nv_fp", 16, &nv).value(), 0.25);
}

#[test]
fn single_layers_have_settings_of_their_own() {
    let extra = json!({PATH: {"group_size": 0}, "model.layers.0.mlp.down_proj": {"bits": 16}});
    assert_eq!(fp8(json!(-1), &[1]).key("extra_config", extra).value(), 3.0);
}

#[test]
fn integers_are_for_others() {
    assert!(
        !fp8(json!(-1), &[4])
            .key("data_type", json!("int"))
            .claimed()
    );
}

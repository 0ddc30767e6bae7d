//! Files that are damaged, unusual, or of a kind that is refused.

use qoft_conformance::{TestLayer, TestTensor};
use qoft_modelopt::Modelopt;
use qoft_scheme::{Checkpoint, Dtype, Keys, QuantBackend};
use serde_json::{Value, json};

fn bytes(dtype: Dtype, shape: &[usize], byte: u8) -> TestTensor {
    (dtype, shape.to_vec(), vec![byte; shape.iter().product()])
}

fn floats(shape: &[usize], value: f32) -> TestTensor {
    let bytes = value.to_le_bytes().repeat(shape.iter().product());
    (Dtype::F32, shape.to_vec(), bytes)
}

/// 2 outputs, 32 inputs in NVFP4: all numbers are 1.5, scales 2 and the scale of these 0.25.
fn nvfp4() -> TestLayer {
    let tensors = [
        ("weight", bytes(Dtype::U8, &[2, 16], 0x33)),
        ("weight_scale", bytes(Dtype::F8_E4M3, &[2, 2], 0x40)),
        ("weight_scale_2", floats(&[], 0.25)),
        ("input_scale", floats(&[], 0.5)),
    ];
    let config = json!({"quant_method": "modelopt", "quant_algo": "NVFP4"});
    TestLayer::new(&Modelopt, "proj", config, tensors)
}

/// 2 outputs, 32 inputs in FP8: all numbers are 1, and the scale is 3.
fn fp8() -> TestLayer {
    let tensors = [
        ("weight", bytes(Dtype::F8_E4M3, &[2, 32], 0x38)),
        ("weight_scale", floats(&[], 3.0)),
    ];
    let config = json!({"quant_method": "modelopt", "quant_algo": "FP8"});
    TestLayer::new(&Modelopt, "proj", config, tensors)
}

#[test]
fn the_files_that_the_others_are_made_of_are_read() {
    assert_eq!(nvfp4().value(), 0.75);
    assert_eq!(fp8().value(), 3.0);
}

#[test]
fn scales_have_many_shapes() {
    for shape in [&[][..], &[1], &[2], &[2, 1], &[1, 1], &[1, 1, 1, 1]] {
        assert_eq!(
            fp8().tensor("weight_scale", floats(shape, 3.0)).value(),
            3.0
        );
    }
    fp8().tensor("weight_scale", floats(&[3], 1.0)).fails(&[
        "`proj.weight_scale`",
        "[1, 1, 1, 1]",
        "[3]",
    ]);
    // Powers of two: MXFP8 and MXFP4.
    let powers = bytes(Dtype::U8, &[2, 1], 128);
    assert_eq!(fp8().tensor("weight_scale", powers.clone()).value(), 2.0);
    let mx = nvfp4().without(&["weight_scale_2"]);
    assert_eq!(mx.tensor("weight_scale", powers).value(), 3.0);
}

#[test]
fn the_configuration_decides_and_may_be_in_the_form_of_the_file() {
    let file = json!({"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4"}});
    assert_eq!(nvfp4().config(file).value(), 0.75);
    assert_eq!(
        nvfp4().key("quant_method", json!("modelopt_fp4")).value(),
        0.75
    );
    assert!(
        !nvfp4()
            .key("quant_method", json!("compressed-tensors"))
            .claimed()
    );
    assert!(!nvfp4().config(Value::Null).claimed());
    // Layers that stayed dense are not its own, and neither are scales of a cache alone.
    let dense = fp8().tensor("weight", floats(&[2, 32], 1.0));
    assert!(!dense.claimed());
    assert!(!nvfp4().only("k_scale", floats(&[], 1.0)).claimed());
}

#[test]
fn the_size_of_groups_may_be_another_one() {
    let wide = nvfp4().tensor("weight_scale", bytes(Dtype::F8_E4M3, &[2, 1], 0x40));
    // As `config.json` leaves it out for W4A8_NVFP4_FP8.
    assert_eq!(wide.value(), 0.75);
    wide.key("group_size", json!(16))
        .fails(&["`proj.weight_scale`", "[2, 2]", "[2, 1]"]);
    let torn = nvfp4().tensor("weight_scale", bytes(Dtype::F8_E4M3, &[2, 3], 0x40));
    torn.fails(&["`proj.weight_scale`", "[2, 2]", "[2, 3]"]);
    let weights = json!({"num_bits": 4, "type": "float", "group_size": 32});
    let groups = json!({"group_0": {"weights": weights, "targets": ["Linear"]}});
    assert_eq!(wide.key("config_groups", groups).value(), 0.75);
    assert_eq!(wide.key("group_size", json!(32)).value(), 0.75);
    let own = json!({"proj": {"quant_algo": "NVFP4", "group_size": 32}});
    let own = wide
        .key("group_size", json!(16))
        .key("quantized_layers", own);
    assert_eq!(own.value(), 0.75);
    wide.key("group_size", json!(0))
        .fails(&["`group_size`", "found 0"]);
    wide.key("group_size", json!("x"))
        .fails(&["`group_size`", "expected a whole number"]);
}

#[test]
fn a_checkpoint_with_the_librarys_file_alone_is_its_own() {
    let checkpoint = Checkpoint::open(qoft_fixtures::path("schemes/modelopt/mixed")).unwrap();
    assert_eq!(checkpoint.quantization_config(), None);
    assert_eq!(Modelopt.config_files(), ["hf_quant_config.json"]);
}

#[test]
fn what_is_more_than_a_product_is_refused() {
    for name in ["pre_quant_scale", "svdquant_lora_a", "svdquant_lora_b"] {
        let layer = nvfp4().tensor(name, floats(&[32], 1.0));
        layer.fails(&["proj", name, "not supported"]);
    }
}

#[test]
fn tensors_must_fit() {
    for name in ["weight", "weight_scale", "weight_scale_2"] {
        let missing = format!("`proj.{name}` is missing");
        nvfp4().without(&[name]).fails(&[&missing]);
    }
    let layer = |name, tensor| nvfp4().tensor(name, tensor);
    layer("weight_scale", bytes(Dtype::F8_E4M3, &[2, 3], 0x40)).fails(&["[2, 2]", "[2, 3]"]);
    layer("weight_scale", floats(&[2, 2], 1.0)).fails(&["F8_E4M3", "F32"]);
    layer("weight_scale_2", floats(&[2], 1.0)).fails(&["one scale", "[2]"]);
    layer("weight_scale_2", floats(&[], -1.0)).fails(&["a positive scale", "-1"]);
    layer("weight_scale_2", floats(&[], f32::NAN)).fails(&["finite"]);
    layer("weight_scale", bytes(Dtype::F8_E4M3, &[2, 2], 0x7f)).fails(&["finite"]);
    layer("weight", bytes(Dtype::I8, &[2, 16], 0)).fails(&["`proj.weight`", "U8", "I8"]);
    fp8()
        .tensor("weight", bytes(Dtype::F8_E4M3, &[2, 32], 0x7f))
        .fails(&["finite"]);
}

#[test]
fn settings_that_need_data_are_refused() {
    for name in ["NVFP4", "FP8"] {
        let keys = Keys::new("settings", json!({"quant_algo": name}));
        let error = Modelopt.quantizer(&keys).err().unwrap().to_string();
        assert!(
            error.contains("calibration data") && error.contains("W4A16_NVFP4"),
            "{error}"
        );
    }
    let other = Keys::new(
        "settings",
        json!({"quant_method": "gptq", "quant_algo": "NVFP4"}),
    );
    assert!(Modelopt.quantizer(&other).unwrap().is_none());
}

//! Which layers are the scheme's, and files that are damaged or of an unsupported kind.

use qoft_compressed_tensors::CompressedTensors;
use qoft_conformance::{TestLayer, TestTensor};
use qoft_scheme::Dtype;
use qoft_scheme::kernels::FloatFormat;
use serde_json::{Value, json};

const PATH: &str = "model.layers.0.mlp.up_proj";

fn floats(shape: &[usize], values: &[f32]) -> TestTensor {
    (
        Dtype::F32,
        shape.to_vec(),
        FloatFormat::F32.to_bytes(values),
    )
}

fn words(shape: &[usize], words: &[u32]) -> TestTensor {
    let bytes = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    (Dtype::I32, shape.to_vec(), bytes)
}

fn sizes(n: i64, k: i64) -> TestTensor {
    (
        Dtype::I64,
        vec![2],
        [n, k].into_iter().flat_map(i64::to_le_bytes).collect(),
    )
}

fn config(weights: Value) -> Value {
    json!({
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
        "ignore": ["lm_head"],
    })
}

/// 2 outputs, 8 inputs in groups of 4: the codes 0 … 7 and 8 … 15.
fn packed() -> TestLayer {
    let weights = json!({"num_bits": 4, "type": "int", "strategy": "group", "group_size": 4});
    TestLayer::new(
        &CompressedTensors,
        PATH,
        config(weights),
        [
            ("weight_packed", words(&[2, 1], &[0x7654_3210, 0xfedc_ba98])),
            ("weight_scale", floats(&[2, 2], &[1.0, 2.0, 4.0, 8.0])),
            ("weight_shape", sizes(2, 8)),
        ],
    )
}

/// 8-bit floats: 1, 1.125, 1.25 …
fn fp8() -> TestLayer {
    let weights = json!({"num_bits": 8, "type": "float", "strategy": "channel"});
    let codes = (0..16).map(|i| 0x38 + i % 8).collect();
    TestLayer::new(
        &CompressedTensors,
        PATH,
        config(weights),
        [
            ("weight", (Dtype::F8_E4M3, vec![2, 8], codes)),
            ("weight_scale", floats(&[2, 1], &[1.0, 2.0])),
        ],
    )
}

#[test]
fn codes_lie_in_words_from_the_lowest_bits_on() {
    let expected = [-8, -7, -6, -5, -8, -6, -4, -2, 0, 4, 8, 12, 32, 40, 48, 56];
    assert_eq!(packed().weight(), expected.map(|v| v as f32));
    assert_eq!(fp8().weight()[7..10], [1.875, 2.0, 2.25]);
}

#[test]
fn layers_are_told_by_their_tensors() {
    assert!(packed().claimed() && fp8().claimed());
    // Whatever the lists say.
    let ignored = packed().key("ignore", json!([PATH, "re:.*"]));
    assert_eq!(ignored.weight(), packed().weight());
    let group = json!({"targets": ["elsewhere"], "weights": {"num_bits": 4, "group_size": 4}});
    let elsewhere = packed().key("config_groups", json!({ "group_0": group }));
    assert_eq!(elsewhere.weight(), packed().weight());
    let plain = (Dtype::BF16, vec![2, 8], vec![0; 32]);
    assert!(!packed().only("weight", plain.clone()).claimed());
    for method in ["fp8", "modelopt", "gptq"] {
        assert!(!packed().key("quant_method", json!(method)).claimed());
    }
    // Scales of a cache belong to no linear layer.
    assert!(!packed().only("k_scale", floats(&[1], &[1.0])).claimed());
    fp8()
        .tensor("weight", plain)
        .fails(&["saved without being compressed"]);
}

#[test]
fn the_best_target_of_several_groups_counts() {
    let group = |target: &str, bits: u32| json!({"targets": [target], "weights": {"num_bits": bits, "group_size": 4}});
    for (first, second) in [
        (group("Linear", 8), group("re:.*up_proj$", 4)),
        (group("re:.*up_proj$", 8), group(PATH, 4)),
        (group("re:.*up_proj$", 8), group("re:.*layers.0", 4)),
        (group("Linear", 8), group("Linear", 4)),
        (group("re:up_proj", 8), group("Linear", 4)),
        (group("up_proj", 8), group("Linear", 4)),
    ] {
        let groups = json!({"group_0": first, "group_1": second});
        let layer = packed().key("config_groups", groups);
        assert_eq!(layer.weight(), packed().weight());
    }
    let groups = json!({"a": group("re:x", 8), "b": group("re:y", 4)});
    packed()
        .key("config_groups", groups)
        .fails(&["config_groups", PATH]);
}

#[test]
fn unsupported_formats_are_refused_by_name() {
    for format in [
        "marlin-24",
        "sparse-24-bitmask",
        "mxfp6-pack-quantized",
        "fakequant",
    ] {
        packed()
            .key("format", json!(format))
            .fails(&["format", format]);
    }
    let sparse = json!({"format": "sparse-24-bitmask", "targets": ["Linear"]});
    packed()
        .key("sparsity_config", sparse)
        .fails(&["sparse", "sparse-24-bitmask"]);
    for harmless in [json!({}), Value::Null, json!({"format": "dense"})] {
        assert!(packed().key("sparsity_config", harmless).load().is_ok());
    }
    let bitmask = (Dtype::U8, vec![2, 1], vec![0xff; 2]);
    packed()
        .tensor("bitmask", bitmask)
        .fails(&["bitmask", "sparse"]);
    let rotated = json!({"config_groups": {"R3": {"apply": [{"location": "input"}]}}});
    packed()
        .key("transform_config", rotated)
        .fails(&["R3", "transform"]);
    let fused = json!({"config_groups": {"R1": {"apply": [{"location": "weight_input"}]}}});
    assert!(packed().key("transform_config", fused).load().is_ok());
    let cache = json!({"num_bits": 8, "type": "float", "strategy": "tensor"});
    assert!(packed().key("kv_cache_scheme", cache).load().is_ok());
}

#[test]
fn what_does_not_fit_is_refused() {
    for name in ["weight_packed", "weight_scale", "weight_shape"] {
        packed().without(&[name]).fails(&[name, "missing"]);
    }
    packed()
        .tensor("weight_shape", sizes(3, 8))
        .fails(&["weight_packed", "3 rows"]);
    packed()
        .tensor("weight_shape", sizes(2, -8))
        .fails(&["weight_shape", "-8"]);
    packed()
        .tensor("weight_shape", sizes(2, 12))
        .fails(&["weight_packed", "12 codes of 4 bits"]);
    packed()
        .tensor("weight_shape", sizes(2, 6))
        .fails(&[PATH, "6 input features"]);
    packed()
        .tensor("weight_scale", floats(&[2, 1], &[1.0; 2]))
        .fails(&["weight_scale", "[2, 2]", "[2, 1]"]);
    packed()
        .tensor("weight_scale", floats(&[2, 2], &[f32::INFINITY; 4]))
        .fails(&[PATH, "infinit"]);
    let bits = packed().config(config(json!({"num_bits": 8, "group_size": 4})));
    bits.fails(&["weight_packed", "8 bits"]);
    let float = packed().config(config(json!({"num_bits": 8, "type": "float"})));
    float.fails(&[PATH, "integers are stored", "Fp8"]);
    let asymmetric = config(json!({"num_bits": 4, "group_size": 4, "symmetric": false}));
    packed()
        .config(asymmetric)
        .fails(&["weight_zero_point", "missing"]);
    let index = |groups: [u32; 8]| packed().tensor("weight_g_idx", words(&[8], &groups));
    index([0, 1, 2, 0, 0, 0, 1, 1]).fails(&["weight_g_idx", "from 0 to 1"]);
    index([0, 1, 1, 1, 1, 1, 1, 1]).fails(&["weight_g_idx", "4 features in each group"]);
    let mixed = index([0, 1, 0, 1, 0, 1, 0, 1]).weight();
    assert_eq!(mixed[..4], [-8.0, -14.0, -6.0, -10.0]);
    assert_eq!(index([u32::MAX; 8]).weight(), packed().weight());
}

#[test]
fn a_very_old_file_has_its_configuration_elsewhere() {
    let old = packed().config(Value::Null);
    assert!(!old.claimed());
}

//! Files that are damaged, unusual, or of a kind that is refused.

use qoft_conformance::{TestLayer, TestTensor};
use qoft_scheme::{Dtype, Keys, QuantBackend};
use qoft_torchao::TorchAo;
use serde_json::{Value, json};

fn bytes(dtype: Dtype, shape: &[usize], byte: u8) -> TestTensor {
    (dtype, shape.to_vec(), vec![byte; shape.iter().product()])
}

fn floats(shape: &[usize], value: f32) -> TestTensor {
    let bytes = value.to_le_bytes().repeat(shape.iter().product());
    (Dtype::F32, shape.to_vec(), bytes)
}

fn about(kind: &str, data: Value) -> Value {
    json!({"_type": kind, "_data": data, "_tensor_data_names": ["qdata", "scale"]})
}

fn torch(name: &str) -> Value {
    json!({"_type": "torch.dtype", "_data": name})
}

/// 2 outputs, 32 inputs: all codes are 3, and scales 0.5.
fn int8() -> TestLayer {
    let tensors = [
        ("_weight_qdata", bytes(Dtype::I8, &[2, 32], 3)),
        ("_weight_scale", floats(&[2, 1], 0.5)),
        ("_weight_zero_point", bytes(Dtype::I8, &[2, 1], 0)),
    ];
    let data = json!({"block_size": [1, 32], "dtype": torch("bfloat16")});
    TestLayer::new(
        &TorchAo,
        "proj",
        json!({"quant_method": "torchao"}),
        tensors,
    )
    .metadata("weight", about("Int8Tensor", data))
}

/// The same as 4-bit codes, two of which are in a byte, with 0.25 for a zero point.
fn int4() -> TestLayer {
    let layer = int8().tensor("_weight_qdata", bytes(Dtype::I8, &[2, 16], 0x33));
    let layer = layer.tensor("_weight_scale", floats(&[1, 2], 0.5));
    let layer = layer.tensor("_weight_zero_point", floats(&[1, 2], 0.25));
    let data = json!({"block_size": [1, 32], "shape": [2, 32]});
    layer.metadata("weight", about("Int4Tensor", data))
}

#[test]
fn the_metadata_says_what_a_weight_is() {
    assert_eq!(int8().value(), 1.5);
    assert_eq!(int8().config(Value::Null).value(), 1.5);
    assert!(!int8().key("quant_method", json!("gptq")).claimed());
    assert_eq!(int4().value(), 1.75);
    // Codes are signed.
    let negative = int4().tensor("_weight_qdata", bytes(Dtype::I8, &[2, 16], 0xff));
    assert_eq!(negative.value(), -0.25);
    let plain = int8().only("weight", floats(&[2, 32], 1.0));
    assert!(
        !plain
            .metadata("weight", json!({"_type": "Tensor"}))
            .claimed()
    );
    int8()
        .metadata("weight", Value::Null)
        .fails(&["proj.weight", "__metadata__", "rewrote"]);
    int8()
        .without(&["_weight_qdata"])
        .fails(&["`proj._weight_qdata` is missing"]);
}

#[test]
fn other_types_are_refused_by_name() {
    let other = |kind: &str, data| int8().metadata("weight", about(kind, data));
    let blocks = json!({"block_size": [1, 32]});
    other("MXTensor", blocks.clone()).fails(&["proj", "MXTensor", "supported are Int8Tensor"]);
    other("Int4PlainInt32Tensor", blocks.clone()).fails(&["Int4PlainInt32Tensor"]);
    other("IntxUnpackedToInt8Tensor", blocks).fails(&["`target_dtype`", "int1 to int8"]);
    other("Int8Tensor", json!({})).fails(&["`block_size`", "two sizes"]);
    other("Int8Tensor", json!({"block_size": [1, 0]})).fails(&["`block_size`", "positive"]);
    other(
        "Int8Tensor",
        json!({"block_size": [1, 32], "dtype": torch("float64")}),
    )
    .fails(&["`dtype`", "float64"]);
    other("Int8Tensor", json!({"block_size": [1, 24]})).fails(&["[2, 32]", "[1, 24]"]);
}

#[test]
fn zero_points_are_subtracted_or_missing() {
    let zero = int8().tensor("_weight_zero_point", bytes(Dtype::I8, &[2, 1], 0xff));
    assert_eq!(zero.value(), 2.0);
    assert_eq!(int8().without(&["_weight_zero_point"]).value(), 1.5);
}

#[test]
fn older_releases_leave_sizes_of_one_out() {
    let layer = |shape: &[usize]| int8().tensor("_weight_scale", floats(shape, 0.5));
    assert_eq!(layer(&[2]).value(), 1.5);
    layer(&[1]).fails(&["`proj._weight_scale`", "[2, 1]", "[1]"]);
    let whole = json!({"block_size": [2, 32], "dtype": torch("float32")});
    let whole = int8()
        .without(&["_weight_zero_point"])
        .metadata("weight", about("Int8Tensor", whole));
    for shape in [&[][..], &[1], &[1, 1]] {
        assert_eq!(
            whole.tensor("_weight_scale", floats(shape, 0.5)).value(),
            1.5
        );
    }
}

#[test]
fn scaled_inputs_are_refused() {
    let layer = int8().tensor("_weight_act_pre_scale", floats(&[32], 1.0));
    layer.fails(&["proj", "_weight_act_pre_scale", "not supported"]);
}

#[test]
fn quantized_biases_are_refused() {
    // As transformers writes the biases that a `FqnToConfig` reaches, with which torchao cannot compute.
    let layer = int8().tensor("_bias_qdata", bytes(Dtype::I8, &[2], 1));
    layer.fails(&["proj", "_bias_qdata", "bias is quantized", "`.weight`"]);
}

#[test]
fn tensors_must_fit() {
    let with = |name, tensor| int8().tensor(name, tensor);
    with("_weight_qdata", bytes(Dtype::U8, &[2, 32], 3)).fails(&["I8", "U8"]);
    with("_weight_scale", floats(&[2, 1], f32::NAN)).fails(&["finite"]);
    with("_weight_scale", bytes(Dtype::I8, &[2, 1], 1)).fails(&["`proj._weight_scale`", "F32"]);
    int4()
        .tensor("_weight_scale", floats(&[2, 1], 0.5))
        .fails(&["[1, 2]", "[2, 1]"]);
    let tiles = about(
        "Int4TilePackedTo4dTensor",
        json!({"block_size": [1, 32], "shape": [2, 32]}),
    );
    let tiles = int8().metadata("weight", tiles);
    tiles.fails(&["`proj._weight_scale_and_zero` is missing"]);
    let tiles = tiles.tensor("_weight_scale_and_zero", floats(&[32, 8, 2], 0.5));
    tiles.fails(&["I32", "I8"]);
    let words = (Dtype::I32, vec![1, 8, 32, 2], vec![0; 4 * 512]);
    tiles
        .tensor("_weight_qdata", words)
        .fails(&["[rows / 8, columns / 128, 32, 4]", "[1, 8, 32, 2]"]);
    let words = (Dtype::I32, vec![1, 8, 32, 4], vec![0; 4 * 1024]);
    // (0 − 8) · 0.5 + 0.5
    assert_eq!(tiles.tensor("_weight_qdata", words).value(), -3.5);
}

#[test]
fn settings_that_are_not_its_own_are_refused() {
    let error = |settings: Value| {
        let keys = Keys::new("settings", settings);
        TorchAo.quantizer(&keys).err().unwrap().to_string()
    };
    let of = |name: &str, data: Value| {
        error(json!({"quant_type": {"default": {"_type": name, "_data": data}}}))
    };
    let dynamic = of("Int8DynamicActivationInt8WeightConfig", json!({}));
    assert!(
        dynamic.contains("Int8DynamicActivationInt8WeightConfig"),
        "{dynamic}"
    );
    assert!(dynamic.contains("int8_weight_only"), "{dynamic}");
    let packing = json!({"int4_packing_format": {"_type": "x", "_data": "PRESHUFFLED"}});
    let error_of = of("Int4WeightOnlyConfig", packing);
    assert!(
        error_of.contains("expected PLAIN or TILE_PACKED_TO_4D"),
        "{error_of}"
    );
    let named = |configs: Value| of("FqnToConfig", json!({"fqn_to_config": configs}));
    assert!(named(json!({"re:(": null})).contains("`re:(`"));
    assert!(named(json!({"a": 3})).contains("`a`"));
    assert!(named(json!({"a": {"_type": "x", "_data": {}}})).contains("choose int8_weight_only"));
    assert!(of("FqnToConfig", json!({})).contains("fqn_to_config"));
    for (settings, key) in [
        (json!({"quant_type": "int2"}), "quant_type"),
        (json!({"group_size": 0}), "group_size"),
        (json!({"granularity": "per_group"}), "group_size"),
        (json!({"granularity": "per_block"}), "granularity"),
        (
            json!({"quant_type": "int4_weight_only", "group_size": 33}),
            "group_size",
        ),
        (
            json!({
                "quant_type": "int4_weight_only",
                "int4_packing_format": "tile_packed_to_4d",
                "group_size": 96,
            }),
            "group_size",
        ),
        (
            json!({
                "quant_type": "int4_weight_only",
                "int4_packing_format": "tile_packed_to_4d",
                "int4_tile_packed_ntile": 16,
            }),
            "int4_tile_packed_ntile",
        ),
        (
            json!({"quant_type": "intx_weight_only", "weight_dtype": "int9"}),
            "weight_dtype",
        ),
        (
            json!({"quant_type": "intx_weight_only", "mapping_type": "x"}),
            "mapping_type",
        ),
    ] {
        let error = error(settings);
        assert!(error.contains(&format!("`{key}`")), "{error}");
    }
}

//! Which layers are the scheme's, files that are damaged or of an unsupported kind, and the rounding
//! of inputs.

use qoft_conformance::{TestLayer, TestTensor};
use qoft_fp8::Fp8;
use qoft_scheme::Dtype;
use qoft_scheme::kernels::FloatFormat;
use serde_json::{Value, json};

fn floats(shape: &[usize], values: &[f32]) -> TestTensor {
    (
        Dtype::F32,
        shape.to_vec(),
        FloatFormat::F32.to_bytes(values),
    )
}

/// The codes are 0x38 and the next ones: 1, 1.125, 1.25, 1.375 …
fn codes([n, k]: [usize; 2]) -> TestTensor {
    let bytes = (0..n * k).map(|i| 0x38 + i as u8 % 8).collect();
    (Dtype::F8_E4M3, vec![n, k], bytes)
}

/// 4 outputs, 6 inputs in blocks of 2 × 4.
fn layer() -> TestLayer {
    TestLayer::new(
        &Fp8,
        "mlp.up_proj",
        json!({"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [2, 4]}),
        [
            ("weight", codes([4, 6])),
            ("weight_scale_inv", floats(&[2, 2], &[1.0, 2.0, 4.0, 8.0])),
        ],
    )
}

fn fbgemm() -> TestLayer {
    let layer = layer().config(json!({"quant_method": "fbgemm_fp8", "activation_scale_ub": 448.0}));
    let layer = layer.without(&["weight_scale_inv"]);
    layer.tensor("weight_scale", floats(&[4, 1], &[1.0, 2.0, 4.0, 8.0]))
}

#[test]
fn scales_are_of_blocks_rows_or_all() {
    let weight = layer().weight();
    let number = |i: usize| 1.0 + (i % 8) as f32 / 8.0;
    assert_eq!(
        weight[..6],
        [0, 1, 2, 3, 4, 5].map(|k| number(k) * if k < 4 { 1.0 } else { 2.0 })
    );
    assert_eq!(
        weight[18..],
        [0, 1, 2, 3, 4, 5].map(|k| number(18 + k) * if k < 4 { 4.0 } else { 8.0 })
    );
    let rows = fbgemm();
    assert_eq!(rows.weight()[6], number(6) * 2.0);
    let vector = rows.tensor("weight_scale", floats(&[4], &[1.0, 2.0, 4.0, 8.0]));
    assert_eq!(vector.weight(), rows.weight());
    for shape in [&[][..], &[1], &[1, 1]] {
        let whole = rows.tensor("weight_scale", floats(shape, &[0.5]));
        assert_eq!(whole.weight()[7], number(7) * 0.5);
        let null = layer().key("weight_block_size", Value::Null);
        let null = null.tensor("weight_scale_inv", floats(shape, &[0.5]));
        assert_eq!(null.weight(), whole.weight());
        // Other tools' name, under a configuration without a block size.
        let unsaid = null.config(json!({"quant_method": "fp8"}));
        let renamed = unsaid.renamed("weight_scale_inv", "weight_scale");
        assert_eq!(renamed.weight(), whole.weight());
    }
}

#[test]
fn layers_are_told_by_their_tensors() {
    assert!(layer().claimed() && fbgemm().claimed());
    // Whatever the skip list says.
    let skipped = layer().key("modules_to_not_convert", json!(["up_proj"]));
    assert_eq!(skipped.weight(), layer().weight());
    // Left dense, with scales that mean nothing.
    for dtype in [Dtype::BF16, Dtype::F16] {
        assert!(
            !layer()
                .tensor("weight", (dtype, vec![4, 6], vec![0; 48]))
                .claimed()
        );
    }
    for name in ["weight_scale", "scale", "qscale_weight"] {
        assert!(layer().renamed("weight_scale_inv", name).claimed());
    }
    let unnamed = layer().config(Value::Null);
    assert!(unnamed.claimed());
    assert!(
        !unnamed
            .renamed("weight_scale_inv", "weight_scale")
            .claimed()
    );
    for method in ["modelopt", "compressed-tensors", "bitnet"] {
        assert!(!layer().key("quant_method", json!(method)).claimed());
    }
    // A norm's or a cache's scale.
    let norm = layer().only("scale", floats(&[4], &[1.0; 4]));
    assert!(!norm.claimed());
}

#[test]
fn blocks_are_128_by_128_unless_said_otherwise() {
    let scales = floats(&[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    let large = layer()
        .config(json!({"quant_method": "fp8"}))
        .tensor("weight", codes([130, 140]))
        .tensor("weight_scale_inv", scales);
    assert_eq!(large.load().unwrap().weight.info().group_size, Some(128));
    let null = large.key("weight_block_size", Value::Null);
    null.fails(&[
        "mlp.up_proj.weight_scale_inv",
        "[130, 1] or one element",
        "[2, 2]",
    ]);
}

#[test]
fn what_does_not_fit_is_refused() {
    for size in [json!([0, 128]), json!([128]), json!(128), json!([128, -1])] {
        layer()
            .key("weight_block_size", size)
            .fails(&["weight_block_size"]);
    }
    layer()
        .key("activation_scheme", json!("none"))
        .fails(&["activation_scheme"]);
    layer()
        .without(&["weight"])
        .fails(&["mlp.up_proj.weight", "missing"]);
    layer()
        .without(&["weight_scale_inv"])
        .fails(&["mlp.up_proj.weight_scale_inv", "missing"]);
    layer()
        .tensor("weight_scale_inv", floats(&[2, 3], &[1.0; 6]))
        .fails(&[
            "mlp.up_proj.weight_scale_inv",
            "[2, 2] for blocks of 2 × 4",
            "[2, 3]",
        ]);
    layer()
        .tensor(
            "weight_scale_inv",
            floats(&[2, 2], &[1.0, f32::NAN, 1.0, 1.0]),
        )
        .fails(&["mlp.up_proj", "NaN"]);
    layer()
        .tensor(
            "weight_scale_inv",
            (Dtype::F8_E8M0, vec![2, 2], vec![127, 127, 255, 127]),
        )
        .fails(&["mlp.up_proj", "not a number"]);
    // Expert weights of two 4-bit numbers a byte.
    layer()
        .tensor("weight", (Dtype::I8, vec![4, 3], vec![0; 12]))
        .fails(&["mlp.up_proj.weight", "F8_E4M3", "I8"]);
    let bound = fbgemm().key("activation_scale_ub", json!(0));
    bound.fails(&["activation_scale_ub"]);
}

/// What the layer multiplies with.
fn input(layer: &TestLayer, x: &[f32]) -> Vec<f32> {
    let loaded = layer.options(&["fp8.activations=true"]).load().unwrap();
    let mut x = x.to_vec();
    loaded.input_quantizer.unwrap().quantize(&mut x, 6);
    x
}

#[test]
fn inputs_are_quantized_if_that_is_asked_for() {
    let x = [1.0, 448.0, 17.0, -300.0, 4480.0, 170.0];
    assert!(layer().load().unwrap().input_quantizer.is_none());
    // 17 and 300 lie between numbers; the second block has ten times the scale.
    assert_eq!(
        input(&layer(), &x),
        [1.0, 448.0, 16.0, -288.0, 4480.0, 160.0]
    );
    // One scale for the token, which is bounded by 448 / 448.
    assert_eq!(
        input(&fbgemm(), &x),
        [1.0, 448.0, 16.0, -288.0, 448.0, 176.0]
    );
    let fixed = layer().key("activation_scheme", json!("static"));
    for name in ["activation_scale", "input_scale"] {
        let fixed = fixed.tensor(name, floats(&[], &[2.0]));
        assert_eq!(input(&fixed, &x), [1.0, 448.0, 16.0, -288.0, 896.0, 176.0]);
        assert!(fixed.load().unwrap().input_quantizer.is_none());
    }
    let asked = fixed.options(&["fp8.activations=true"]);
    asked.fails(&["mlp.up_proj.activation_scale", "missing"]);
    asked
        .tensor("activation_scale", floats(&[], &[0.0]))
        .fails(&["positive", "0"]);
    asked
        .tensor("activation_scale", floats(&[2], &[1.0; 2]))
        .fails(&["one scale", "[2]"]);
}

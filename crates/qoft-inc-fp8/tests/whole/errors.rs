//! Files that are damaged or of an unsupported kind, and the rounding of inputs.

use qoft_conformance::{TestLayer, TestTensor};
use qoft_inc_fp8::IncFp8;
use qoft_scheme::Dtype;
use qoft_scheme::kernels::{FloatFormat, Fp8Format};
use serde_json::{Value, json};

fn bf16(shape: &[usize], values: &[f32]) -> TestTensor {
    (
        Dtype::BF16,
        shape.to_vec(),
        FloatFormat::Bf16.to_bytes(values),
    )
}

/// So many inputs and outputs; the codes are 0x38 and the next ones: 1, 1.125, 1.25, 1.375 …
fn codes([k, n]: [usize; 2]) -> TestTensor {
    let bytes = (0..k * n).map(|i| 0x38 + i as u8 % 8).collect();
    (Dtype::F8_E4M3, vec![k, n], bytes)
}

/// 3 inputs, 2 outputs.
fn gaudi() -> TestLayer {
    TestLayer::new(
        &IncFp8,
        "mlp.up_proj",
        json!({"fp8_config": "E4M3", "mode": "LOAD", "use_qdq": "False"}),
        [
            ("weight", codes([3, 2])),
            ("scale_weight", bf16(&[], &[0.5])),
            ("scale_input", bf16(&[], &[0.25])),
            ("quant_input.scale_inv", bf16(&[], &[4.0])),
            ("bias", bf16(&[2], &[1.0, 2.0])),
        ],
    )
}

fn qdq() -> TestLayer {
    TestLayer::new(
        &IncFp8,
        "mlp.up_proj",
        json!({"fp8_config": "E4M3", "mode": "LOAD", "use_qdq": "True"}),
        [
            ("weight", codes([3, 2])),
            ("dequant_weights.scale", bf16(&[2], &[0.5, 0.3])),
            ("dequant_weights.zero_point", bf16(&[], &[0.0])),
            ("quant_input.scale", bf16(&[], &[0.3])),
            ("quant_input.scale_inv", bf16(&[], &[3.328125])),
        ],
    )
}

/// Each of two cards has 3 inputs and 2 outputs, with scales of its own.
fn two_cards(path: &str, scales: [f32; 2]) -> TestLayer {
    TestLayer::new(
        &IncFp8,
        path,
        json!({"fp8_config": "E4M3", "mode": "LOAD"}),
        [
            ("weight_0_2", codes([3, 2])),
            ("weight_1_2", codes([3, 2])),
            ("scale_weight_0_2", bf16(&[], &scales[..1])),
            ("scale_weight_1_2", bf16(&[], &scales[1..])),
            ("scale_input_0_2", bf16(&[], &[0.25])),
            ("scale_input_1_2", bf16(&[], &[0.5])),
            ("quant_input.scale_inv_0_2", bf16(&[], &[4.0])),
            ("quant_input.scale_inv_1_2", bf16(&[], &[2.0])),
        ],
    )
}

/// What the layer multiplies with.
fn input(layer: &TestLayer, x: &[f32], options: &[&str]) -> Vec<f32> {
    let loaded = layer.options(options).load().unwrap();
    let mut x = x.to_vec();
    loaded.input_quantizer.unwrap().quantize(&mut x, 3);
    x
}

#[test]
fn layers_are_told_by_their_tensors() {
    assert!(gaudi().claimed() && qdq().claimed());
    assert!(two_cards("lm_head", [1.0, 1.0]).claimed());
    let unnamed = |layer: &TestLayer| layer.config(Value::Null);
    assert!(unnamed(&gaudi()).claimed());
    let alone = gaudi().without(&["scale_weight", "scale_input", "quant_input.scale_inv"]);
    assert!(alone.claimed() && !unnamed(&alone).claimed());
    for name in ["weight_scale", "weight_scale_inv"] {
        assert!(!gaudi().tensor(name, bf16(&[], &[1.0])).claimed());
    }
    let cache = gaudi().without(&["weight", "scale_weight"]);
    assert!(!cache.claimed());
}

#[test]
fn tensors_that_do_not_fit_are_refused() {
    for name in [
        "weight",
        "scale_weight",
        "scale_input",
        "quant_input.scale_inv",
    ] {
        gaudi()
            .without(&[name])
            .fails(&["mlp.up_proj", name, "missing"]);
    }
    for name in ["dequant_weights.scale", "quant_input.scale"] {
        qdq()
            .without(&[name])
            .fails(&["mlp.up_proj", name, "missing"]);
    }
    let float = bf16(&[3, 2], &[1.0; 6]);
    gaudi()
        .tensor("weight", float)
        .fails(&["mlp.up_proj.weight", "F8_E4M3", "BF16"]);
    let mut nan = codes([3, 2]);
    nan.2[4] = 0x7f;
    gaudi()
        .tensor("weight", nan)
        .fails(&["mlp.up_proj", "codes"]);
    gaudi()
        .tensor("weight", codes([0, 2]))
        .fails(&["mlp.up_proj.weight", "[0, 2]"]);
    let three = bf16(&[3], &[1.0; 3]);
    gaudi()
        .tensor("scale_weight", three.clone())
        .fails(&["scale_weight", "[2]", "[3]"]);
    gaudi()
        .tensor("scale_input", three.clone())
        .fails(&["scale_input", "one number", "[3]"]);
    gaudi().tensor("bias", three).fails(&["bias", "[2]", "[3]"]);
    for value in [0.0, -1.0] {
        gaudi()
            .tensor("quant_input.scale_inv", bf16(&[], &[value]))
            .fails(&["scale_inv", "a positive number"]);
    }
    gaudi()
        .tensor("scale_weight", bf16(&[], &[f32::NAN]))
        .fails(&["scale_weight", "finite"]);
    gaudi()
        .tensor("scale_weight", bf16(&[], &[3e38]))
        .fails(&["mlp.up_proj", "infinite"]);
    qdq()
        .tensor("dequant_weights.zero_point", bf16(&[], &[1.0]))
        .fails(&["dequant_weights.zero_point", "expected 0", "found 1"]);
    qdq()
        .key("hp_dtype", json!("int8"))
        .fails(&["quantization_config", "hp_dtype", "int8"]);
}

#[test]
fn weights_are_scaled_and_rounded_as_the_mode_says() {
    assert_eq!(gaudi().weight(), [0.5, 0.625, 0.75, 0.5625, 0.6875, 0.8125]);
    let one = gaudi().tensor("scale_weight", bf16(&[1], &[0.5]));
    assert_eq!(one.weight(), gaudi().weight());
    // bf16 has 0.30078125 for 0.3.
    let scale = 0.300_781_25f32;
    let mut second = [1.125, 1.375, 1.625].map(|v| v * scale);
    FloatFormat::Bf16.round(&mut second);
    assert_eq!(qdq().weight()[3..], second);
    let exact = qdq().key("hp_dtype", json!("fp32")).weight();
    assert_eq!(exact[3..], [1.125, 1.375, 1.625].map(|v| v * scale));
}

#[test]
fn cards_are_put_together() {
    let rows = |w: &[f32]| w.to_vec();
    // Outputs are shared out: the second card's rows come below.
    let own = [1.0, 1.25, 1.5, 1.125, 1.375, 1.625];
    let weight = two_cards("mlp.up_proj", [1.0, 1.0]).weight();
    assert_eq!(weight, [rows(&own), rows(&own)].concat());
    // Inputs are shared out: they come beside; the model's sizes count more than the name.
    let beside = [own[..3].repeat(2), own[3..].repeat(2)].concat();
    assert_eq!(two_cards("self_attn.o_proj", [1.0, 1.0]).weight(), beside);
    let told = two_cards("mlp.up_proj", [1.0, 1.0]).expecting([2, 6]);
    assert_eq!(told.load().unwrap().weight.shape(), [2, 6]);
    // Other scales, powers of two, give the same numbers.
    let scaled: Vec<f32> = own.iter().chain(&own.map(|v| v * 4.0)).copied().collect();
    assert_eq!(two_cards("mlp.up_proj", [1.0, 4.0]).weight(), scaled);
    let info = two_cards("mlp.up_proj", [4.0, 1.0])
        .load()
        .unwrap()
        .weight
        .packed_bytes();
    assert_eq!(info, 12 + 2 + 1024, "codes, one scale, the table");
    // The larger range holds for the inputs.
    let file = two_cards("mlp.up_proj", [1.0, 1.0]);
    assert_eq!(input(&file, &[1.0, 300.0, 0.3], &[]), [1.0, 224.0, 0.3125]);

    file.without(&["weight_1_2"])
        .fails(&["mlp.up_proj.weight_1_2", "missing"]);
    file.tensor("weight_1_2", codes([4, 2]))
        .fails(&["mlp.up_proj.weight_1_2", "[3, 2]", "[4, 2]"]);
    let qdq = file
        .renamed("scale_weight_0_2", "dequant_weights.scale_0_2")
        .renamed("scale_weight_1_2", "dequant_weights.scale_1_2")
        .renamed("scale_input_0_2", "quant_input.scale_0_2")
        .renamed("scale_input_1_2", "quant_input.scale_1_2");
    qdq.fails(&["mlp.up_proj", "QDQ"]);
}

#[test]
fn the_bias_of_cards_is_joined_or_common() {
    let bias = |path, values: [&[f32]; 2]| {
        let file = two_cards(path, [1.0, 1.0]);
        let file = file.tensor("bias_0_2", bf16(&[values[0].len()], values[0]));
        let file = file.tensor("bias_1_2", bf16(&[values[1].len()], values[1]));
        file.load().map(|loaded| loaded.bias.unwrap())
    };
    let both: [&[f32]; 2] = [&[1.0, 2.0], &[3.0, 4.0]];
    assert_eq!(bias("mlp.up_proj", both).unwrap(), [1.0, 2.0, 3.0, 4.0]);
    assert_eq!(bias("mlp.down_proj", both).unwrap(), [1.0, 2.0]);
    let odd: [&[f32]; 2] = [&[1.0; 3], &[1.0; 3]];
    let error = bias("mlp.up_proj", odd).unwrap_err().to_string();
    assert!(error.contains("6 values of bias, expected 4"), "{error}");
}

#[test]
fn static_inputs_are_rounded_and_clamped() {
    let x = [1.03, -200.0, 0.001];
    // 1.03 · 4 is 4.12; steps are 0.5 there. 0.004 is a subnormal number: 2 steps of 2⁻⁹.
    assert_eq!(input(&gaudi(), &x, &[]), [1.0, -112.0, 0.25 * 2.0 / 512.0]);
    let gaudi2 = input(&gaudi(), &x, &["inc-fp8.gaudi2=true"]);
    assert_eq!(gaudi2, [1.0, -60.0, 0.25 * 2.0 / 512.0]);
    let scale = 0.300_781_25f32;
    let rounded = |v: f32| Fp8Format::E4m3.round(v / scale, 448.0) * scale;
    let mut expected = x.map(rounded);
    FloatFormat::Bf16.round(&mut expected);
    assert_eq!(input(&qdq(), &x, &[]), expected);
}

#[test]
fn inputs_without_scales_follow_their_range() {
    let file = gaudi().without(&["scale_input", "quant_input.scale_inv"]);
    file.fails(&["scale_input", "missing"]);
    let dynamic = |method: &str| {
        file.key("dynamic_quantization", json!(true))
            .key("scale_method", json!(method))
    };
    // 3/224 and 30/224 are next to 2⁻⁶ and 2⁻²; with the larger one 0.01 is 2⁻⁷ + 2⁻⁹.
    let x = [3.0, 0.01, 0.0, 30.0, 0.01, 0.0];
    let rounded = |v: f32, scale: f32| Fp8Format::E4m3.round(v / scale, 448.0) * scale;
    let with = |first, second| {
        let (a, b) = x.split_at(3);
        let a = a.iter().map(|&v| rounded(v, first));
        a.chain(b.iter().map(|&v| rounded(v, second)))
            .collect::<Vec<_>>()
    };
    assert_eq!(input(&dynamic("maxabs_pow2"), &x, &[]), with(0.25, 0.25));
    assert_eq!(
        input(&dynamic("MAXABS_PCS_POW2"), &x, &[]),
        with(1.0 / 64.0, 0.25)
    );
    let zeros = input(&dynamic("maxabs_arbitrary"), &[0.0; 6], &[]);
    assert_eq!(zeros, [0.0; 6]);
    dynamic("maxabs_hw").fails(&["quantization_config", "scale_method", "maxabs_hw"]);
}

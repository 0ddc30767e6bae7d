//! Files that are damaged or of an unsupported kind, and unusual ones that are neither.

use qoft_awq::Awq;
use qoft_conformance::{TestLayer, TestTensor};
use qoft_scheme::Dtype;
use serde_json::{Value, json};

fn ints(shape: &[usize], word: u32) -> TestTensor {
    let bytes = word.to_le_bytes().repeat(shape.iter().product());
    (Dtype::I32, shape.to_vec(), bytes)
}

fn floats(shape: &[usize], value: f32) -> TestTensor {
    let bytes = value.to_le_bytes().repeat(shape.iter().product());
    (Dtype::F32, shape.to_vec(), bytes)
}

/// 128 inputs in two groups, 16 outputs. The codes of outputs 0 to 7 are their numbers, and so
/// are those of 8 to 15 less 8; all zero points are 1.
fn gemm() -> TestLayer {
    TestLayer::new(
        &Awq,
        "proj",
        json!({"quant_method": "awq", "bits": 4, "group_size": 64, "version": "gemm"}),
        [
            ("qweight", ints(&[128, 2], 0x7531_6420)),
            ("qzeros", ints(&[2, 2], 0x1111_1111)),
            ("scales", floats(&[2, 16], 0.5)),
        ],
    )
}

/// 128 inputs in two groups, 16 outputs. The codes are the input's number modulo 8; the zero
/// points are 1 and 2. Scales after the second one are padding.
fn gemv() -> TestLayer {
    TestLayer::new(
        &Awq,
        "proj",
        json!({"quant_method": "awq", "bits": 4, "group_size": 64, "version": "GEMV"}),
        [
            ("qweight", ints(&[16, 16], 0x7654_3210)),
            ("qzeros", ints(&[16, 2], 0x0000_0021)),
            ("scales", floats(&[16, 16], 0.5)),
        ],
    )
}

/// The weights of [`gemm`].
fn gemm_weight(inputs: usize) -> Vec<f32> {
    let row = |output: usize| vec![((output % 8) as f32 - 1.0) * 0.5; inputs];
    (0..16).flat_map(row).collect()
}

#[test]
fn unsupported_kinds_are_refused_by_name() {
    let file = gemm();
    for version in ["gemv_fast", "LLM-AWQ", "marlin", "something"] {
        let file = file.key("version", json!(version));
        file.fails(&["quantization_config", "version", version, "gemm and gemv"]);
    }
    file.key("backend", json!("llm-awq"))
        .fails(&["backend", "llm-awq"]);
    for bits in [3, 8] {
        let text = format!("{bits} bits");
        file.key("bits", json!(bits)).fails(&["`bits`", &text]);
    }
    let activation = file.only("scales", floats(&[128], 2.0));
    activation.fails(&["`proj`", "activation"]);
}

#[test]
fn wrong_values_in_the_configuration_are_named() {
    for (key, value) in [
        ("bits", json!("four")),
        ("group_size", json!(0)),
        ("group_size", json!(-2)),
        ("group_size", json!(1e30)),
        ("version", json!(2)),
        ("backend", json!([])),
    ] {
        let name = format!("`{key}`");
        gemm()
            .key(key, value)
            .fails(&["quantization_config", &name]);
    }
}

#[test]
fn wrong_tensors_are_named() {
    for file in [gemm(), gemv()] {
        for name in ["qweight", "qzeros", "scales"] {
            file.without(&[name])
                .fails(&[&format!("proj.{name}"), "missing"]);
        }
        let error = file.expecting([16, 64]).load().unwrap_err().to_string();
        assert!(
            error.contains("[16, 128]") && error.contains("[16, 64]"),
            "{error}"
        );
    }
    let cases = [
        (gemm(), "qweight", ints(&[127, 2], 0), "groups of 64"),
        (gemm(), "qweight", ints(&[128, 1], 0), "[2, 1]"),
        (gemm(), "qweight", ints(&[256], 0), "a matrix"),
        (gemm(), "qweight", ints(&[0, 2], 0), "a matrix"),
        (gemm(), "qweight", ints(&[0, usize::MAX / 8], 0), "a matrix"),
        (gemm(), "qzeros", ints(&[1, 2], 0), "[2, 2]"),
        (gemm(), "qzeros", floats(&[2, 2], 0.0), "I32"),
        (gemm(), "scales", floats(&[2, 2], 1.0), "[2, 16]"),
        (gemm(), "scales", floats(&[2, 16], f32::NAN), "finite"),
        (gemm(), "scales", floats(&[2, 16], 1e6), "f16"),
        (gemm(), "scales", ints(&[2, 16], 1), "F32"),
        (gemm(), "bias", floats(&[7], 0.0), "[16]"),
        (gemv(), "qweight", ints(&[16, 15], 0), "groups of 64"),
        (gemv(), "qzeros", ints(&[16, 1], 0), "[16, 2]"),
        (gemv(), "scales", floats(&[16, 2], 1.0), "[16, 16]"),
    ];
    for (file, name, tensor, message) in cases {
        let file = file.tensor(name, tensor);
        let error = file.load().unwrap_err().to_string();
        assert!(file.claimed(), "{error}");
        assert!(
            error.contains("`proj.") && error.contains(message),
            "{message:?}: {error}"
        );
    }
    gemv()
        .key("group_size", json!(16))
        .fails(&["`proj`", "groups of 16"]);
}

#[test]
fn weights_that_overflow_are_refused() {
    let large = gemm().tensor("scales", floats(&[2, 16], 20_000.0));
    large.fails(&["`proj`", "weights"]);
    let small = large.tensor("qweight", ints(&[128, 2], 0));
    assert_eq!(small.weight(), [-20_000.0; 2048]);
}

#[test]
fn gemm_packs_outputs_in_turns() {
    let file = gemm();
    assert_eq!(file.weight(), gemm_weight(128));
    let one_group = file
        .key("group_size", json!(-1))
        .tensor("qzeros", ints(&[1, 2], 0x1111_1111))
        .tensor("scales", floats(&[1, 16], 0.5));
    assert_eq!(one_group.weight(), gemm_weight(128));
    // Without a multiple of 8 inputs, words do not become words.
    let odd = one_group.tensor("qweight", ints(&[101, 2], 0x7531_6420));
    assert_eq!(odd.weight(), gemm_weight(101));
    // The zero points of the groups.
    let zeros = [0x1111_1111u32, 0x7531_6420, 0, 0];
    let bytes = zeros.iter().flat_map(|word| word.to_le_bytes()).collect();
    let weight = file
        .tensor("qzeros", (Dtype::I32, vec![2, 2], bytes))
        .weight();
    for output in 0..16 {
        let code = (output % 8) as f32;
        let zero = if output < 8 { 1.0 } else { code };
        assert_eq!(weight[output * 128..][..64], [(code - zero) * 0.5; 64]);
        assert_eq!(weight[output * 128 + 64..][..64], [code * 0.5; 64]);
    }
}

#[test]
fn gemv_packs_inputs_and_groups_in_their_order() {
    let weight = gemv().weight();
    for (i, &value) in weight.iter().enumerate() {
        let zero = if i % 128 < 64 { 1.0 } else { 2.0 };
        assert_eq!(value, ((i % 8) as f32 - zero) * 0.5, "weight {i}");
    }
}

#[test]
fn group_sizes_of_single_modules_may_differ() {
    let file = gemm().key("group_size", json!(32));
    file.fails(&["proj.qzeros", "[4, 2]", "[2, 2]"]);
    let file = file.key("dynamic", json!({".*": {"group_size": 64}}));
    assert_eq!(file.weight(), gemm_weight(128));
}

#[test]
fn weights_are_rounded_to_half_precision() {
    // 0.1 in f16 is 0.0999756, and 6 times that is 0.599854, which f16 has as 0.599609.
    let file = gemm().tensor("scales", floats(&[2, 16], 0.1));
    assert_eq!(file.weight()[7 * 128], 0.599_609_4);
}

#[test]
fn a_layer_is_recognized_by_its_tensors() {
    for file in [gemm(), gemv()] {
        for method in ["gptq", "bitsandbytes", "eetq"] {
            assert!(
                !file.key("quant_method", json!(method)).claimed(),
                "{method}"
            );
        }
        let expected = file.weight();
        // AutoAWQ's own file.
        let old = json!({"w_bit": 4, "q_group_size": 64, "zero_point": true});
        let old = file.config(old);
        assert!(old.claimed());
        assert_eq!(old.weight(), expected);
        assert!(!old.tensor("g_idx", ints(&[128], 0)).claimed());
        // What is left of a damaged layer is still one.
        assert!(file.without(&["qweight"]).claimed());
    }
    // GPTQ's shapes.
    let gptq = gemm().config(Value::Null);
    let gptq = gptq.tensor("qweight", ints(&[16, 16], 0));
    assert!(!gptq.claimed());
    let dense = gemm().only("weight", floats(&[8, 64], 1.0));
    assert!(!dense.claimed());
}

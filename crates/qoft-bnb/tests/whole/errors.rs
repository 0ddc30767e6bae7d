//! Files that are damaged or of an unsupported kind, and unusual ones that are neither.

use qoft_bnb::{Bnb4Bit, Bnb8Bit};
use qoft_conformance::{TestLayer, TestTensor};
use qoft_scheme::{Dtype, Matrix, Purpose};
use serde_json::{Value, json};

fn floats(shape: &[usize], values: impl Fn(usize) -> f32) -> TestTensor {
    let count = shape.iter().product();
    let bytes = (0..count).flat_map(|i| values(i).to_le_bytes());
    (Dtype::F32, shape.to_vec(), bytes.collect())
}

fn bytes(shape: &[usize], value: u8) -> TestTensor {
    let count = shape.iter().product();
    (Dtype::U8, shape.to_vec(), vec![value; count])
}

fn text(value: &Value) -> TestTensor {
    let text = value.to_string().into_bytes();
    (Dtype::U8, vec![text.len()], text)
}

const STATE: &str = "weight.quant_state.bitsandbytes__nf4";

fn state() -> Value {
    json!({"quant_type": "nf4", "blocksize": 32, "dtype": "float32", "shape": [4, 16]})
}

/// 4 outputs, 16 inputs in blocks of 32: all codes are 3 and all numbers their codes; the scales are
/// 0.5 and 1.
fn four() -> TestLayer {
    let tensors = [
        ("weight", bytes(&[32, 1], 0x33)),
        ("weight.absmax", floats(&[2], |i| 0.5 + i as f32 / 2.0)),
        ("weight.quant_map", floats(&[16], |i| i as f32)),
        (STATE, text(&state())),
    ];
    TestLayer::new(&Bnb4Bit, "proj", Value::Null, tensors)
}

fn with_state(change: impl FnOnce(&mut Value)) -> TestLayer {
    let mut state = state();
    change(&mut state);
    four().tensor(STATE, text(&state))
}

/// The same with scales that are quantized themselves: codes 1 and 2, each a half, of absmax 2, and
/// an offset of −0.5.
fn nested() -> TestLayer {
    let file = with_state(|state| {
        state["nested_blocksize"] = json!(256);
        state["nested_dtype"] = json!("float32");
        state["nested_offset"] = json!(-0.5);
    });
    let codes = (Dtype::U8, vec![2], vec![1, 2]);
    file.tensor("weight.absmax", codes)
        .tensor("weight.nested_absmax", floats(&[1], |_| 2.0))
        .tensor(
            "weight.nested_quant_map",
            floats(&[256], |i| i as f32 / 2.0),
        )
}

/// 2 outputs, 3 inputs.
fn eight() -> TestLayer {
    let codes = (Dtype::I8, vec![2, 3], vec![127, 0, 0x81, 1, 2, 3]);
    let tensors = [
        ("weight", codes),
        ("SCB", floats(&[2], |i| 127.0 * (i as f32 + 1.0))),
        ("weight_format", (Dtype::U8, vec![], vec![0])),
    ];
    TestLayer::new(&Bnb8Bit, "proj", Value::Null, tensors)
}

#[test]
fn the_files_that_the_others_are_made_of_are_read() {
    assert_eq!(four().weight(), [[1.5; 32], [3.0; 32]].concat());
    assert_eq!(nested().weight(), [[1.5; 32], [4.5; 32]].concat());
    let weight = eight().weight();
    let expected = [127.0, 0.0, -127.0, 2.0, 4.0, 6.0];
    for (found, expected) in weight.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-4, "{weight:?}");
    }
}

#[test]
fn missing_tensors_are_named() {
    for name in ["weight", "weight.absmax", "weight.quant_map"] {
        let missing = format!("`proj.{name}` is missing");
        four().without(&[name]).fails(&[&missing]);
    }
    four()
        .without(&[STATE])
        .fails(&["proj", "weight.quant_state.bitsandbytes__", "missing"]);
    for name in ["weight.nested_absmax", "weight.nested_quant_map"] {
        let missing = format!("`proj.{name}` is missing");
        nested().without(&[name]).fails(&[&missing]);
    }
    eight()
        .without(&["weight"])
        .fails(&["`proj.weight` is missing"]);
    assert!(!eight().without(&["SCB"]).claimed());
}

#[test]
fn states_that_make_no_sense_are_refused() {
    let state = |key: &str, value: Value| with_state(|state| state[key] = value);
    state("quant_type", json!("fp4")).fails(&[STATE, "`nf4` in the name, `fp4` inside"]);
    state("quant_type", json!(4)).fails(&[STATE, "JSON"]);
    state("blocksize", json!(0)).fails(&[STATE, "positive blocksize"]);
    state("blocksize", json!(-1)).fails(&[STATE, "JSON"]);
    state("dtype", json!("int8")).fails(&[STATE, "float16"]);
    state("shape", json!([64])).fails(&["`proj`", "a matrix", "[64]"]);
    state("shape", json!([4, 17])).fails(&["`proj` (bnb-4bit)", "codes", "34", "32"]);
    state("shape", json!([0, 16])).fails(&["`proj`", "impossible shape"]);
    let huge = json!([u64::MAX, 2]);
    state("shape", huge).fails(&["`proj`", "impossible shape"]);
    state("blocksize", json!(16)).fails(&["`proj`", "scales", "4", "2"]);
    let broken = (Dtype::U8, vec![3], b"{x}".to_vec());
    four().tensor(STATE, broken).fails(&[STATE, "JSON"]);
    // A file without a shape needs the model's.
    let silent = state("shape", Value::Null);
    silent.fails(&["`proj`", "no shape"]);
    assert_eq!(silent.expecting([4, 16]).weight(), four().weight());
    let error = four().expecting([16, 4]).load().unwrap_err().to_string();
    assert!(
        error.contains("[4, 16]") && error.contains("[16, 4]"),
        "{error}"
    );
}

#[test]
fn nested_scales_need_all_of_their_parts() {
    for key in ["nested_blocksize", "nested_offset"] {
        let file = nested();
        let mut state: Value = serde_json::from_slice(&file.get(STATE).2).unwrap();
        state[key] = Value::Null;
        file.tensor(STATE, text(&state)).fails(&["`proj`", key]);
        state[key] = json!(0);
        let zero = file.tensor(STATE, text(&state));
        match key {
            "nested_blocksize" => zero.fails(&["`proj`", key]),
            _ => assert_eq!(zero.weight(), [[3.0; 32], [6.0; 32]].concat()),
        }
    }
    nested()
        .tensor("weight.nested_absmax", floats(&[2], |_| 1.0))
        .fails(&["proj.weight.nested_absmax", "[1]", "[2]"]);
    nested()
        .tensor("weight.nested_quant_map", floats(&[16], |_| 1.0))
        .fails(&["proj.weight.nested_quant_map", "256 values", "16"]);
    nested()
        .tensor("weight.nested_absmax", floats(&[1], |_| f32::NAN))
        .fails(&["proj.weight.nested_absmax", "finite"]);
    nested()
        .tensor("weight.nested_absmax", floats(&[1], |_| 3e38))
        .fails(&["`proj`", "infinite"]);
}

#[test]
fn wrong_tensors_are_named() {
    let cases: [(&str, TestTensor, &[&str]); 7] = [
        ("weight", floats(&[3], |_| 0.0), &["codes", "32", "12"]),
        ("weight", (Dtype::I64, vec![4], vec![0; 32]), &["U8", "I64"]),
        (
            "weight.absmax",
            floats(&[3], |_| 1.0),
            &["scales", "2", "3"],
        ),
        ("weight.absmax", floats(&[2], |_| f32::NAN), &["finite"]),
        (
            "weight.quant_map",
            floats(&[15], |_| 1.0),
            &["16 values", "15"],
        ),
        (
            "weight.quant_map",
            floats(&[16], |_| f32::INFINITY),
            &["finite"],
        ),
        ("bias", floats(&[5], |_| 0.0), &["[4]", "[5]"]),
    ];
    for (name, tensor, parts) in cases {
        let file = four().tensor(name, tensor);
        file.fails(&["proj"]);
        file.fails(parts);
    }
    let cases: [(&str, TestTensor, &[&str]); 6] = [
        ("weight", bytes(&[2, 3], 0), &["I8", "U8"]),
        (
            "weight",
            (Dtype::I8, vec![6], vec![0; 6]),
            &["a matrix", "[6]"],
        ),
        (
            "weight",
            (Dtype::I8, vec![0, 3], vec![]),
            &["a matrix", "[0, 3]"],
        ),
        ("SCB", floats(&[3], |_| 1.0), &["[2]", "[3]"]),
        ("SCB", floats(&[2], |_| f32::NAN), &["finite"]),
        (
            "weight_format",
            (Dtype::U8, vec![], vec![2]),
            &["row-major", "2"],
        ),
    ];
    for (name, tensor, parts) in cases {
        let file = eight().tensor(name, tensor);
        file.fails(&["proj"]);
        file.fails(parts);
    }
}

#[test]
fn weights_that_overflow_are_refused() {
    let large = |value: f32| four().tensor("weight.absmax", floats(&[2], |_| value));
    assert_eq!(large(1e38).weight(), [3e38; 64]);
    large(2e38).fails(&["`proj`", "infinite"]);
    eight()
        .tensor("SCB", floats(&[2], |_| 3e38))
        .fails(&["`proj`", "infinite"]);
    // What a reader computes with is finite, but not what dequantization rounds it to.
    let half = with_state(|state| state["dtype"] = json!("float16"));
    let half = half.tensor("weight.absmax", floats(&[2], |_| 3e4));
    assert_eq!(half.weight(), [9e4; 64]);
    let error = half.load_for(Purpose::Dequantize).unwrap_err().to_string();
    assert!(
        error.contains("`proj`") && error.contains("infinite"),
        "{error}"
    );
}

#[test]
fn thresholds_are_numbers_where_inputs_are_quantized() {
    let file = eight().options(&["bnb-8bit.int8_activations=true"]);
    let input = |file: &TestLayer| {
        let mut x = [1.0, 0.5, 7.0];
        let quantizer = file.load().unwrap().input_quantizer.unwrap();
        quantizer.quantize(&mut x, 3);
        x
    };
    // 7 is an outlier.
    assert_eq!(input(&file)[2], 7.0);
    let none = file.config(json!({"llm_int8_threshold": 0.0}));
    assert_ne!(input(&none)[1], 0.5);
    for wrong in [json!(-1), json!("x"), json!([])] {
        let config = json!({ "llm_int8_threshold": wrong });
        let file = file.config(config.clone());
        file.fails(&["quantization_config", "llm_int8_threshold"]);
        // Nobody asks for it otherwise.
        assert_eq!(eight().config(config).weight(), eight().weight());
    }
    assert!(eight().load().unwrap().input_quantizer.is_none());
}

#[test]
fn weights_that_do_not_fit_are_not_written() {
    let weight =
        |shape: [usize; 2], value: f32| Matrix::new(vec![value; shape[0] * shape[1]], shape);
    for (file, name, shape) in [(four(), "bnb-4bit", [4, 16]), (eight(), "bnb-8bit", [2, 3])] {
        let wrong = file
            .requantize(&weight([5, 5], 1.0))
            .unwrap_err()
            .to_string();
        assert!(wrong.contains(&format!("`proj` ({name})")), "{wrong}");
        assert!(wrong.contains("[5, 5]"), "{wrong}");
        let written = file.requantize(&weight(shape, 1.0)).unwrap();
        assert!(!written.is_empty());
    }
    let error = eight().requantize(&weight([2, 3], 1e6)).unwrap_err();
    assert!(error.to_string().contains("float16"), "{error}");
}

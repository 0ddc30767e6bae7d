//! Files that are damaged or of an unsupported kind, and unusual ones that are neither.

use qoft_conformance::{TestLayer, TestTensor};
use qoft_hqq::Hqq;
use qoft_scheme::{Checkpoint, Dtype};
use serde_json::{Value, json};

fn floats(shape: &[usize], value: f32) -> TestTensor {
    let bytes = value.to_le_bytes().repeat(shape.iter().product());
    (Dtype::F32, shape.to_vec(), bytes)
}

fn int(value: i32) -> TestTensor {
    (Dtype::I32, vec![], value.to_le_bytes().to_vec())
}

fn flag(value: u8) -> TestTensor {
    (Dtype::U8, vec![], vec![value])
}

fn text(value: &str) -> TestTensor {
    (Dtype::U8, vec![value.len()], value.as_bytes().to_vec())
}

fn shape(n: i64, k: i64) -> TestTensor {
    let bytes = [n, k].into_iter().flat_map(i64::to_le_bytes);
    (Dtype::I64, vec![2], bytes.collect())
}

/// 4 outputs, 8 inputs, 4 bits in groups of 4: all codes are 9, zero points 8 and scales 0.5.
fn good() -> TestLayer {
    let tensors = [
        ("W_q", (Dtype::U8, vec![4, 4], vec![0x99; 16])),
        ("scale", floats(&[8, 1], 0.5)),
        ("zero", floats(&[8, 1], 8.0)),
        ("shape", shape(4, 8)),
        ("nbits", int(4)),
        ("group_size", int(4)),
        ("axis", int(1)),
        ("packing", text("4bit_u8")),
        ("unpack_view_dtype", text("torch.uint8")),
        ("compute_dtype", text("torch.float32")),
        ("view_as_float", flag(0)),
        ("quant_scale", flag(0)),
        ("quant_zero", flag(0)),
        ("channel_wise", flag(1)),
    ];
    // hqq writes no word about it into config.json.
    TestLayer::new(&Hqq, "proj", Value::Null, tensors)
}

/// All weights, which must be equal.
#[test]
fn the_file_that_the_others_are_made_of_is_read() {
    assert_eq!(good().value(), 0.5);
}

#[test]
fn older_files_say_less() {
    let optional = [
        "unpack_view_dtype",
        "compute_dtype",
        "view_as_float",
        "quant_scale",
        "quant_zero",
        "channel_wise",
    ];
    assert_eq!(good().without(&optional).value(), 0.5);
}

#[test]
fn codes_without_settings_are_refused() {
    for name in ["shape", "nbits", "group_size", "axis", "packing"] {
        let without = format!("without the setting `{name}`");
        good().without(&[name]).fails(&["proj", "hqq", &without]);
    }
    for name in ["W_q", "scale", "zero"] {
        let missing = format!("`proj.{name}` is missing");
        good().without(&[name]).fails(&[&missing]);
    }
}

#[test]
fn quantized_scales_and_zero_points_are_refused() {
    for name in ["quant_scale", "quant_zero"] {
        let file = good().tensor(name, flag(1));
        file.fails(&["proj", name, "quantized themselves are not supported"]);
    }
    for name in [
        "scale_q",
        "zero_q",
        "zero_scale",
        "meta_zero.scale",
        "meta.zero_q",
    ] {
        let file = good().without(&["scale", "zero"]);
        file.tensor(name, floats(&[1], 1.0))
            .fails(&["proj", name, "not supported"]);
    }
    let whole = good().tensor("channel_wise", flag(0));
    whole.fails(&["proj", "channel_wise", "not supported"]);
}

#[test]
fn impossible_settings_are_named() {
    let file = good();
    let cases: [(&'static str, TestTensor, &[&str]); 16] = [
        ("nbits", int(7), &["1.58", "7"]),
        ("nbits", int(8), &["8bit_u8", "4bit_u8"]),
        ("nbits", floats(&[], f32::NAN), &["1.58", "NaN"]),
        ("nbits", text("4bit"), &["a single number", "[4]"]),
        ("group_size", int(0), &["found 0"]),
        ("group_size", int(-4), &["found -4"]),
        ("axis", int(2), &["axis 0 or 1", "2"]),
        ("axis", (Dtype::F16, vec![], vec![0; 2]), &["I32", "F16"]),
        ("packing", text("5bit_u8"), &["3bit_32", "`5bit_u8`"]),
        ("packing", text("\u{1b}"), &["`\\u{1b}`"]),
        ("packing", int(4), &["U8", "I32"]),
        ("unpack_view_dtype", text("torch.int32"), &["torch.uint8"]),
        (
            "compute_dtype",
            text("exit()"),
            &["torch.float16", "`exit()`"],
        ),
        ("view_as_float", flag(2), &["0 or 1", "2"]),
        ("shape", shape(-4, -8), &["[-4, -8]"]),
        ("shape", shape(0, 8), &["[0, 8]"]),
    ];
    for (name, tensor, parts) in cases {
        let file = file.tensor(name, tensor);
        file.fails(&[&format!("`proj.{name}`")]);
        file.fails(parts);
    }
}

#[test]
fn sizes_must_fit() {
    let file = good();
    let size = |n| file.tensor("group_size", int(n));
    size(5).fails(&["proj", "groups of 5", "[4, 8]"]);
    size(8).fails(&["`proj.scale`", "[4, 1]", "[8, 1]"]);
    let huge = file.tensor("shape", shape(i64::MAX, i64::MAX));
    huge.fails(&["proj", "groups of 4 do not divide"]);
    file.tensor("shape", shape(8, 8))
        .fails(&["`proj.scale`", "[16, 1]"]);
    file.tensor("axis", int(0))
        .fails(&["`proj.scale`", "[1, 8]"]);
    let zero = (Dtype::F16, vec![8, 1], vec![0; 16]);
    file.tensor("zero", zero)
        .fails(&["`proj.zero`", "F32", "F16"]);
    let codes = (Dtype::U8, vec![16], vec![0; 16]);
    file.tensor("W_q", codes)
        .fails(&["`proj.W_q`", "[4, 4]", "[16]"]);
    let bias = floats(&[5], 0.0);
    file.tensor("bias", bias)
        .fails(&["`proj.bias`", "[4]", "[5]"]);
    // Three groups cannot be packed by two.
    let odd = file.tensor("shape", shape(3, 4));
    let odd = odd.tensor("scale", floats(&[3, 1], 0.5));
    let odd = odd.tensor("zero", floats(&[3, 1], 8.0));
    odd.fails(&["`proj.W_q`", "3 codes, 2 in a word"]);
    let error = file.expecting([8, 4]).load().unwrap_err();
    let text = error.to_string();
    assert!(text.contains("[4, 8]") && text.contains("[8, 4]"), "{text}");
}

#[test]
fn floats_hold_codes_only_where_the_settings_say_so() {
    let viewed = (Dtype::F32, vec![4, 1], vec![0x99; 16]);
    let file = good().tensor("W_q", viewed);
    file.fails(&["`proj.W_q`", "U8", "F32"]);
    let file = file.tensor("view_as_float", flag(1));
    assert_eq!(file.value(), 0.5);
    // Rows of three bytes are no floats.
    let file = file.tensor("shape", shape(2, 3));
    let file = file.tensor("group_size", int(3));
    let file = file.tensor("scale", floats(&[2, 1], 0.5));
    let file = file.tensor("zero", floats(&[2, 1], 8.0));
    file.fails(&["`proj.W_q`", "rows of 3 words of U8", "F32"]);
}

#[test]
fn weights_that_are_not_finite_are_refused() {
    let file = good();
    for name in ["scale", "zero"] {
        let nan = floats(&[8, 1], f32::NAN);
        file.tensor(name, nan).fails(&[name, "finite"]);
    }
    // A scale that some codes could not be multiplied with, and one that these cannot be.
    let large = floats(&[8, 1], 1e38);
    assert_eq!(file.tensor("scale", large.clone()).value(), 1e38);
    let file = file
        .tensor("scale", large)
        .tensor("zero", floats(&[8, 1], 0.0));
    file.fails(&["proj", "infinite"]);
}

#[test]
fn a_pickle_is_refused_with_what_to_do() {
    let fixture = qoft_fixtures::path("schemes/hqq/qmodel_pt");
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "qmodel.pt"] {
        std::fs::copy(fixture.join(name), folder.path().join(name)).unwrap();
    }
    let error = Checkpoint::open(folder.path()).unwrap_err();
    let text = error.to_string();
    for part in ["qmodel.pt", "pickle", "save_to_safetensors"] {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

#[test]
fn codes_of_this_name_may_be_another_methods() {
    assert!(!good().config(json!({"quant_method": "sinq"})).claimed());
    assert!(good().config(json!({"quant_method": "hqq"})).claimed());
}

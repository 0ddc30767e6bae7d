//! Dense copies: which values they have, and what else is in them.

use std::path::Path;

use serde_json::Value;
use tempfile::tempdir;

use crate::common::file::TensorFile;
use crate::common::{arg, fixture, good, loss};

/// bitsandbytes rounds 4-bit weights to the dtype that they had before, also for a copy in float32.
#[test]
fn what_the_library_of_a_scheme_rounds_is_said_and_can_be_left_unrounded() {
    let (work, model) = (
        tempdir().expect("a folder"),
        fixture("models/llama_fp4_bf16"),
    );
    let copy = |name: &str, more: &[&str]| {
        let out = work.path().join(name);
        let args = ["dequantize", &model, "--json", "--output", arg(&out)];
        let run = good(&[&args[..], more].concat());
        let report: Value = serde_json::from_str(&run.stdout).expect("JSON");
        let rounded = report["rounded"].as_u64().expect("a number");
        (out, rounded, run.stderr)
    };
    let is_bf16 = |folder: &Path| {
        let file = TensorFile::open(&folder.join("model.safetensors"));
        let mut all = false;
        file.change("layers.0.mlp.up_proj.weight", |tensor| {
            let numbers = tensor.data.as_chunks::<4>().0;
            all = numbers.iter().all(|number| number[..2] == [0, 0]);
        });
        all
    };
    let (rounded, layers, says) = copy("rounded", &[]);
    assert_eq!((layers, is_bf16(&rounded)), (14, true));
    assert!(says.contains("written dense in float32"), "{says}");
    assert!(
        says.contains("14 layers are rounded") && says.contains("--unrounded"),
        "{says}"
    );
    let (exact, layers, says) = copy("exact", &["--unrounded"]);
    assert_eq!((layers, is_bf16(&exact)), (0, false));
    assert!(!says.contains("warning"), "{says}");
    let rows = fixture("train/nf4_all_linear/rows.jsonl");
    let [packed, rounded, exact] =
        [&model, arg(&rounded), arg(&exact)].map(|model| loss(model, &rows, &[]));
    assert!((packed - exact).abs() < 1e-6, "{packed} {exact}");
    assert!((packed - rounded).abs() > 1e-5, "{packed} {rounded}");
    // In that dtype itself nothing is lost.
    let (_, layers, says) = copy("bf16", &["--dtype=bf16"]);
    assert_eq!(layers, 0);
    assert!(
        says.contains("in bfloat16") && !says.contains("warning"),
        "{says}"
    );
}

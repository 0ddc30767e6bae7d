//! A build with GPTQ alone: it works, and says of other checkpoints which feature is missing.
#![cfg(all(feature = "gptq", not(feature = "all-schemes")))]

use std::process::{Command, Output};

fn inspect(fixture: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_qoft"))
        .arg("inspect")
        .arg(qoft_fixtures::path(fixture))
        .output()
        .unwrap()
}

#[test]
fn its_own_checkpoints_are_read() {
    let output = inspect("schemes/gptq/int4_desc_act");
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("gptq"));
}

#[test]
fn the_feature_for_another_checkpoint_is_named() {
    for (fixture, feature) in [
        ("schemes/awq/autoawq_gemm", "awq"),
        ("schemes/hqq/int4_axis1_g64", "hqq"),
        ("schemes/inc-fp8/qdq_tensor", "inc-fp8"),
        ("schemes/fp8/block32", "fp8"),
        ("schemes/compressed-tensors/w4a16", "compressed-tensors"),
        ("schemes/mlx/affine_f16", "mlx"),
        ("schemes/modelopt/nvfp4", "modelopt"),
        ("schemes/mxfp4/floor", "mxfp4"),
        ("schemes/torchao/int8", "torchao"),
        ("models/llama_nf4", "bnb"),
        ("gguf/llama.gguf", "gguf"),
    ] {
        let output = inspect(fixture);
        assert_eq!(output.status.code(), Some(1), "{fixture}");
        let text = String::from_utf8_lossy(&output.stderr);
        let help = format!("lacks the scheme `{feature}`");
        assert!(text.contains(&help), "{fixture}: {text}");
    }
}

#[test]
fn the_feature_for_what_is_asked_for_is_named() {
    let work = tempfile::tempdir().unwrap();
    let model = qoft_fixtures::path("models/llama");
    let (model, out) = (model.to_str().unwrap(), work.path().join("out"));
    let out = out.to_str().unwrap();
    let rows = work.path().join("rows.jsonl");
    std::fs::write(&rows, "{\"input_ids\": [6, 7, 8]}\n").unwrap();
    let rows = rows.to_str().unwrap();
    let load = ["eval", "--model", model, "--data", rows, "--load-in-4bit"];
    for args in [&load[..], &["quickstart", "--output", out]] {
        let output = Command::new(env!("CARGO_BIN_EXE_qoft"))
            .args(args)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("lacks the scheme `bnb`"), "{args:?}: {text}");
    }
    assert_eq!(std::fs::read_dir(work.path()).unwrap().count(), 1);
}

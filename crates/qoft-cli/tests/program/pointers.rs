//! Files of trainings in whose place Git LFS left pointers.

use std::fs;

use tempfile::tempdir;

use crate::common::file::refused;
use crate::common::{arg, fixture, good};

const MODEL: &str = "models/llama_nf4";
const ROWS: &str = "train/nf4_all_linear/rows.jsonl";

#[test]
fn what_is_a_pointer_is_said_to_be_one() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n";
    let (model, rows, work) = (fixture(MODEL), fixture(ROWS), tempdir().expect("a folder"));
    let [below, run] = ["below", "run"].map(|name| work.path().join(name));
    let train = ["train", "--model", &model, "--data", &rows];
    let steps = ["--batch-size=2", "--max-steps=2", "--save-steps=1"];
    good(&[&train[..], &steps, &["--output", arg(&below)]].concat());
    let on_top = ["--adapter", arg(&below), "--output", arg(&run)];
    good(&[&train[..], &steps, &on_top].concat());
    let eval = ["eval", "--model", &model, "--data", &rows];
    let eval = [&eval[..], &["--adapter", arg(&run)]].concat();
    let checkpoint = run.join("checkpoint-1");
    let out = work.path().join("out");
    let resume = ["--resume-from", arg(&checkpoint), "--output", arg(&out)];
    let resume = [&train[..], &steps, &resume, &on_top[..2]].concat();
    let alone = ["train", "--resume-from", arg(&run)];
    let config = work.path().join("run").join("training_args.json");
    let config = ["train", "--config", arg(&config)];
    for (name, args) in [
        ("adapters_below.json", &eval[..]),
        ("checkpoint-1/trainer_state.json", &resume),
        ("checkpoint-1/optimizer.bin", &resume),
        ("checkpoint-1/adapter_model.safetensors", &resume),
        ("training_args.json", &alone),
        ("training_args.json", &config),
    ] {
        let file = run.join(name);
        let before = fs::read(&file).expect("a file");
        fs::write(&file, pointer).expect("a written file");
        refused(args, work.path(), "a pointer of Git LFS");
        fs::write(&file, before).expect("a written file");
    }
}

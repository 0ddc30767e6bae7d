//! What people try who come from other programs: it works, or a message says what does.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::common::{arg, copy_fixture, fixture, good, names, qoft};
use crate::resume::{Training, weights};

/// Standard error of a command that is refused.
#[track_caller]
fn refused(args: &[&str]) -> String {
    let run = qoft(args);
    assert!(matches!(run.code, Some(1 | 2)), "{args:?}: {}", run.stderr);
    run.stderr
}

/// The folders of checkpoints in the folder of a run.
fn checkpoints(folder: &Path) -> Vec<String> {
    let names = names(folder).into_iter();
    names.filter(|n| n.starts_with("checkpoint")).collect()
}

#[test]
fn a_run_takes_the_place_of_another_one_if_it_is_told_to() {
    let training = Training::new();
    let (out, other) = (training.folder("out"), training.folder("other"));
    training.good(&out, &["--report-to=csv"]);
    fs::write(out.join("mine"), "text").expect("a file");
    let seed = ["--seed=7", "--max-steps=3", "--save-steps=2"];
    let says = training.bad(&out, &seed);
    assert!(says.contains("--overwrite-output-dir"), "{says}");

    // What would be missed by the new run is not removed, nor anything for a run that cannot begin.
    let overwrite = [&seed[..], &["--overwrite_output_dir"]].concat();
    let before = weights(&out);
    let start = format!("--start-from={}", arg(&out));
    let says = training.bad(&out, &[&overwrite[..], &[&start]].concat());
    assert!(says.contains("which this run begins with"), "{says}");
    let says = training.bad(
        &out,
        &[&overwrite[..], &["--eval-data=none.jsonl"]].concat(),
    );
    assert!(says.contains("none.jsonl"), "{says}");
    assert_eq!(weights(&out), before);

    let says = training.good(&out, &overwrite);
    assert!(says.contains("is removed when this one begins"), "{says}");
    training.good(&other, &seed);
    assert_eq!(weights(&out), weights(&other));
    assert_eq!(checkpoints(&out), ["checkpoint-2"]);
    let lines = |folder: &Path| fs::read_to_string(folder.join("log.jsonl")).expect("a log");
    assert_eq!(lines(&out).lines().count(), lines(&other).lines().count());
    assert!(out.join("mine").exists() && !out.join("log.csv").exists());
    let saved = fs::read_to_string(out.join("training_args.json")).expect("options");
    assert!(!saved.contains("overwrite"), "{saved}");
    // A run that is told to go on does so.
    let says = training.good(
        &out,
        &[
            "--seed=7",
            "--max-steps=4",
            "--save-steps=2",
            "--resume-from=last",
            "--overwrite-output-dir",
        ],
    );
    assert!(says.contains("going on after step 2 of 4"), "{says}");

    let stranger = training.folder("stranger");
    fs::create_dir(&stranger).expect("a folder");
    fs::write(stranger.join("mine"), "text").expect("a file");
    let says = training.bad(&stranger, &["--overwrite-output-dir"]);
    assert!(says.contains("has nothing of a run"), "{says}");
    assert_eq!(names(&stranger), ["mine"]);
}

#[test]
fn steps_may_be_shares_of_the_run() {
    let training = Training::new();
    let (out, twin) = (training.folder("out"), training.folder("twin"));
    let data = format!("--eval-data={}", arg(&training.data));
    let config = training.folder("run.yaml");
    fs::write(&config, "warmup_steps: 0.25\neval_steps: 0.5\n").expect("a file");
    let config = format!("--config={}", arg(&config));
    let shares = ["--save-steps=0.3", "--logging_steps=0.5", &data, &config];
    let says = training.good(&out, &shares);
    // 8 steps: 2.4 are three.
    assert_eq!(checkpoints(&out), ["checkpoint-3", "checkpoint-6"]);
    let told: Vec<&str> = says
        .lines()
        .filter(|line| line.starts_with("step "))
        .collect();
    let steps = told.iter().filter(|line| line.contains("learning rate"));
    let steps: Vec<&str> = steps.filter_map(|line| line.split(' ').nth(1)).collect();
    assert_eq!(steps, ["1/8", "4/8", "8/8"], "{says}");
    let evaluations = told.iter().filter(|line| line.contains("evaluation"));
    assert_eq!(evaluations.count(), 3, "{says}");
    let numbers = [
        "--save-steps=3",
        "--warmup-steps=2",
        &data,
        "--eval-steps=4",
    ];
    training.good(&twin, &numbers);
    assert_eq!(weights(&out), weights(&twin));
    let saved = fs::read_to_string(out.join("training_args.json")).expect("options");
    let saved: Value = serde_json::from_str(&saved).expect("JSON");
    assert_eq!(
        (&saved["save_steps"], &saved["eval_steps"]),
        (&0.3.into(), &0.5.into())
    );
    for wrong in ["--save-steps=1.5", "--save-steps=-1", "--logging-steps=x"] {
        let says = refused(&training.args(&training.folder("no"), &[wrong]));
        assert!(
            says.contains("a number of steps, or a share"),
            "{wrong}: {says}"
        );
    }
}

#[test]
fn several_data_files_are_one_option_and_their_shares_are_told() {
    let training = Training::new();
    let (out, many) = (training.folder("out"), training.folder("many.jsonl"));
    let rows = fs::read_to_string(&training.data).expect("rows");
    let few: String = rows.lines().take(2).map(|row| format!("{row}\n")).collect();
    let few_file = training.folder("few.jsonl");
    fs::write(&few_file, few).expect("a file");
    fs::write(&many, &rows).expect("a file");
    let args = training.args(&out, &["--max-steps=1"]);
    let at = args
        .iter()
        .position(|arg| *arg == "--data")
        .expect("the data")
        + 1;
    let mut plain = args.clone();
    plain.insert(at + 1, arg(&many));
    let run = good(&plain);
    assert!(run.stderr.contains("many.jsonl: "), "{}", run.stderr);

    let (one, two) = (format!("{}:1", arg(&few_file)), format!("{}:3", arg(&many)));
    let mut weighted = training.args(&out, &["--max-steps=1", "--overwrite-output-dir"]);
    weighted.splice(at..=at, [one.as_str(), two.as_str()]);
    let says = good(&weighted).stderr;
    assert!(
        says.contains("few.jsonl: 2 of its 2 rows are taken"),
        "{says}"
    );
    assert!(
        says.contains("many.jsonl: 6 of its 16 rows are taken"),
        "{says}"
    );
}

#[test]
fn values_are_refused_in_plain_words() {
    let training = Training::new();
    let config = training.folder("run.yaml");
    let with = format!("--config={}", arg(&config));
    for (line, says) in [
        (
            "learning_rate: fast",
            "--learning-rate fast: expected a number, found \"fast\"",
        ),
        (
            "batch_size: 1.5",
            "expected a whole number of 0 or more, found 1.5",
        ),
        ("packing: 3", "expected true or false, found 3"),
        ("optim: adamw_9bit", "it may be adamw"),
        ("optim: adafactor", "sgd keeps nothing"),
        (
            "save_steps: often",
            "expected a number of steps, or a share of the run below 1",
        ),
    ] {
        fs::write(&config, format!("{line}\n")).expect("a file");
        // Flags would go before the file.
        let model = fixture("models/llama_nf4");
        let out = training.folder("no");
        let data = arg(&training.data);
        let args = [
            "train",
            "--model",
            &model,
            "--data",
            data,
            "--output",
            arg(&out),
            &with,
        ];
        let error = refused(&args);
        assert!(error.contains(says), "{line}: {error}");
        assert!(
            !error.contains("invalid type") && !error.contains("variant"),
            "{error}"
        );
    }
    for (flag, says) in [
        ("--batch-size=x", "expected a whole number"),
        ("--learning-rate=fast", "expected a number"),
        ("--target-modules=all", "`all-linear`"),
        ("--max-samples=0", "a whole number of 1 or more"),
    ] {
        let error = refused(&training.args(&training.folder("no"), &[flag]));
        assert!(error.contains(says), "{flag}: {error}");
    }
    let stage = ["--stage=dpo", "--loss-type=[\"foo\"]"];
    let error = refused(&training.args(&training.folder("no"), &stage));
    assert!(error.contains("it may be sigmoid, hinge"), "{error}");
    // Names of bitsandbytes mean the same numbers here.
    let (out, twin) = (training.folder("out"), training.folder("twin"));
    let says = training.good(&out, &["--optim=paged_adamw_8bit"]);
    assert!(
        says.contains("it is adamw with all averages in float32"),
        "{says}"
    );
    training.good(&twin, &[]);
    assert_eq!(weights(&out), weights(&twin));
}

#[test]
fn adapters_of_other_models_are_told_with_both_models() {
    let training = Training::new();
    let (out, model) = (training.folder("out"), fixture("models/llama_nf4"));
    training.good(&out, &["--max-steps=1"]);
    let work = tempfile::tempdir().expect("a folder");
    let adapter = copy_fixture("adapters/all_linear", work.path(), "adapter");
    let base = "somebody/else";
    crate::common::file::edit_json(&adapter.join("adapter_config.json"), |config| {
        config["base_model_name_or_path"] = base.into();
    });
    // Its tensors are those of blocks of another size.
    crate::common::file::edit_json(&adapter.join("adapter_config.json"), |config| {
        config["oft_block_size"] = 16.into();
    });
    let both = format!("was made for the model {base}, and here the model is {model}");
    let data = arg(&training.data);
    let error = refused(&[
        "eval",
        "--model",
        &model,
        "--data",
        data,
        "--adapter",
        arg(&adapter),
    ]);
    assert!(
        error.contains(&both) && error.contains("expected shape"),
        "{error}"
    );
    let start = format!("--start-from={}", arg(&adapter));
    let again = training.folder("again");
    let error = training.bad(&again, &[&start]);
    assert!(error.contains(&both), "{error}");
    // Other options than those of the adapter.
    let start = format!("--start-from={}", arg(&out));
    let error = training.bad(&again, &[&start, "--oft-block-size=16"]);
    assert!(
        error.contains("cannot begin with the weights of"),
        "{error}"
    );
    assert!(error.contains("leave out --target-modules"), "{error}");
}

#[test]
fn questions_of_others_are_measured_and_named() {
    let work = tempfile::tempdir().expect("a folder");
    let file = work.path().join("hellaswag.jsonl");
    let row = r#"{"ind": 1, "ctx_a": "In the evening", "ctx_b": "he", "ctx": "In the evening he", "endings": ["sat down.", "zxq zxq"], "label": "0"}"#;
    fs::write(&file, row).expect("a file");
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("quickstart");
    let measured = good(&[
        "eval",
        "--model",
        arg(&model),
        "--data",
        arg(&file),
        "--json",
    ]);
    let measured: Value = serde_json::from_str(&measured.stdout).expect("JSON");
    assert_eq!(measured["accuracy"], 1.0);
    let out = work.path().join("out");
    let args = [
        "train",
        "--model",
        arg(&model),
        "--data",
        arg(&file),
        "--output",
        arg(&out),
    ];
    let error = refused(&args);
    assert!(error.contains("`qoft eval` has the accuracy"), "{error}");
}

#[test]
fn pictures_are_svg_and_all_tokens_may_be_drawn() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("quickstart");
    let data = fixture("train/nf4_all_linear/rows.jsonl");
    for command in [&["lr-find"][..], &["data", "preview"]] {
        let args = [
            command,
            &["--model", arg(&model), "--data", &data, "--plot", "x.png"],
        ]
        .concat();
        let error = refused(&args);
        assert!(error.contains("call it x.svg"), "{error}");
    }
    let drawn = |top_k: &str| {
        let args = [
            "generate",
            "--model",
            arg(&model),
            "--prompt",
            "She",
            "--do-sample",
            "--seed=3",
        ];
        good(&[&args[..], &["--max-new-tokens=8", "--top-k", top_k]].concat()).stdout
    };
    assert_eq!(drawn("-1"), drawn("0"));
    assert_ne!(drawn("1"), drawn("0"));
    let args = [
        "generate",
        "--model",
        arg(&model),
        "--prompt",
        "x",
        "--top-k",
        "-2",
    ];
    let error = refused(&args);
    assert!(error.contains("-2 is not in -1.."), "{error}");
}

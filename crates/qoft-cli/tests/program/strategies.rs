//! When runs evaluate, save and end, and by which optimizer.

use std::fs;

use crate::common::{arg, names, qoft};
use crate::resume::{Training, weights};
use serde_json::Value;

/// Steps of the evaluations in a log, and their losses.
fn evaluations(folder: &std::path::Path) -> Vec<(u64, f64)> {
    let log = fs::read_to_string(folder.join("log.jsonl")).expect("a log");
    let rows = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    rows.filter_map(|row| Some((row["step"].as_u64()?, row["eval_loss"].as_f64()?)))
        .collect()
}

#[test]
fn runs_evaluate_and_save_by_epochs_and_keep_so_many_checkpoints() {
    let training = Training::new();
    let out = training.folder("out");
    // 16 rows: 4 steps an epoch.
    let data = format!("--eval-data={}", arg(&training.data));
    training.good(
        &out,
        &[
            &data,
            "--gradient-accumulation-steps=2",
            "--max-steps=14",
            "--eval-strategy=epoch",
            "--save-strategy=epoch",
            "--save-total-limit=2",
            "--eval-batch-size=3",
        ],
    );
    let steps: Vec<u64> = evaluations(&out).iter().map(|(step, _)| *step).collect();
    assert_eq!(steps, [0, 4, 8, 12, 14]);
    let checkpoints: Vec<String> = names(&out)
        .into_iter()
        .filter(|n| n.contains("checkpoint"))
        .collect();
    assert_eq!(checkpoints, ["checkpoint-12", "checkpoint-14"]);
}

#[test]
fn the_best_adapter_is_the_result_and_a_run_ends_when_none_is_better() {
    let training = Training::new();
    let (out, plain) = (training.folder("out"), training.folder("plain"));
    let data = format!("--eval-data={}", arg(&training.data));
    // So high a rate that the loss rises.
    let diverging = [
        "--learning-rate=0.3",
        "--lr-scheduler=constant",
        "--max-steps=30",
        &data,
    ];
    let best = [
        &diverging[..],
        &[
            "--eval-steps=1",
            "--save-strategy=no",
            "--save-total-limit=1",
            "--load-best-model-at-end",
            "--early-stopping-patience=2",
        ],
    ]
    .concat();
    let run = qoft(&[&training.args(&out, &best)[..], &["--json"]].concat());
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let json: Value = serde_json::from_str(&run.stdout).expect("JSON");
    let evaluations = evaluations(&out);
    let lowest = evaluations[1..]
        .iter()
        .min_by(|a, b| a.1.total_cmp(&b.1))
        .expect("an evaluation");
    let last = evaluations.last().expect("an evaluation").0;
    assert!(last < 30 && last == lowest.0 + 2, "{evaluations:?}");
    assert_eq!(json["stopped_early"], true);
    assert_eq!(json["best"], lowest.0);
    assert!(run.stderr.contains("stopped early"), "{}", run.stderr);
    let checkpoint = format!("checkpoint-{}", lowest.0);
    assert_eq!(weights(&out), weights(&out.join(&checkpoint)));
    assert!(names(&out).contains(&checkpoint));
    // What decides is in the checkpoints, too: a run that lost all but these ends the same.
    let result = weights(&out);
    for name in [
        "log.jsonl",
        "adapter_config.json",
        "adapter_model.safetensors",
    ] {
        fs::remove_file(out.join(name)).expect("a file");
    }
    let run = qoft(&training.args(&out, &best));
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let warnings = run.stderr.matches("warning").count();
    let unused = run.stderr.matches("--save-steps has no effect").count();
    assert_eq!((warnings, unused), (1, 1), "{}", run.stderr);
    assert_eq!(weights(&out), result);
    // It is the model that a run of so many steps gives.
    let steps = format!("--max-steps={}", lowest.0);
    let shorter = [&diverging[..2], &[&steps, "--save-strategy=no"]].concat();
    training.good(&plain, &shorter);
    assert_eq!(weights(&plain), weights(&out));
    assert!(!names(&plain).iter().any(|name| name.contains("checkpoint")));
}

#[test]
fn a_run_has_tables_and_event_files_if_they_are_asked_for() {
    let training = Training::new();
    let out = training.folder("out");
    training.good(&out, &["--report-to=tensorboard,csv"]);
    let table = fs::read_to_string(out.join("log.csv")).expect("a table");
    assert_eq!(table.lines().count(), 9);
    let [events] = &names(&out.join("runs"))[..] else {
        panic!("one file");
    };
    let events = fs::read(out.join("runs").join(events)).expect("a file");
    let tags = events.windows(10).filter(|tag| tag == b"train/loss");
    assert_eq!(tags.count(), 8);
    let page = fs::read_to_string(out.join("report.html")).expect("a page");
    assert_eq!(page.matches("<svg").count(), 5);
    assert!(page.contains("mean_token_accuracy"));
    assert!(page.contains("<td>learning_rate</td><td>0.01</td>"));
    let says = training.bad(&training.folder("other"), &["--report-to=wandb"]);
    assert!(says.contains("nothing is sent anywhere"), "{says}");
}

/// Modules that train whole have matrices.
#[test]
fn a_run_with_muon_goes_on() {
    let training = Training::of("models/qwen2", "train/qwen2_own_decay/rows.jsonl");
    let more = [
        "--lr-scheduler=constant",
        "--target-modules=q_proj",
        "--modules-to-save=down_proj",
        "--weight-decay=0.1",
    ];
    let with = |more: &[&'static str]| [&["--optimizer=muon"], more].concat();
    let [whole, parts, plain] = ["whole", "parts", "plain"].map(|name| training.folder(name));
    training.good(&whole, &with(&more));
    training.good(&parts, &with(&[&more[..], &["--max-steps=4"]].concat()));
    training.good(
        &parts,
        &with(&[&more[..], &["--resume-from=last"]].concat()),
    );
    assert!(weights(&parts) == weights(&whole));
    training.good(&plain, &more);
    assert!(weights(&plain) != weights(&whole));
}

#[test]
fn runs_of_every_optimizer_go_on() {
    let training = Training::new();
    let mut found = Vec::new();
    for optimizer in [
        "adamw",
        "adam",
        "sgd",
        "adan",
        "lion",
        "schedule_free_adamw",
    ] {
        let [whole, parts] =
            ["whole", "parts"].map(|n| training.folder(&format!("{optimizer}-{n}")));
        let flag = format!("--optimizer={optimizer}");
        let more = [&*flag, "--lr-scheduler=constant"];
        training.good(&whole, &more);
        let longer = [&more[..], &["--max-steps=4"]].concat();
        training.good(&parts, &longer);
        let resumed = [&more[..], &["--resume-from=last"]].concat();
        training.good(&parts, &resumed);
        assert!(weights(&parts) == weights(&whole), "{optimizer}");
        assert!(!found.contains(&weights(&whole)), "{optimizer}");
        found.push(weights(&whole));
    }
    let out = training.folder("out");
    let says = training.bad(&out, &["--optimizer=sgd", "--adam-beta1=0.5"]);
    assert!(
        says.contains("`adam_beta1`: this optimizer has no such value"),
        "{says}"
    );
    let says = training.bad(&out, &["--optimizer=adamw_9bit"]);
    assert!(says.contains("adan"), "{says}");
    let says = training.bad(
        &out,
        &[
            "--lr-scheduler=cosine",
            "--lr-scheduler-kwargs={\"power\": 2}",
        ],
    );
    assert!(
        says.contains("`power`: this scheduler has num_cycles"),
        "{says}"
    );
    let says = training.good(
        &training.folder("unused"),
        &[
            "--optimizer=lion",
            "--adam-epsilon=1e-6",
            "--save-strategy=epoch",
            "--num-epochs=2",
        ],
    );
    for line in [
        "--adam-epsilon has no effect with --optimizer lion",
        "--save-steps has no effect with --save-strategy epoch",
        "--num-epochs has no effect with --max-steps",
    ] {
        assert!(says.contains(line), "{says}");
    }
    let says = training.bad(&out, &["--load-best-model-at-end"]);
    assert!(says.contains("there is no evaluation data"), "{says}");
}

//! Learning from preferences, as a user does it.

use std::fs;

use crate::common::{good, json_of, qoft};

fn path(name: &str) -> String {
    let path = qoft_fixtures::path(&format!("preference/{name}"));
    path.to_str().unwrap().to_owned()
}

#[test]
fn each_stage_learns_and_measures() {
    let dir = tempfile::tempdir().unwrap();
    let model = path("model");
    for (stage, rows, is_paired) in [
        ("dpo", "chats.jsonl", true),
        ("orpo", "texts.jsonl", true),
        ("simpo", "implied.jsonl", true),
        ("kto", "judged_chats.jsonl", false),
        ("kto", "texts.jsonl", false),
    ] {
        let (data, out) = (path(rows), dir.path().join(format!("{stage}-{rows}")));
        let out = out.to_str().unwrap();
        let mut args = vec![
            "train", "--stage", stage, "--model", &model, "--data", &data,
        ];
        args.extend([
            "--output",
            out,
            "--eval-data",
            &data,
            "--max-steps",
            "6",
            "--batch-size",
            "4",
        ]);
        args.extend(["--target-modules", "all-linear", "--oft-block-size", "8"]);
        args.extend([
            "--learning-rate",
            "4e-3",
            "--report-to",
            "csv",
            "--eval-on-start",
        ]);
        let summary = json_of(&args);
        let loss = |key: &str| summary[key].as_f64().unwrap();
        assert!(loss("eval_loss") < loss("first_loss"), "{stage} {summary}");
        // A batch of answers of one kind has no margin.
        let reward = |of: &str| {
            summary["eval_metrics"][format!("rewards/{of}")]
                .as_f64()
                .unwrap()
        };
        assert!(reward("chosen") > reward("rejected"), "{stage} {summary}");
        let accuracy = &summary["eval_metrics"]["rewards/accuracies"];
        assert_eq!(accuracy.is_number(), is_paired, "{stage}");
        let read = |name: &str| fs::read_to_string(format!("{out}/{name}")).unwrap();
        assert!(read("log.jsonl").contains("\"eval_rewards/chosen\":"));
        assert!(
            read("log.csv")
                .lines()
                .next()
                .unwrap()
                .contains("eval_rewards/chosen")
        );
        assert!(read("report.html").contains("rewards/chosen"));
        assert!(read("README.md").contains(&format!("| `stage` | `{stage}` |")));
    }
}

#[test]
fn a_file_of_another_program_is_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (config, out) = (dir.path().join("dpo.yaml"), dir.path().join("out"));
    let rows = dir.path().join("rows.json");
    fs::write(
        &rows,
        r#"[{"conversations": [{"from": "human", "value": "What is 2+2?"}],
            "chosen": {"from": "gpt", "value": "Four."}, "rejected": {"from": "gpt", "value": "Five."}},
           {"instruction": "Say hello", "input": "", "chosen": "Hello!", "rejected": "No."}]"#,
    )
    .unwrap();
    let text = format!(
        "model_name_or_path: {}\nstage: dpo\ndo_train: true\nfinetuning_type: oft\npref_beta: 0.2\n\
         pref_loss: ipo\npref_ftx: 0.1\ndataset: {}\noutput_dir: {}\nper_device_train_batch_size: 1\n\
         num_train_epochs: 1.0\noft_block_size: 8\n",
        path("model"),
        rows.display(),
        out.display()
    );
    fs::write(&config, text).unwrap();
    let run = good(&["train", "--config", config.to_str().unwrap()]);
    assert!(run.stderr.contains("2 rows (preference)"), "{}", run.stderr);
    assert!(run.stderr.contains("accuracy"), "{}", run.stderr);
}

#[test]
fn both_answers_are_shown() {
    let (model, data) = (path("model"), path("chats.jsonl"));
    let args = [
        "data", "preview", "--model", &model, "--data", &data, "--stage", "dpo",
    ];
    let run = good(&args);
    assert!(
        run.stdout
            .contains("--- row 1, chosen: 60 tokens, 9 of them learned")
    );
    assert!(
        run.stdout.contains("⟦Five, I think.<|im_end|>"),
        "{}",
        run.stdout
    );
}

#[test]
fn what_does_not_fit_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let (model, out) = (path("model"), dir.path().join("out"));
    let out = out.to_str().unwrap();
    let (pairs, judged) = (path("texts.jsonl"), path("judged.jsonl"));
    for (data, more, says) in [
        (&pairs, &[][..], "--stage dpo"),
        (&pairs, &["--beta", "0.2"][..], "--stage dpo"),
        (
            &judged,
            &["--stage", "dpo"][..],
            "kto learns from such rows",
        ),
        (&pairs, &["--stage", "ppo"][..], "--stage ppo"),
        (&pairs, &["--stage", "dpo", "--packing"][..], "--packing"),
        (
            &pairs,
            &["--stage", "orpo", "--loss-type", "hinge"][..],
            "`loss_type`",
        ),
        (
            &pairs,
            &["--stage", "dpo", "--sync-ref-model", "true"][..],
            "--adapter PATH",
        ),
    ] {
        let args = [
            &["train", "--model", &model, "--data", data, "--output", out],
            more,
        ]
        .concat();
        let run = qoft(&args);
        assert_ne!(run.code, Some(0), "{more:?}");
        assert!(run.stderr.contains(says), "{more:?}: {}", run.stderr);
    }
}

//! What a training would need, and with which rate.

use std::fs;

use crate::common::{arg, fixture, good, json_of, qoft};
use crate::resume::Training;

#[test]
fn a_training_is_measured_before_it_is_one() {
    let training = Training::new();
    let out = training.folder("out");
    let args = training.args(&out, &["--gradient-checkpointing"]);
    let estimate = json_of(&[&args[..], &["--dry-run"]].concat());
    assert!(!out.exists());
    assert_eq!(estimate["steps"], 8);
    let number = |name: &str| estimate[name].as_u64().unwrap_or(0);
    assert_eq!(number("optimizer_bytes"), 2 * number("trainable_bytes"));
    let runs = estimate["runs"].as_array().expect("two ways");
    assert_eq!(runs.len(), 2);
    for run in runs {
        assert_eq!(run["measured"], true);
        assert!(run["peak_bytes"].as_u64() >= Some(number("loaded_bytes")));
        assert!(run["seconds"].as_f64() > Some(0.0));
    }
    assert_eq!(estimate["advice"], "it fits");

    let same: Vec<&str> = args[1..].to_vec();
    let run = good(&[&["estimate"], &same[..], &["--packing"]].concat());
    assert!(run.stdout.contains("without --gradient-checkpointing"));
    let run = qoft(&[&["estimate"], &same[..], &["--device=gpu"]].concat());
    assert!(
        run.stderr.contains("only the memory of this machine"),
        "{}",
        run.stderr
    );
}

#[test]
fn trainings_on_preferences_are_measured() {
    let model = fixture("preference/model");
    for (stage, rows) in [
        ("dpo", "texts"),
        ("orpo", "chats"),
        ("simpo", "texts"),
        ("kto", "judged"),
        ("kto", "texts"),
    ] {
        let data = fixture(&format!("preference/{rows}.jsonl"));
        let args = [
            "estimate", "--model", &model, "--data", &data, "--stage", stage,
        ];
        let more = [
            "--max-steps",
            "4",
            "--batch-size",
            "3",
            "--precompute-ref-log-probs",
        ];
        let more = match stage {
            "dpo" => &more[..],
            _ => &more[..4],
        };
        let estimate = json_of(&[&args[..], more].concat());
        assert_eq!(estimate["steps"], 4, "{stage}");
        assert_eq!(estimate["largest_batch"]["rows"], 3, "{stage}");
        let runs = estimate["runs"].as_array().expect("ways");
        assert!(!runs.is_empty());
        for run in runs {
            assert!(run["seconds"].as_f64() > Some(0.0), "{stage}: {run}");
        }
    }
}

#[test]
fn a_rate_is_searched_and_drawn() {
    let training = Training::new();
    let out = training.folder("unused");
    let plot = training.folder("rates.svg");
    let plot_flag = format!("--plot={}", arg(&plot));
    let args = training.args(&out, &["--max-steps=40", &plot_flag]);
    let found = json_of(&[&["lr-find"], &args[1..]].concat());
    let rate = found["suggestion"].as_f64().expect("a rate");
    let lowest = found["lowest"].as_f64().expect("a rate");
    assert!(
        1e-6 < rate && rate <= lowest && lowest <= 1.0,
        "{rate} {lowest}"
    );
    assert_eq!(found["rates"].as_array().map(Vec::len), Some(40));
    let svg = fs::read_to_string(&plot).expect("a picture");
    assert!(svg.contains("learning rate"));
    assert!(!out.exists());
    for (plot, says) in [("nodir/x.svg", "no folder nodir"), (".", "a folder")] {
        let run = qoft(&[&["lr-find"], &args[1..], &["--plot", plot]].concat());
        assert_eq!(run.code, Some(1));
        assert!(run.stderr.contains(says), "{}", run.stderr);
    }
    let args = [&["lr-find"], &args[1..], &["--start-lr=1", "--end-lr=0.1"]].concat();
    let run = qoft(&args);
    assert!(
        run.stderr.contains("must be more than start_lr"),
        "{}",
        run.stderr
    );
}

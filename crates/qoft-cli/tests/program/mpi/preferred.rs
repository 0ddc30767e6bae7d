//! Preferences in several processes.

use super::{assert_same, good_together};
use crate::common::{arg, good};

#[test]
fn preferences_are_learned_together() {
    let work = tempfile::tempdir().expect("a folder");
    let path = |name: &str| qoft_fixtures::path(&format!("preference/{name}"));
    for (stage, rows) in [("dpo", "chats.jsonl"), ("kto", "judged_chats.jsonl")] {
        let (model, data) = (path("model"), path(rows));
        let args = |out, steps| {
            let args = [
                "train",
                "--stage",
                stage,
                "--model",
                arg(&model),
                "--data",
                arg(&data),
                "--output",
                out,
                "--gradient-accumulation-steps",
                steps,
                "--max-steps=3",
                "--batch-size=2",
                "--target-modules=all-linear",
                "--oft-block-size=8",
                "--learning-rate=4e-3",
                "--save-steps=2",
                "--threads=1",
            ];
            args.map(str::to_owned)
        };
        let [one, two] = ["one", "two"].map(|name| work.path().join(format!("{stage}-{name}")));
        let run = args(arg(&one), "2");
        good(&run.each_ref().map(String::as_str));
        let run = args(arg(&two), "1");
        good_together(2, &run.each_ref().map(String::as_str));
        assert_same(&one, &two, stage);
    }
}

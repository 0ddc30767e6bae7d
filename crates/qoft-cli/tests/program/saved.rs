//! Adapters as `qoft train` saves them: configurations and names are those that PEFT has loaded, see
//! `make_saved.py`. The library's tests compare the losses.

use super::common::adapter::{assert_same_form, json};
use super::common::{arg, fixture, qoft};

#[test]
fn training_saves_what_peft_has_loaded() {
    let expected = json(&qoft_fixtures::path("saved/expected.json"));
    let cases = expected["cases"].as_object().expect("cases");
    assert!(cases.len() > 15);
    for (case, values) in cases {
        let work = tempfile::tempdir().expect("a folder");
        let out = work.path().join("out");
        let model = fixture(&format!(
            "models/{}",
            values["model"].as_str().expect("a name")
        ));
        let data = fixture(expected["data"].as_str().expect("a path"));
        let mut args = vec![
            "train",
            "--model",
            &model,
            "--data",
            &data,
            "--output",
            arg(&out),
        ];
        args.extend([
            "--max-steps",
            "2",
            "--batch-size",
            "4",
            "--learning-rate",
            "0.05",
        ]);
        let options = values["options"].as_array().expect("options").iter();
        args.extend(options.map(|option| option.as_str().expect("a word")));
        let run = qoft(&args);
        assert_eq!(run.code, Some(0), "{case}: {}", run.stderr);

        let saved = qoft_fixtures::path("saved").join(case);
        assert_same_form(&out, &saved);
    }
}

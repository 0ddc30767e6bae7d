//! Models that get new tokens, compared with PEFT and transformers by `make_new_tokens.py`.

use std::path::Path;

use serde_json::{Value, json};

use crate::common::adapter::{assert_same_form, json};
use crate::common::file::TensorFile;
use crate::common::{arg, copy_fixture, fixture, good, json_of, loss, qoft};

fn expected() -> Value {
    json(&qoft_fixtures::path("new_tokens/expected.json"))
}

fn close(found: f64, expected: &Value) {
    let expected = expected.as_f64().expect("a loss");
    assert!((found - expected).abs() < 2e-5, "{found} {expected}");
}

/// The model and the options of a case.
fn options(values: &Value) -> (String, Vec<String>) {
    let options = values["options"].as_array().expect("options").iter();
    let options = options.map(|option| option.as_str().expect("a word").to_owned());
    let model = values["model"].as_str().expect("a path");
    (fixture(model), options.collect())
}

/// Trains as `make_new_tokens.py` did, with more options.
#[track_caller]
fn train(values: &Value, out: &Path, more: &[&str]) -> String {
    let (model, options) = options(values);
    let data = fixture("new_tokens/rows.jsonl");
    let mut args = vec![
        "train",
        "--model",
        &model,
        "--data",
        &data,
        "--output",
        arg(out),
    ];
    args.extend(options.iter().map(String::as_str));
    args.extend(more);
    good(&args).stderr
}

#[test]
fn adapters_of_peft_bring_their_tokens() {
    let expected = expected();
    let work = tempfile::tempdir().expect("a folder");
    let ids = work.path().join("ids.jsonl");
    let rows = expected["ids"].as_array().expect("rows").iter();
    let rows: Vec<String> = rows
        .map(|ids| json!({"input_ids": ids}).to_string())
        .collect();
    std::fs::write(&ids, rows.join("\n")).expect("a file");
    for (case, values) in expected["cases"].as_object().expect("cases") {
        let (model, _) = options(values);
        let folder = |name: &str| fixture(&format!("new_tokens/{case}/{name}"));
        let texts = fixture("new_tokens/rows.jsonl");
        close(loss(&model, &texts, &[&folder("peft")]), &values["peft"]);
        // Without a tokenizer beside it the ids count.
        close(loss(&model, arg(&ids), &[&folder("ours")]), &values["ours"]);
        let run = good(&[
            "eval",
            "--model",
            &model,
            "--data",
            arg(&ids),
            "--adapter",
            &folder("ours"),
        ]);
        assert!(
            run.stderr.contains("has no tokenizer.json"),
            "{}",
            run.stderr
        );
        // The model alone has no such rows.
        let run = qoft(&["eval", "--model", &model, "--data", arg(&ids)]);
        assert_ne!(run.code, Some(0));
    }
}

#[test]
fn trained_tokens_are_those_that_peft_has_loaded() {
    for (case, values) in expected()["cases"].as_object().expect("cases") {
        let work = tempfile::tempdir().expect("a folder");
        let (out, merged) = (work.path().join("out"), work.path().join("merged"));
        let said = train(values, &out, &["--save-steps", "2"]);
        assert!(said.contains("grow from 320 to 323 rows"), "{said}");
        let saved = qoft_fixtures::path(&format!("new_tokens/{case}/ours"));
        assert_same_form(&out, &saved);
        // The tokenizer is that which transformers saves.
        let of_peft = qoft_fixtures::path(&format!("new_tokens/{case}/peft"));
        let tokens = |folder: &Path| json(&folder.join("tokenizer.json"))["added_tokens"].take();
        assert_eq!(tokens(&out), tokens(&of_peft), "{case}");

        let (model, _) = options(values);
        let data = fixture("new_tokens/rows.jsonl");
        let adapted = loss(&model, &data, &[arg(&out)]);
        close(adapted, &values["ours"]);
        // A checkpoint has the tokenizer of its run.
        let checkpoint = out.join("checkpoint-2");
        let args = ["generate", "--model", &model, "--adapter", arg(&checkpoint)];
        let prompt = ["--prompt", "A <note>", "--max-new-tokens", "2"];
        let run = json_of(&[&args[..], &prompt].concat());
        assert_eq!(run["prompt_tokens"], 4, "{run}");

        let args = ["merge", "--model", &model, "--adapter", arg(&out)];
        let how = ["--output", arg(&merged), "--min-kept", "0"];
        good(&[&args[..], &how].concat());
        assert_eq!(json(&merged.join("config.json"))["vocab_size"], 323);
        let found = loss(arg(&merged), &data, &[]);
        assert!((found - adapted).abs() < 2e-5, "{case}: {found} {adapted}");
    }
}

#[test]
fn runs_with_new_tokens_go_on_and_begin_others() {
    let expected = expected();
    let values = &expected["cases"]["untied"];
    let (model, _) = options(values);
    let data = fixture("new_tokens/rows.jsonl");
    let work = tempfile::tempdir().expect("a folder");
    let (whole, parts) = (work.path().join("whole"), work.path().join("parts"));
    let weights = |folder: &Path| {
        std::fs::read(folder.join("adapter_model.safetensors")).expect("an adapter")
    };
    train(values, &whole, &["--save-steps", "2"]);
    train(values, &parts, &["--save-steps", "2"]);
    std::fs::remove_file(parts.join("adapter_model.safetensors")).expect("an adapter");
    let resumed = good(&["train", "--resume-from", arg(&parts.join("checkpoint-2"))]);
    assert!(
        resumed.stderr.contains("going on after step 2"),
        "{}",
        resumed.stderr
    );
    assert_eq!(weights(&parts), weights(&whole));

    let next = work.path().join("next");
    let start = [
        "train",
        "--model",
        &model,
        "--data",
        &data,
        "--init-adapter",
        arg(&whole),
    ];
    let args = [&start[..], &["--max-steps", "1", "--output", arg(&next)]].concat();
    // Those that the adapter has are no new ones.
    let run = good(&[&args[..], &["--add-tokens", "<note>"]].concat());
    assert!(
        run.stderr.contains("are left out: \"<note>\""),
        "{}",
        run.stderr
    );
    loss(&model, &data, &[arg(&next)]);
    let other = work.path().join("other");
    let args = [
        &start[..],
        &["--output", arg(&other), "--add-tokens", "<new>"],
    ]
    .concat();
    let run = qoft(&args);
    assert!(
        run.stderr.contains("no rows for new tokens (\"<new>\")"),
        "{}",
        run.stderr
    );

    // Options of LLaMA-Factory, and a model that is quantized while it is loaded.
    let (config, out) = (work.path().join("run.yaml"), work.path().join("quantized"));
    let text = format!(
        "model_name_or_path: {model}\ndataset: {data}\noutput_dir: {}\nadd_tokens: \"<note>,[step]\"\n\
         new_special_tokens: \"<|tool|>\"\nresize_vocab: true\nload_in_8bit: true\nmax_steps: 1\n\
         oft_target: q_proj\n",
        arg(&out)
    );
    std::fs::write(&config, text).expect("a file");
    good(&["train", "--config", arg(&config)]);
    let options = json(&out.join("training_args.json"));
    assert_eq!(options["add_tokens"], json!(["<note>", "[step]"]));
    let run = json_of(&[
        "eval",
        "--model",
        &model,
        "--data",
        &data,
        "--load-in-8bit",
        "--adapter",
        arg(&out),
    ]);
    assert!(run["loss"].as_f64().is_some_and(f64::is_finite));
}

#[test]
fn rows_without_a_token_are_used_first() {
    let work = tempfile::tempdir().expect("a folder");
    let model = copy_fixture("preference/model", work.path(), "model");
    let path = model.join("tokenizer.json");
    let mut tokenizer = json(&path);
    // One token fewer than rows.
    let vocabulary = tokenizer["model"]["vocab"]
        .as_object_mut()
        .expect("a vocabulary");
    let last = vocabulary
        .iter()
        .find(|(_, id)| **id == 319)
        .expect("the last token");
    let last = last.0.clone();
    vocabulary.remove(&last);
    let merges = tokenizer["model"]["merges"].as_array_mut().expect("merges");
    merges.retain(|pair| {
        pair.as_array().is_none_or(|pair| {
            let joined: String = pair.iter().filter_map(Value::as_str).collect();
            joined != last
        })
    });
    std::fs::write(&path, tokenizer.to_string()).expect("a file");
    let tokens = work.path().join("tokens.txt");
    std::fs::write(&tokens, "<note>\n\n").expect("a file");
    let (data, out) = (fixture("new_tokens/rows.jsonl"), work.path().join("out"));
    let args = [
        "train",
        "--model",
        arg(&model),
        "--data",
        &data,
        "--output",
        arg(&out),
    ];
    let run = good(
        &[
            &args[..],
            &["--max-steps", "1", "--add-tokens", arg(&tokens)],
        ]
        .concat(),
    );
    assert!(
        run.stderr
            .contains("320 of the 320 rows of the embedding are used"),
        "{}",
        run.stderr
    );
    let table = "base_model.model.model.embed_tokens.weight";
    let file = TensorFile::open(&out.join("adapter_model.safetensors"));
    let table = file.tensors.iter().find(|(name, _)| name == table);
    assert_eq!(table.expect("a table").1.shape, [320, 32]);
    let missing = qoft(&[&args[..], &["--add-tokens", "no/such.txt"]].concat());
    assert_eq!(missing.code, Some(2));
    assert!(
        missing.stderr.contains("there is no such file"),
        "{}",
        missing.stderr
    );
}

#[test]
fn the_preview_counts_new_tokens() {
    let expected = expected();
    let (model, options) = options(&expected["cases"]["untied"]);
    let data = fixture("new_tokens/rows.jsonl");
    let new = options
        .chunks(2)
        .filter(|option| option[0].contains("tokens"));
    let new: Vec<&str> = new.flatten().map(String::as_str).collect();
    let args = ["data", "preview", "--model", &model, "--data", &data];
    let run = good(&[&args[..], &new].concat());
    for (index, ids) in expected["ids"].as_array().expect("rows").iter().enumerate() {
        let count = ids.as_array().expect("ids").len();
        let says = format!("--- row {}: {count} tokens", index + 1);
        assert!(
            run.stdout.contains(&says) || index >= 3,
            "{says}: {}",
            run.stdout
        );
    }
}

//! Classes of tokenizers, against what transformers makes of them.

use std::fs;

use qoft_train::tokenizer::Tokenizer;
use serde_json::{Value, json};
use tempfile::TempDir;

#[test]
fn classes_split_text_as_in_transformers() {
    let read = |name: &str| {
        let file = fs::read(qoft_fixtures::path(name)).unwrap();
        serde_json::from_slice::<Value>(&file).unwrap()
    };
    let file = read("tokenizer_classes.json");
    let base = read("tokenizer/tokenizer.json");
    let texts = file["texts"].as_array().unwrap();
    let folder = TempDir::new().unwrap();
    for case in file["cases"].as_array().unwrap() {
        let mut tokenizer = base.clone();
        let pre_tokenizer = case["pre_tokenizer"].as_u64().unwrap() as usize;
        tokenizer["pre_tokenizer"] = file["pre_tokenizers"][pre_tokenizer].clone();
        let given = |keys: &[(&str, &str)]| -> Value {
            let given = keys.iter().map(|(key, name)| (*key, case[name].clone()));
            let given = given.filter(|(_, value)| !value.is_null());
            given.map(|(key, value)| (key.to_owned(), value)).collect()
        };
        let config = given(&[
            ("tokenizer_class", "class"),
            ("add_prefix_space", "add_prefix_space"),
        ]);
        let write = |name: &str, content: Value| {
            fs::write(folder.path().join(name), content.to_string()).unwrap();
        };
        write("tokenizer.json", tokenizer);
        write("tokenizer_config.json", config);
        write("config.json", given(&[("model_type", "model_type")]));
        let tokenizer = Tokenizer::from_dir(folder.path()).unwrap();
        for (text, ids) in texts.iter().zip(case["ids"].as_array().unwrap()) {
            let found = tokenizer.encode(text.as_str().unwrap(), false).unwrap();
            assert_eq!(json!(found), *ids, "{text} {case}");
        }
    }
}

//! Which files of a repository are needed.

use crate::HubError;

/// Files of a model or an adapter beside its weights, by their ends.
const BESIDE: [&str; 4] = [".json", ".jinja", ".model", ".tiktoken"];
const VOCABULARIES: [&str; 2] = ["vocab.txt", "merges.txt"];
/// Folder of a model's further chat templates.
const TEMPLATES: &str = "additional_chat_templates/";
/// The list of the files of weights.
pub(crate) const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";

/// What a model's or an adapter's repository has to give.
pub(crate) struct ModelFiles {
    /// Configuration, tokenizer and so on.
    pub(crate) beside: Vec<String>,
    /// Weights; where there is an index, what it names counts.
    pub(crate) weights: Vec<String>,
}

/// Chooses among the files of a model or an adapter those in `folder`, which ends in `/` or is empty.
pub(crate) fn of_model(name: &str, files: &[String], folder: &str) -> Result<ModelFiles, HubError> {
    let inside: Vec<&str> = files
        .iter()
        .filter_map(|file| file.strip_prefix(folder))
        .collect();
    let here = |file: &&&str| !file.contains('/');
    let full = |file: &&str| format!("{folder}{file}");
    let is_beside = |file: &&&str| {
        let template = file.starts_with(TEMPLATES) && file.ends_with(".jinja");
        let named = BESIDE.iter().any(|end| file.ends_with(end)) || VOCABULARIES.contains(file);
        template || here(file) && named
    };
    let beside: Vec<String> = inside.iter().filter(is_beside).map(full).collect();
    let mut weights: Vec<&str> = inside.iter().filter(here).copied().collect();
    weights.retain(|file| file.ends_with(".safetensors"));
    if inside.contains(&SINGLE) {
        // What some publishers add is the same model in their own form.
        weights.retain(|file| !file.starts_with("consolidated"));
    }
    let weights: Vec<String> = weights.iter().map(full).collect();
    if weights.is_empty() {
        return Err(unusable(name, &inside));
    }
    Ok(ModelFiles { beside, weights })
}

/// Why a repository without safetensors cannot be used.
fn unusable(name: &str, files: &[&str]) -> HubError {
    let ends = |end: &str| -> Vec<&str> {
        let ends = files.iter().filter(|file| file.ends_with(end));
        ends.copied().collect()
    };
    let (ggufs, pickles) = (ends(".gguf"), ends(".bin"));
    let reason = if !ggufs.is_empty() {
        format!(
            "it has several models; name one of them, such as {name}/{}: {}",
            ggufs[0],
            some(&ggufs)
        )
    } else if !pickles.is_empty() {
        format!(
            "its weights are pickled ({}), which is code that runs when it is read; convert it with \
             transformers: AutoModelForCausalLM.from_pretrained(\"{name}\").save_pretrained(FOLDER)",
            some(&pickles)
        )
    } else {
        format!("it has no .safetensors; it has {}", some(files))
    };
    let name = name.to_owned();
    HubError::Unusable { name, reason }
}

/// Ends of data files; each may be compressed.
const DATA: [&str; 7] = [
    ".parquet", ".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt",
];
const COMPRESSED: [&str; 2] = [".gz", ".zst"];
/// JSON files that say something about a data set.
const ABOUT: [&str; 3] = ["dataset_infos.json", "dataset_info.json", "state.json"];

/// Chooses the files of a data set: those for training, if names tell them apart.
pub(crate) fn of_data(name: &str, files: &[String], folder: &str) -> Result<Vec<String>, HubError> {
    let is_data = |file: &&String| {
        let mut lower = file.to_ascii_lowercase();
        for end in COMPRESSED {
            lower.truncate(lower.strip_suffix(end).unwrap_or(&lower).len());
        }
        let last = lower.rsplit('/').next().unwrap_or(&lower);
        DATA.iter().any(|end| lower.ends_with(end))
            && !ABOUT.contains(&last)
            && !lower.split('/').any(|part| part.starts_with('.'))
    };
    let inside = files.iter().filter(|file| file.starts_with(folder));
    let data: Vec<String> = inside.filter(is_data).cloned().collect();
    if data.is_empty() {
        let has: Vec<&str> = files.iter().map(String::as_str).collect();
        return Err(HubError::Unusable {
            name: name.to_owned(),
            reason: format!(
                "no data files such as .parquet or .jsonl; it has {}",
                some(&has)
            ),
        });
    }
    let words = |file: &str| {
        let lower = file[folder.len()..].to_ascii_lowercase();
        let words = lower.split(|c: char| !c.is_ascii_alphanumeric());
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    let is_for = |file: &String, names: &[&str]| {
        words(file)
            .iter()
            .any(|word| names.contains(&word.as_str()))
    };
    let training: Vec<String> = data
        .iter()
        .filter(|file| is_for(file, &["train", "training"]))
        .cloned()
        .collect();
    if !training.is_empty() {
        return Ok(training);
    }
    let held_out = [
        "test",
        "testing",
        "eval",
        "evaluation",
        "validation",
        "valid",
        "val",
        "dev",
    ];
    let rest: Vec<String> = data
        .iter()
        .filter(|file| !is_for(file, &held_out))
        .cloned()
        .collect();
    Ok(if rest.is_empty() { data } else { rest })
}

/// Some of many names.
pub(crate) fn some(names: &[&str]) -> String {
    const MOST: usize = 12;
    let shown = names
        .iter()
        .take(MOST)
        .copied()
        .collect::<Vec<_>>()
        .join(", ");
    match names.len() {
        0 => "no files".to_owned(),
        count if count > MOST => format!("{shown} and {} more", count - MOST),
        _ => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(files: &[&str]) -> Vec<String> {
        files.iter().map(|file| (*file).to_owned()).collect()
    }

    #[test]
    fn a_model_is_its_configuration_tokenizer_and_safetensors() {
        let files = list(&[
            ".gitattributes",
            "README.md",
            "config.json",
            "generation_config.json",
            "tokenizer.json",
            "tokenizer.model",
            "chat_template.jinja",
            "merges.txt",
            "additional_chat_templates/rag.jinja",
            "model.safetensors",
            "consolidated.safetensors",
            "pytorch_model.bin",
            "onnx/model.onnx",
            "checkpoint-1/model.safetensors",
            "x.gguf",
        ]);
        let chosen = of_model("a/b", &files, "").unwrap();
        assert_eq!(chosen.weights, ["model.safetensors"]);
        let beside = [
            "config.json",
            "generation_config.json",
            "tokenizer.json",
            "tokenizer.model",
            "chat_template.jinja",
            "merges.txt",
            "additional_chat_templates/rag.jinja",
        ];
        assert_eq!(chosen.beside, beside);
        let inner = of_model("a/b", &files, "checkpoint-1/").unwrap();
        assert_eq!(inner.weights, ["checkpoint-1/model.safetensors"]);
    }

    #[test]
    fn what_has_no_safetensors_says_what_to_do() {
        let says = |files: &[&str]| of_model("a/b", &list(files), "").err().unwrap().to_string();
        let error = says(&["README.md", "b.Q4_K_M.gguf", "b.Q8_0.gguf"]);
        assert!(error.contains("such as a/b/b.Q4_K_M.gguf"), "{error}");
        let error = says(&["config.json", "pytorch_model.bin"]);
        assert!(error.contains("from_pretrained(\"a/b\")"), "{error}");
        assert!(says(&["README.md"]).contains("no .safetensors"));
    }

    #[test]
    fn data_is_what_is_for_training() {
        let chosen = |files: &[&str]| of_data("a/b", &list(files), "").unwrap();
        let files = [
            "README.md",
            "dataset_infos.json",
            "data/train-00000-of-00002.parquet",
            "data/train-00001-of-00002.parquet",
            "data/test-00000-of-00001.parquet",
        ];
        assert_eq!(chosen(&files), files[2..4]);
        assert_eq!(chosen(&["alpaca_data.json"]), ["alpaca_data.json"]);
        assert_eq!(
            chosen(&["a.jsonl.zst", "validation.jsonl"]),
            ["a.jsonl.zst"]
        );
        // `train` is a word of a name, not a part of a word.
        assert_eq!(chosen(&["trainers.csv", "test.csv"]), ["trainers.csv"]);
        assert!(of_data("a/b", &list(&["README.md"]), "").is_err());
    }
}

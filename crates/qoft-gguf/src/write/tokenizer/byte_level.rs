//! Byte pairs of bytes, as GPT-2 has them.

use qoft_scheme::Result;
use serde_json::Value;

use super::Tokenizer;
use crate::file::Value as Stored;
use crate::tokenizer::split;
use crate::write::keys::NewKeys;

/// Writes pairs and how text is split before.
pub fn write(tokenizer: &Tokenizer, out: &mut NewKeys) -> Result<()> {
    for step in tokenizer.steps("normalizer", "normalizers") {
        // Programs leave it out, which changes nothing for text that is composed already.
        if step["type"] != "NFC" {
            let kind = &step["type"];
            return Err(tokenizer.error(format!("its normalizer has the step {kind}")));
        }
    }
    out.text("tokenizer.ggml.model", "gpt2");
    out.text("tokenizer.ggml.pre", name_of_split(tokenizer)?);
    let merges = tokenizer.merges()?.into_iter().map(|(left, right)| {
        // A space would be read as the end of the left one.
        [left, right]
            .map(|part| part.replace(' ', "\u{120}"))
            .join(" ")
    });
    out.put("tokenizer.ggml.merges", Stored::Strings(merges.collect()));
    Ok(())
}

/// The name that files have for how text is split before pairs are merged.
fn name_of_split(tokenizer: &Tokenizer) -> Result<&'static str> {
    let steps = tokenizer.steps("pre_tokenizer", "pretokenizers");
    let Some((last, steps)) = steps
        .split_last()
        .filter(|(last, _)| last["type"] == "ByteLevel")
    else {
        return Err(tokenizer.error("its pre-tokenizer does not end with ByteLevel"));
    };
    if last["add_prefix_space"] == Value::Bool(true) {
        return Err(tokenizer.error("it puts a space before texts"));
    }
    let by_words = last["use_regex"] != Value::Bool(false);
    let ignores = tokenizer.value["model"]["ignore_merges"] == Value::Bool(true);
    let name = match (steps, by_words) {
        ([], true) => Some("gpt-2"),
        ([digits], true)
            if digits["type"] == "Digits" && digits["individual_digits"] == Value::Bool(true) =>
        {
            Some("smollm")
        }
        ([expression], false) if expression["behavior"] == "Isolated" => {
            let pattern = expression["pattern"]["Regex"].as_str();
            pattern.and_then(|pattern| split::name_of(pattern, ignores))
        }
        _ => None,
    };
    name.ok_or_else(|| {
        let steps = Value::from(steps.iter().map(|step| (*step).clone()).collect::<Vec<_>>());
        tokenizer.error(format!("it splits text by {steps}"))
    })
}

//! Options about data files.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Result, anyhow, bail};
use clap::Args;
use qoft::core::read_text;
use qoft::train::chat::{builtin, builtin_names};
use qoft::train::data::{Columns, DatasetOptions, Overlong, TrainOn};
use qoft::train::tokenizer::Tokenizer;
use serde::{Deserialize, Serialize};

use super::names::names;

/// How data files are read.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[serde(default)]
pub struct DataArgs {
    /// Form of the rows: `auto`, `alpaca`, `sharegpt`, `openai`, `prompt-completion`, `text`, `tokens`,
    /// or of preferences `preference` or `kto` [default: auto].
    #[arg(long, help_heading = "Data")]
    pub data_format: Option<String>,
    /// Fields of the rows under other names, such as `prompt=question,completion=answer`.
    #[arg(long, help_heading = "Data", value_name = "NAME=COLUMN,…")]
    pub columns: Option<String>,
    /// Rows that are read of each data file or folder, from the front [default: all].
    #[arg(long, help_heading = "Data", value_name = "ROWS")]
    pub max_samples: Option<NonZeroUsize>,
    /// What is learned of a conversation: what the `assistant` says, the `last` of it, or `all`
    /// [default: assistant].
    #[arg(long, help_heading = "Data")]
    pub train_on: Option<String>,
    /// Rows with more tokens than --max-length: `truncate`, `drop` or `error` [default: truncate].
    #[arg(long, help_heading = "Data")]
    pub overlong: Option<String>,
    /// Chat template for messages, in place of the model's: a file, a name among several of the model,
    /// or `alpaca`, `chatml`, `llama3`, `mistral`, `vicuna` or `zephyr`.
    #[arg(long, help_heading = "Data", value_name = "FILE|NAME")]
    pub chat_template: Option<String>,
    /// The folder where tokens of large data are kept, so that the next start reads them; `none` keeps
    /// none [default: qoft/data in the user's cache].
    #[arg(long, help_heading = "Data", value_name = "FOLDER|none")]
    pub data_cache: Option<PathBuf>,
}

impl DataArgs {
    /// The tokenizer with the chat template that is asked for.
    pub fn tokenizer(&self, tokenizer: Tokenizer) -> Result<Tokenizer> {
        with_chat_template(tokenizer, self.chat_template.as_deref())
    }

    /// The folder for tokens of data that has so many bytes; small data is quick to read.
    pub fn cache(&self, bytes: u64) -> Option<PathBuf> {
        match &self.data_cache {
            Some(folder) if folder == Path::new("none") => None,
            Some(folder) => Some(folder.clone()),
            None if bytes < LARGE => None,
            None => {
                let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
                let home = || Some(Path::new(&folder("HOME")?).join(".cache"));
                let cache = folder("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
                cache.map(|cache| cache.join("qoft").join("data"))
            }
        }
    }

    /// How to read data for a model that knows so many tokens.
    pub fn options(&self, vocab_size: usize) -> Result<DatasetOptions> {
        let mut options = DatasetOptions::new(vocab_size);
        options.format = parsed("data-format", &self.data_format)?.unwrap_or_default();
        options.columns = parsed::<Columns>("columns", &self.columns)?.unwrap_or_default();
        options.max_rows = self.max_samples;
        options.train_on = chosen("train-on", &self.train_on, &TRAIN_ON)?;
        options.overlong = chosen("overlong", &self.overlong, &OVERLONG)?;
        Ok(options)
    }
}

/// A tokenizer with another chat template, if one is given: a file, a name among several of the model, or one of
/// those that everybody knows.
pub fn with_chat_template(tokenizer: Tokenizer, given: Option<&str>) -> Result<Tokenizer> {
    let Some(given) = given else {
        return Ok(tokenizer);
    };
    let path = Path::new(given);
    let source = if path.is_file() {
        read_text(path)?
    } else if let Some(source) = tokenizer.chat_templates().named(given) {
        source.to_owned()
    } else if let Some(source) = builtin(given) {
        source.to_owned()
    } else {
        let known: Vec<&str> = builtin_names().collect();
        bail!(
            "--chat-template {given}: there is no such file, and no template of this name; there \
             are {}",
            known.join(", ")
        );
    };
    Ok(tokenizer.with_chat_template(source))
}

/// Bytes of data whose tokens are kept.
const LARGE: u64 = 4 << 20;

const TRAIN_ON: [(&str, TrainOn); 3] = [
    ("assistant", TrainOn::Assistant),
    ("last", TrainOn::Last),
    ("all", TrainOn::All),
];
const OVERLONG: [(&str, Overlong); 3] = [
    ("truncate", Overlong::Truncate),
    ("drop", Overlong::Drop),
    ("error", Overlong::Error),
];

fn parsed<T: FromStr<Err = String>>(name: &str, value: &Option<String>) -> Result<Option<T>> {
    let parse = |text: &String| {
        let parsed = text.parse();
        parsed.map_err(|error| anyhow!("--{name} {text}: {error}"))
    };
    value.as_ref().map(parse).transpose()
}

fn chosen<T: Copy + Default>(
    name: &str,
    value: &Option<String>,
    choices: &[(&str, T)],
) -> Result<T> {
    let Some(text) = value else {
        return Ok(T::default());
    };
    let found = choices.iter().find(|(choice, _)| choice == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let known: Vec<&str> = choices.iter().map(|(choice, _)| *choice).collect();
        anyhow!("--{name} {text}: it may be {}", known.join(", "))
    })
}

/// A data file or folder, with its weight among several.
#[derive(Debug, Clone, PartialEq)]
pub struct DataArg {
    /// The file or folder.
    pub path: PathBuf,
    /// Its weight.
    pub weight: Option<f64>,
}

impl DataArg {
    /// Those of several options.
    pub fn all(texts: &[String]) -> Result<Vec<Self>> {
        texts.iter().map(|text| Self::from_text(text)).collect()
    }

    /// Several of one option, as LLaMA-Factory has them: with commas, where no path has this name.
    pub fn split(texts: Vec<String>) -> Vec<String> {
        let parts = |text: String| match Path::new(&text).exists() || !text.contains(',') {
            true => vec![text],
            false => names(&text),
        };
        texts.into_iter().flat_map(parts).collect()
    }

    /// Reads `PATH[:WEIGHT]`; a path that exists is one, whatever it has in it.
    pub fn from_text(text: &str) -> Result<Self> {
        let plain = Self {
            path: text.into(),
            weight: None,
        };
        if plain.path.exists() {
            return Ok(plain);
        }
        let Some((path, weight)) = text.rsplit_once(':') else {
            return Ok(plain);
        };
        let Ok(weight) = weight.parse::<f64>() else {
            return Ok(plain);
        };
        if !(weight.is_finite() && weight > 0.0) {
            return Err(anyhow!("--data {text}: a weight is a number above 0"));
        }
        Ok(Self {
            path: path.into(),
            weight: Some(weight),
        })
    }
}

impl fmt::Display for DataArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        match self.weight {
            Some(weight) => write!(f, ":{weight}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_stand_behind_paths() {
        let read = |text: &str| DataArg::from_text(text).unwrap();
        let arg = |path: &str, weight| DataArg {
            path: path.into(),
            weight,
        };
        assert_eq!(read("a.jsonl"), arg("a.jsonl", None));
        assert_eq!(read("a.jsonl:0.7"), arg("a.jsonl", Some(0.7)));
        assert_eq!(read("c:\\a.jsonl"), arg("c:\\a.jsonl", None));
        assert!(DataArg::from_text("a.jsonl:-1").is_err());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a:2");
        std::fs::write(&path, "").unwrap();
        let path = path.display().to_string();
        assert_eq!(read(&path), arg(&path, None));
        let split = |text: &str| DataArg::split(vec![text.into()]);
        assert_eq!(split("a.jsonl:2, b.jsonl"), ["a.jsonl:2", "b.jsonl"]);
        let path = folder.path().join("a,b");
        std::fs::write(&path, "").unwrap();
        let path = path.display().to_string();
        assert_eq!(split(&path), [path.as_str()]);
    }

    #[test]
    fn wrong_values_name_the_option_and_what_it_may_be() {
        let args = DataArgs {
            overlong: Some("cut".into()),
            ..DataArgs::default()
        };
        let error = args.options(1).unwrap_err().to_string();
        assert_eq!(error, "--overlong cut: it may be truncate, drop, error");
    }
}

//! Options about tokens that a model gets.

use std::path::Path;
use std::str::FromStr;

use clap::Args;
use qoft::core::read_text;
use qoft::train::tokenizer::NewToken;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::names::names;

/// Endings of the names of files with tokens; a text without one may be a list.
const ENDINGS: [&str; 2] = ["json", "txt"];

/// Tokens that the vocabulary gets.
#[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(default)]
pub struct NewTokenArgs {
    /// Tokens that the vocabulary gets: a file with one on each line or with a JSON list, or some separated
    /// by commas. Embedding and output head then train whole.
    #[arg(long, help_heading = "Adapter", value_name = "FILE|TOKENS")]
    pub add_tokens: Option<TokenList>,
    /// The same for special tokens, which are left out of the texts that are generated.
    #[arg(long, help_heading = "Adapter", value_name = "FILE|TOKENS")]
    pub add_special_tokens: Option<TokenList>,
}

impl NewTokenArgs {
    /// All of them, the special ones last.
    pub fn tokens(&self) -> Vec<NewToken> {
        let of = |list: &Option<TokenList>, special| {
            let texts = list.iter().flat_map(|list| list.0.clone());
            texts
                .map(move |text| NewToken::new(text, special))
                .collect::<Vec<_>>()
        };
        [
            of(&self.add_tokens, false),
            of(&self.add_special_tokens, true),
        ]
        .concat()
    }
}

/// The texts of tokens. In the options of a run they stand themselves, and not the file that had them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TokenList(Vec<String>);

impl FromStr for TokenList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = Path::new(text);
        let ending = path.extension().and_then(|ending| ending.to_str());
        let ending = ending.unwrap_or_default();
        if path.is_file() {
            let content = read_text(path).map_err(|error| error.to_string())?;
            return Self::of_file(&content, ending == "json")
                .map_err(|reason| format!("{text}: {reason}"));
        }
        if ENDINGS.contains(&ending) {
            return Err(format!("{text}: there is no such file"));
        }
        Self::some(names(text))
    }
}

impl TokenList {
    fn of_file(content: &str, is_json: bool) -> Result<Self, String> {
        if is_json {
            let list: Vec<String> = serde_json::from_str(content)
                .map_err(|error| format!("expected a JSON list of texts: {error}"))?;
            return Self::some(list);
        }
        let lines = content.trim_start_matches('\u{feff}').lines();
        // What stands around a token in its line may belong to it.
        Self::some(lines.map(str::to_owned).collect())
    }

    fn some(mut texts: Vec<String>) -> Result<Self, String> {
        texts.retain(|text| !text.trim().is_empty());
        match texts.is_empty() {
            true => Err("there are no tokens in it".to_owned()),
            false => Ok(Self(texts)),
        }
    }
}

impl<'de> Deserialize<'de> for TokenList {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        match Value::deserialize(value)? {
            Value::String(text) => text.parse().map_err(D::Error::custom),
            list => {
                let texts = serde_json::from_value(list).map_err(D::Error::custom)?;
                Self::some(texts).map_err(D::Error::custom)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_stand_in_files_and_in_lists() {
        let list = |texts: &[&str]| TokenList(texts.iter().map(|t| (*t).to_owned()).collect());
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            path.display().to_string().parse::<TokenList>()
        };
        let lines = "\u{feff}<a>\r\n\n b,c \n<a>\n";
        assert_eq!(file("a.txt", lines), Ok(list(&["<a>", " b,c ", "<a>"])));
        assert_eq!(file("a", "[x]\n"), Ok(list(&["[x]"])));
        assert_eq!(
            file("a.json", r#"["<a>", "b\nc"]"#),
            Ok(list(&["<a>", "b\nc"]))
        );
        assert_eq!("<a>, </b>".parse(), Ok(list(&["<a>", "</b>"])));
        for (name, content, says) in [
            ("b.json", "{}", "JSON list of texts"),
            ("b.txt", "\n \n", "no tokens"),
        ] {
            let error = file(name, content).unwrap_err();
            assert!(error.contains(says) && error.contains(name), "{error}");
        }
        let error = "no/such.txt".parse::<TokenList>().unwrap_err();
        assert!(error.contains("no such file"), "{error}");
        // A list is one of tokens, whatever they look like.
        let read: TokenList = serde_json::from_str(r#"["a,b", "c.txt"]"#).unwrap();
        assert_eq!(read, list(&["a,b", "c.txt"]));
        let text = serde_json::to_string(&read).unwrap();
        assert_eq!(serde_json::from_str::<TokenList>(&text).unwrap(), read);
    }
}

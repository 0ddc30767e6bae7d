//! What can be said in a conversation.

use std::path::PathBuf;

use crate::args::AdapterArg;

/// What `/help` says.
pub const HELP: &str = "\
/adapter PATH[=STRENGTH] …  talk with exactly these adapters; a folder's name is enough for one that is there
/adapter none               talk with the model alone
/adapter                    list the adapters; those that compute have a star
/system TEXT                begin anew, with this word of the system; `none` for none
/reset                      begin anew
/save FILE                  write the conversation as a row of data
/help                       this
/exit                       end, as Ctrl-D does
Ctrl-C stops an answer; Alt-Enter begins a new line.";

const NAMES: [&str; 7] = ["adapter", "system", "reset", "save", "help", "exit", "quit"];

/// A line of the user.
#[derive(Debug, PartialEq)]
pub enum Said {
    /// Something for the model.
    Text(String),
    /// `/help`.
    Help,
    /// `/exit`.
    Exit,
    /// `/reset`.
    Reset,
    /// `/system`, with a text or without.
    System(Option<String>),
    /// `/adapter` with adapters, if they are to change.
    Adapter(Option<Vec<AdapterArg>>),
    /// `/save`.
    Save(PathBuf),
    /// What is wrong with it.
    Unknown(String),
}

impl Said {
    /// Reads a line; `None` for an empty one.
    pub fn read(line: &str) -> Option<Self> {
        let line = line.trim();
        if line.is_empty() {
            return None;
        }
        let Some(command) = line.strip_prefix('/') else {
            return Some(Self::Text(line.to_owned()));
        };
        let (name, rest) = command
            .split_once(char::is_whitespace)
            .unwrap_or((command, ""));
        let rest = rest.trim();
        Some(match (name, rest) {
            ("help", "") => Self::Help,
            ("exit" | "quit", "") => Self::Exit,
            ("reset", "") => Self::Reset,
            ("system", "") => Self::System(None),
            ("system", text) => Self::System(Some(text.to_owned())),
            ("adapter", "") => Self::Adapter(None),
            ("adapter", "none") => Self::Adapter(Some(Vec::new())),
            ("adapter", names) => {
                let adapters = names.split_whitespace().map(AdapterArg::from_text);
                match adapters.collect() {
                    Ok(adapters) => Self::Adapter(Some(adapters)),
                    Err(error) => Self::Unknown(format!("/adapter {names}: {error}")),
                }
            }
            ("save", "") => Self::Unknown("/save FILE: which file?".into()),
            ("save", path) => Self::Save(path.into()),
            (name, rest) if NAMES.contains(&name) => Self::Unknown(format!(
                "/{name} takes nothing behind it, but there is `{rest}`"
            )),
            (name, _) => {
                let near = NAMES
                    .into_iter()
                    .map(|known| (strsim::damerau_levenshtein(known, name), known));
                let near = near.min().filter(|(distance, _)| *distance <= 2);
                let near = near.map_or(String::new(), |(_, known)| {
                    format!("; did you mean /{known}?")
                });
                Self::Unknown(format!(
                    "there is no /{name}{near} /help lists what there is"
                ))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_texts_or_commands() {
        let read = |line: &str| Said::read(line).unwrap();
        assert_eq!(Said::read("  "), None);
        assert_eq!(read(" Hello /you "), Said::Text("Hello /you".into()));
        assert_eq!(
            read("/system Be  brief."),
            Said::System(Some("Be  brief.".into()))
        );
        assert_eq!(read("/adapter none"), Said::Adapter(Some(vec![])));
        assert_eq!(read("/save a b.jsonl"), Said::Save("a b.jsonl".into()));
        let Said::Adapter(Some(adapters)) = read("/adapter x y=0.5") else {
            panic!("adapters")
        };
        let strengths: Vec<f64> = adapters.iter().map(|adapter| adapter.strength).collect();
        assert_eq!(strengths, [1.0, 0.5]);
        for (line, word) in [
            ("/rest", "/reset?"),
            ("/save", "which file"),
            ("/reset now", "`now`"),
            ("/adapter x=y", "strength"),
        ] {
            let Said::Unknown(error) = read(line) else {
                panic!("{line}")
            };
            assert!(error.contains(word), "{error}");
        }
    }
}

//! Names on the Hub.

use std::fmt;
use std::path::{Component, Path};

/// `OWNER/NAME`, with `@REVISION` if it is not the main branch, and with a path of a file or folder
/// inside: `OWNER/NAME[@REVISION][/PATH]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubName {
    /// `OWNER/NAME`.
    pub repo: String,
    /// A branch, tag or commit; `None` for the main branch.
    pub revision: Option<String>,
    /// A file or folder of it.
    pub path: Option<String>,
}

/// The branch that is meant where none is named.
pub(crate) const MAIN: &str = "main";

impl HubName {
    /// Reads a name; `None` if a text is none. A path on the disk may look like a name: ask for it first.
    pub fn parse(text: &str) -> Option<Self> {
        let (owner, rest) = text.split_once('/')?;
        let end = rest.find(['@', '/']).unwrap_or(rest.len());
        let (name, rest) = rest.split_at(end);
        if !is_part(owner) || !is_part(name) {
            return None;
        }
        let (revision, path) = match rest.strip_prefix('@') {
            // Branches have slashes as well: `refs/pr/1` is the only kind that the Hub itself makes.
            Some(rest) => {
                let pull = rest.strip_prefix("refs/pr/");
                let offset = pull.map_or(0, |_| "refs/pr/".len());
                let end = rest[offset..].find('/').map(|end| end + offset);
                match end {
                    Some(end) => (Some(&rest[..end]), Some(&rest[end + 1..])),
                    None => (Some(rest), None),
                }
            }
            None => (None, rest.strip_prefix('/')),
        };
        if revision.is_some_and(|revision| !is_inside(revision)) {
            return None;
        }
        if path.is_some_and(|path| !is_inside(path)) {
            return None;
        }
        Some(Self {
            repo: format!("{owner}/{name}"),
            revision: revision.map(str::to_owned),
            path: path.map(str::to_owned),
        })
    }

    /// The branch, tag or commit.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(MAIN)
    }
}

impl fmt::Display for HubName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repo)?;
        if let Some(revision) = &self.revision {
            write!(f, "@{revision}")?;
        }
        if let Some(path) = &self.path {
            write!(f, "/{path}")?;
        }
        Ok(())
    }
}

fn is_part(part: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    part.starts_with(|c: char| c.is_ascii_alphanumeric()) && part.chars().all(allowed)
}

/// Whether a path, with `/`, stays inside the folder that it is joined to, and names something in it.
pub(crate) fn is_inside(path: &str) -> bool {
    let mut components = Path::new(path).components();
    !path.is_empty()
        && !path.contains(['\\', '\0', '\n'])
        && !path.split('/').any(str::is_empty)
        && components.all(|component| matches!(component, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_revisions_and_paths() {
        let name = |repo: &str, revision: Option<&str>, path: Option<&str>| HubName {
            repo: repo.into(),
            revision: revision.map(Into::into),
            path: path.map(Into::into),
        };
        let cases = [
            ("a/b", name("a/b", None, None)),
            ("a/b@v1.0", name("a/b", Some("v1.0"), None)),
            ("a/b/c.gguf", name("a/b", None, Some("c.gguf"))),
            ("a/b@x/c/d", name("a/b", Some("x"), Some("c/d"))),
            ("a/b@refs/pr/3", name("a/b", Some("refs/pr/3"), None)),
            ("a/b@refs/pr/3/c", name("a/b", Some("refs/pr/3"), Some("c"))),
        ];
        for (text, expected) in cases {
            assert_eq!(HubName::parse(text), Some(expected.clone()), "{text}");
            assert_eq!(expected.to_string(), text);
        }
    }

    #[test]
    fn paths_are_no_names() {
        let paths = [
            "a",
            "./a",
            "../a",
            "/a/b",
            "a/",
            "models/my model",
            "a/b/../c",
            "a/b//c",
            "a/b@",
            "a/b@../c",
            "a/b/",
            "~/a/b",
            "a/b\\c",
        ];
        for path in paths {
            assert_eq!(HubName::parse(path), None, "{path}");
        }
    }
}

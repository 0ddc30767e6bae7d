//! What a source file says about modules: those that it declares, and the paths that it names.

use std::str::FromStr;

use proc_macro2::{Delimiter, Ident, TokenStream, TokenTree};

/// One module's own text, without that of its children.
#[derive(Debug, Default)]
pub struct Source {
    /// Children in files of their own.
    pub files: Vec<String>,
    /// Children inside the file.
    pub inline: Vec<(String, Source)>,
    pub imports: Vec<Import>,
    /// Paths in code that start at `crate`, `super` or `self`.
    pub paths: Vec<Vec<String>>,
    /// Names of items that are defined here.
    pub items: Vec<String>,
    /// Macros that are exported, so that their path starts at the crate.
    pub exported_macros: Vec<String>,
}

/// A leaf of a `use`.
#[derive(Debug)]
pub struct Import {
    pub path: Vec<String>,
    /// What it is called here; `None` for all names of a module.
    pub name: Option<String>,
}

/// Keywords before the name of an item.
const ITEMS: &[&str] = &[
    "struct", "enum", "union", "trait", "fn", "type", "const", "static",
];

impl Source {
    /// Reads a file's text. What is compiled for tests only is left out.
    pub fn parse(text: &str) -> Self {
        let tokens = TokenStream::from_str(text).expect("a file that compiles");
        let mut source = Self::default();
        source.read(tokens, true);
        source
    }

    /// `items`: whether the tokens are a module's items, rather than something inside of one.
    fn read(&mut self, tokens: TokenStream, items: bool) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        let mut exported = false;
        while at < tokens.len() {
            let rest = &tokens[at..];
            at += match rest {
                [TokenTree::Punct(hash), TokenTree::Group(attribute), ..]
                    if hash.as_char() == '#' =>
                {
                    let text = attribute.stream().to_string().replace(' ', "");
                    exported |= text == "macro_export";
                    // A file of another target is no part of the crate.
                    let is_elsewhere = text.starts_with("path=");
                    2 + if is_elsewhere || is_test_only(&text) {
                        item(&rest[2..])
                    } else {
                        0
                    }
                }
                [TokenTree::Ident(word), TokenTree::Ident(name), end, ..] if word == "mod" => {
                    match end {
                        TokenTree::Group(body) => {
                            let mut inside = Self::default();
                            inside.read(body.stream(), true);
                            self.inline.push((plain(name), inside));
                        }
                        _ => self.files.push(plain(name)),
                    }
                    3
                }
                [TokenTree::Ident(word), next, ..] if word == "use" && !is(next, '<') => {
                    let end = rest.iter().position(|token| is(token, ';'));
                    let end = end.unwrap_or(rest.len());
                    self.import(&rest[1..end], &[]);
                    end
                }
                [TokenTree::Ident(word), bang, TokenTree::Ident(name), ..]
                    if word == "macro_rules" && is(bang, '!') =>
                {
                    self.items.push(plain(name));
                    if std::mem::take(&mut exported) {
                        self.exported_macros.push(plain(name));
                    }
                    3
                }
                [TokenTree::Ident(word), TokenTree::Ident(name), ..]
                    if items && ITEMS.iter().any(|item| word == item) =>
                {
                    self.items.push(plain(name));
                    1
                }
                [TokenTree::Ident(word), ..]
                    if ["crate", "super", "self"]
                        .map(|start| word == start)
                        .contains(&true) =>
                {
                    let path = path(rest);
                    let length = path.len();
                    if length > 1 {
                        self.paths.push(path);
                    }
                    1 + 3 * (length - 1)
                }
                [TokenTree::Group(group), ..] => {
                    self.read(group.stream(), false);
                    1
                }
                _ => 1,
            };
        }
    }

    /// The leaves of a `use` below `before`.
    fn import(&mut self, tokens: &[TokenTree], before: &[String]) {
        let mut path = before.to_vec();
        let mut name = None;
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            match token {
                TokenTree::Ident(word) if word == "as" => {
                    if let Some(TokenTree::Ident(alias)) = tokens.get(at + 1) {
                        name = Some(plain(alias));
                    }
                    at += 1;
                }
                TokenTree::Ident(word) => path.push(plain(word)),
                TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                    let inside: Vec<TokenTree> = group.stream().into_iter().collect();
                    for leaf in inside.split(|token| is(token, ',')) {
                        if !leaf.is_empty() {
                            self.import(leaf, &path);
                        }
                    }
                    return;
                }
                star if is(star, '*') => {
                    self.imports.push(Import { path, name: None });
                    return;
                }
                _ => {}
            }
            at += 1;
        }
        // `use a::{self}` names `a`.
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        let name = name.or_else(|| path.last().cloned());
        self.imports.push(Import { path, name });
    }
}

/// The identifiers of a path at the start of `tokens`.
fn path(tokens: &[TokenTree]) -> Vec<String> {
    let mut path = Vec::new();
    let mut rest = tokens;
    while let [TokenTree::Ident(word), after @ ..] = rest {
        path.push(plain(word));
        match after {
            [first, second, next @ ..] if is(first, ':') && is(second, ':') => rest = next,
            _ => return path,
        }
    }
    // What follows the last `::` is no name, such as `<`.
    path
}

/// How many tokens the item at the start of `tokens` has.
fn item(tokens: &[TokenTree]) -> usize {
    let ends = |token: &TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        token => is(token, ';'),
    };
    // The braces of a `use` are not its end.
    let is_use = tokens
        .iter()
        .take(4)
        .any(|token| matches!(token, TokenTree::Ident(word) if word == "use"));
    let end = match is_use {
        true => tokens.iter().position(|token| is(token, ';')),
        false => tokens.iter().position(ends),
    };
    end.map_or(tokens.len(), |end| end + 1)
}

/// Whether what has this attribute is compiled for tests only.
fn is_test_only(attribute: &str) -> bool {
    attribute == "cfg(test)" || attribute.starts_with("cfg(all(test,")
}

fn is(token: &TokenTree, character: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == character)
}

/// An identifier without `r#`.
fn plain(ident: &Ident) -> String {
    ident.to_string().trim_start_matches("r#").to_owned()
}

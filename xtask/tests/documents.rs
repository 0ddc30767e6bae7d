//! The documents: what they link to is there, and all of them are pages of the book.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// README and the pages.
fn documents() -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join("docs")).unwrap().flatten();
    let pages = entries.map(|entry| entry.path());
    let pages = pages.filter(|path| path.extension().is_some_and(|end| end == "md"));
    let mut all: Vec<PathBuf> = pages.collect();
    all.push(root().join("README.md"));
    all.sort();
    all
}

/// The lines of a page that are no code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// The targets of links, `](TARGET)`.
fn links(text: &str) -> Vec<String> {
    let of_line = |line: &str| {
        let parts: Vec<&str> = line.split("](").skip(1).collect();
        let targets = parts.into_iter().filter_map(|part| part.split(')').next());
        targets.map(str::to_owned).collect::<Vec<_>>()
    };
    prose(text).flat_map(of_line).collect()
}

/// The anchors of a page's headings, as GitHub and mdBook make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).filter(|line| line.starts_with('#'));
    let anchor = |line: &str| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

/// What a document links to that is not there.
fn broken(document: &Path) -> Vec<String> {
    let text = fs::read_to_string(document).unwrap();
    let folder = document.parent().unwrap();
    let is_broken = |link: &String| {
        if link.contains("://") || link.starts_with("mailto:") {
            return false;
        }
        let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
        let target = match path {
            "" => document.to_owned(),
            path => folder.join(path),
        };
        if anchor.is_empty() {
            return !target.exists();
        }
        !fs::read_to_string(&target).is_ok_and(|text| anchors(&text).contains(anchor))
    };
    links(&text).into_iter().filter(is_broken).collect()
}

#[test]
fn links_lead_somewhere() {
    let mut report = String::new();
    for document in documents() {
        for link in broken(&document) {
            report.push_str(&format!("{}: {link}\n", document.display()));
        }
    }
    assert!(report.is_empty(), "nothing there:\n{report}");
}

#[test]
fn a_broken_link_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("a.md");
    let text =
        "# One two\n[a](#one-two) [b](#three) [c](b.md)\n```\n[d](c.md)\n```\n[e](https://x)";
    fs::write(&page, text).unwrap();
    assert_eq!(broken(&page), ["#three", "b.md"]);
}

#[test]
fn every_page_is_in_the_book() {
    let summary = fs::read_to_string(root().join("docs/SUMMARY.md")).unwrap();
    let mut listed = links(&summary);
    listed.sort();
    let names = documents()
        .into_iter()
        .filter(|path| path.parent().unwrap().ends_with("docs"));
    let names = names.map(|path| path.file_name().unwrap().to_string_lossy().into_owned());
    let mut pages: Vec<String> = names.filter(|name| name != "SUMMARY.md").collect();
    pages.sort();
    assert_eq!(listed, pages);
}

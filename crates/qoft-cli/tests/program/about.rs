//! What the program says of itself: to people, shells and `man`.

use tempfile::tempdir;

use crate::common::{arg, good};

#[test]
fn versions_say_what_is_built_in_and_shells_and_man_know_the_options() {
    let version = good(&["--version"]).stdout;
    let mut lines = version.lines();
    assert_eq!(
        lines.next(),
        Some(concat!("qoft ", env!("CARGO_PKG_VERSION")))
    );
    assert!(
        lines
            .next()
            .is_some_and(|line| line.starts_with("features: ")),
        "{version}"
    );
    assert!(
        lines
            .next()
            .is_some_and(|line| line.starts_with("instructions: ")),
        "{version}"
    );
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = good(&["completions", shell]).stdout;
        assert!(
            script.contains("lr-find") && script.contains("learning-rate"),
            "{shell}"
        );
    }
    let work = tempdir().unwrap();
    good(&["man", arg(work.path())]);
    let page = std::fs::read_to_string(work.path().join("qoft-data-preview.1")).unwrap();
    assert!(
        page.contains("qoft data preview") && page.contains("max\\-length"),
        "{page}"
    );
}

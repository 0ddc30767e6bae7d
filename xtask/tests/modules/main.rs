//! The modules of every crate of the repository can be read from leaves to roots, and the crates that
//! all schemes and models share know none of them. No file is longer than can be read at once.

mod circles;
mod lengths;
mod names;
mod packages;
mod source;
mod tree;

use circles::{Edge, circles, edges};
use tree::Tree;

/// The edges of the tree that `files` make, as `from -> to`.
fn edges_of(files: &[(&str, &str)]) -> Vec<String> {
    let edges = edges(&Tree::from_files(files));
    let text = |edge: &Edge| format!("{} -> {}", edge.from, edge.to);
    let mut edges: Vec<String> = edges.iter().map(text).collect();
    edges.dedup();
    edges
}

fn circles_of(files: &[(&str, &str)]) -> Vec<Vec<String>> {
    circles(&edges(&Tree::from_files(files)))
}

#[test]
fn no_crate_has_a_circle_of_imports() {
    let (mut report, mut count) = (String::new(), 0);
    for package in packages::all() {
        for root in package.roots() {
            let edges = edges(&Tree::read(&root));
            count += edges.len();
            for circle in circles(&edges) {
                report += &format!(
                    "{}: {} import each other\n",
                    root.display(),
                    circle.join(", ")
                );
                let within =
                    |edge: &&Edge| circle.contains(&edge.from) && circle.contains(&edge.to);
                for edge in edges.iter().filter(within) {
                    report += &format!("    {edge}\n");
                }
            }
        }
    }
    assert!(count > 300, "only {count} imports were found");
    assert!(report.is_empty(), "circles of imports:\n{report}");
}

#[test]
fn packages_are_those_of_the_workspace() {
    let names: Vec<String> = packages::all()
        .iter()
        .map(|package| package.name())
        .collect();
    for name in ["qoft-core", "qoft-kernels", "qoft-cli", "xtask"] {
        assert!(
            names.iter().any(|known| known == name),
            "{name} not in {names:?}"
        );
    }
}

#[test]
fn two_modules_that_use_each_other_are_a_circle() {
    let files = [
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a.rs", "use crate::b::B; pub struct A;"),
        (
            "b.rs",
            "use std::fmt; pub struct B; fn f(a: &crate::a::A) {}",
        ),
        ("c.rs", "use super::a::A;"),
    ];
    assert_eq!(edges_of(&files), ["a -> b", "b -> a", "c -> a"]);
    assert_eq!(circles_of(&files), [["a", "b"]]);
}

#[test]
fn a_circle_may_take_several_steps() {
    let files = [
        ("lib.rs", "mod a; mod b; mod c; mod d;"),
        ("a.rs", "use crate::{b::{self, f}, d};"),
        ("b.rs", "pub fn f() { super::c::g() }"),
        (
            "c.rs",
            "pub fn g() { let x = 'x'; let s = \"crate::d\"; crate::a::h::<'static>() }",
        ),
        ("d.rs", ""),
    ];
    assert_eq!(circles_of(&files), [["a", "b", "c"]]);
}

#[test]
fn parents_and_children_may_use_each_other() {
    let files = [
        ("lib.rs", "mod a; use a::f;"),
        ("a/mod.rs", "pub mod b; use b::g; pub fn f() {}"),
        (
            "a/b.rs",
            "use super::f; use crate::a::f as h; pub fn g() {}",
        ),
    ];
    assert_eq!(edges_of(&files), [""; 0]);
}

#[test]
fn rooms_are_judged_as_a_whole() {
    // No module below `a` is in a circle with one below `b`, but the two rooms are.
    let files = [
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "mod x; mod y;"),
        ("a/x.rs", "use crate::b::z::Z;"),
        ("a/y.rs", "pub struct Y;"),
        ("b.rs", "pub mod z; mod w;"),
        ("b/z.rs", "pub struct Z;"),
        ("b/w.rs", "use crate::a::y::Y;"),
    ];
    assert_eq!(circles_of(&files), [["a", "b"]]);
    let inside = [
        ("lib.rs", "mod a;"),
        ("a.rs", "mod x; mod y;"),
        ("a/x.rs", "use super::y::Y; pub struct X;"),
        ("a/y.rs", "use super::x::X; pub struct Y;"),
    ];
    assert_eq!(circles_of(&inside), [["a::x", "a::y"]]);
}

#[test]
fn names_are_followed_to_where_they_are_defined() {
    let files = [
        (
            "lib.rs",
            "mod a; mod b; mod c; pub use a::A; pub use b::*; use c::C as D;",
        ),
        ("a.rs", "use crate::B; pub struct A;"),
        ("b.rs", "use crate::{A, D}; pub struct B;"),
        ("c.rs", "mod e; pub use e::*; pub use self::e::E as C;"),
        ("c/e.rs", "pub enum E {}"),
    ];
    assert_eq!(edges_of(&files), ["a -> b", "b -> a", "b -> c"]);
}

#[test]
fn macros_belong_to_their_module() {
    let files = [
        ("lib.rs", "mod a; mod b;"),
        (
            "a.rs",
            "#[macro_export] macro_rules! m { () => { $crate::b::f() } }",
        ),
        ("b.rs", "use crate::m; pub fn f() {}"),
    ];
    assert_eq!(circles_of(&files), [["a", "b"]]);
}

#[test]
fn tests_are_no_part_of_it() {
    let files = [
        ("lib.rs", "mod a; mod b; #[cfg(test)] mod testing;"),
        (
            "a.rs",
            "use crate::b::B; #[cfg(test)] mod tests { use crate::b; } pub struct A;",
        ),
        (
            "b.rs",
            "#[cfg(test)] use crate::a::A; #[cfg(test)] mod tests; #[cfg(not(test))] pub struct B;",
        ),
    ];
    assert_eq!(edges_of(&files), ["a -> b"]);
}

#[test]
fn modules_inside_a_file_count() {
    let files = [
        (
            "lib.rs",
            "mod a { use super::b::B; pub mod deep { pub struct A; } } mod b;",
        ),
        ("b.rs", "use crate::a::deep::A; pub struct B;"),
    ];
    assert_eq!(circles_of(&files), [["a", "b"]]);
}

#[test]
fn files_are_short_enough_to_be_read_at_once() {
    let files = lengths::all();
    assert!(files.len() > 500, "only {} files were found", files.len());
    let long: Vec<String> = files
        .iter()
        .filter(|file| file.lines > lengths::LONGEST)
        .map(ToString::to_string)
        .collect();
    assert!(
        long.is_empty(),
        "more than {} lines, so cut by concepts: {long:?}",
        lengths::LONGEST
    );
}

/// PEFT's own table of the layers that it adapts in each model, transformers' classes of tokenizers, the
/// names of chat templates, the facade's table of its features, and transformers' ways to scale positions.
const TABLES: &[&str] = &[
    "qoft-chat/src/builtin.rs",
    "qoft-peft/src/defaults.rs",
    "qoft-train/src/tokenizer/classes.rs",
    "qoft/src/schemes.rs",
    "qoft/src/write/older_keys.rs",
];

#[test]
fn shared_crates_name_no_scheme_and_no_model() {
    let words = names::names();
    let mut report = String::new();
    for package in names::NEUTRAL.iter().copied().map(packages::named) {
        for file in names::sources(&package.file("")) {
            if TABLES.iter().any(|table| file.ends_with(table)) {
                continue;
            }
            let text = std::fs::read_to_string(&file).unwrap();
            for names::Mention { line, name } in names::mentions(&text, &words) {
                report += &format!("{}:{line}: {name}\n", file.display());
            }
        }
    }
    assert!(report.is_empty(), "names of schemes or models:\n{report}");
}

#[test]
fn names_are_found_in_code_and_comments_but_not_in_examples() {
    let words = names::names();
    for word in ["gptq", "inc-fp8", "hqq", "llama", "bitsandbytes"] {
        assert!(words.iter().any(|known| known == word), "{word}");
    }
    let text = "\
//! Layers of any scheme, such as GPTQ.
//! ```
//! let path = \"llama\";
//! ```
//! GPTQ has its own.
fn f() {
    g(\"model.Llama.proj\");
    // As in bitsandbytes.
}
#[cfg(test)]
const T: u8 = 0; // awq
#[cfg(test)]
mod tests {
    // eetq
}
";
    let found = names::mentions(text, &words);
    let found: Vec<(usize, &str)> = found.iter().map(|m| (m.line, m.name.as_str())).collect();
    assert_eq!(
        found,
        [(5, "gptq"), (7, "llama"), (8, "bitsandbytes"), (11, "awq")]
    );
}

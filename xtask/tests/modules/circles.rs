//! Imports between the modules of a crate, and circles of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Display, Formatter};

use super::tree::{ModulePath, Tree};

/// Something below the module `to` is named somewhere below its sibling `from`.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge {
    pub from: String,
    pub to: String,
    /// The module that names it.
    module: String,
    /// As it is written there.
    path: String,
}

impl Display for Edge {
    fn fmt(&self, f: &mut Formatter) -> std::fmt::Result {
        let Self { from, to, .. } = self;
        write!(f, "{from} -> {to}: {} in {}", self.path, self.module)
    }
}

/// The imports of a crate. Each is one between siblings: the modules at which the ways to both ends
/// part. A module and one above or below it may use each other as they like.
pub fn edges(tree: &Tree) -> BTreeSet<Edge> {
    let mut edges = BTreeSet::new();
    for (module, source) in &tree.modules {
        let imports = source.imports.iter().map(|import| &import.path);
        for path in imports.chain(&source.paths) {
            let target = tree.resolve(module, path);
            if let Some((from, to)) = target.and_then(|target| parting(module, &target)) {
                edges.insert(Edge {
                    from,
                    to,
                    module: module.join("::"),
                    path: path.join("::"),
                });
            }
        }
    }
    edges
}

/// The siblings at which the ways to two modules part.
fn parting(from: &ModulePath, to: &ModulePath) -> Option<(String, String)> {
    let common = from
        .iter()
        .zip(to)
        .take_while(|(from, to)| from == to)
        .count();
    let name = |path: &ModulePath| Some(path.get(..=common)?.join("::"));
    Some((name(from)?, name(to)?))
}

/// The sets of modules that lead to each other.
pub fn circles(edges: &BTreeSet<Edge>) -> Vec<Vec<String>> {
    let mut next: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for edge in edges {
        next.entry(&edge.from).or_default().insert(&edge.to);
    }
    let reached = |from: &str| {
        let mut reached = BTreeSet::new();
        let mut open = vec![from];
        while let Some(module) = open.pop() {
            for &to in next.get(module).into_iter().flatten() {
                if reached.insert(to) {
                    open.push(to);
                }
            }
        }
        reached
    };
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        next.keys().map(|&from| (from, reached(from))).collect();
    let mut circles: Vec<Vec<String>> = Vec::new();
    for (&module, targets) in reached
        .iter()
        .filter(|(module, targets)| targets.contains(*module))
    {
        if circles.iter().flatten().any(|known| known == module) {
            continue;
        }
        let back = targets
            .iter()
            .filter(|to| reached.get(*to).is_some_and(|back| back.contains(module)));
        circles.push(back.map(|&to| to.to_owned()).collect());
    }
    circles
}

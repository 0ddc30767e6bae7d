//! The modules of a crate, and what the paths in them mean.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::source::Source;

/// A path of module names from the root of a crate, which is the empty one.
pub type ModulePath = Vec<String>;

/// All modules of a crate.
#[derive(Debug, Default)]
pub struct Tree {
    pub modules: BTreeMap<ModulePath, Source>,
}

impl Tree {
    /// Reads the crate that starts at the file `root`.
    pub fn read(root: &Path) -> Self {
        let folder = root.parent().expect("a file in a folder");
        let read = |path: &Path| std::fs::read_to_string(path).ok();
        let mut tree = Self::default();
        let name = root.file_name().expect("a file").to_owned();
        tree.add(Vec::new(), &[PathBuf::from(name)], &|path| {
            read(&folder.join(path))
        });
        tree
    }

    /// A crate of files that are given, the first of which is its root.
    pub fn from_files(files: &[(&str, &str)]) -> Self {
        let read = |path: &Path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path);
            found.map(|(_, text)| (*text).to_owned())
        };
        let mut tree = Self::default();
        tree.add(Vec::new(), &[PathBuf::from(files[0].0)], &read);
        tree
    }

    /// Adds the module at `path`, whose file is one of `files`, and those below it.
    fn add(&mut self, path: ModulePath, files: &[PathBuf], read: &dyn Fn(&Path) -> Option<String>) {
        let text = files.iter().find_map(|file| read(file));
        let text = text.unwrap_or_else(|| panic!("module {} in {files:?}", path.join("::")));
        self.insert(path, Source::parse(&text), read);
    }

    fn insert(
        &mut self,
        path: ModulePath,
        mut source: Source,
        read: &dyn Fn(&Path) -> Option<String>,
    ) {
        let child = |name: &str| [path.clone(), vec![name.to_owned()]].concat();
        for name in &source.files {
            let path = child(name);
            let stem: PathBuf = path.iter().collect();
            self.add(
                path,
                &[stem.with_extension("rs"), stem.join("mod.rs")],
                read,
            );
        }
        for (name, source) in std::mem::take(&mut source.inline) {
            self.insert(child(&name), source, read);
        }
        self.modules.insert(path, source);
    }

    /// The module that `path`, written in the module `from`, leads to: the one that it names, or
    /// in which what it names is defined. `None` if it leads out of the crate.
    pub fn resolve(&self, from: &ModulePath, path: &[String]) -> Option<ModulePath> {
        self.follow(from, path, &mut Vec::new())
    }

    fn follow(
        &self,
        from: &ModulePath,
        path: &[String],
        seen: &mut Vec<(ModulePath, String)>,
    ) -> Option<ModulePath> {
        let (first, mut rest) = path.split_first()?;
        let mut at = match first.as_str() {
            "crate" => Vec::new(),
            "self" => from.clone(),
            "super" => self.parent(from)?,
            _ => {
                rest = path;
                from.clone()
            }
        };
        while let Some((name, after)) = rest.split_first() {
            if name == "super" {
                at = self.parent(&at)?;
            } else {
                match self.name(&at, name, seen) {
                    Name::Module(module) => at = module,
                    Name::Item(module) => return Some(module),
                    // A path that starts with the name of another crate.
                    Name::Unknown if rest.len() == path.len() => return None,
                    Name::Unknown => return Some(at),
                    Name::Outside => return None,
                }
            }
            rest = after;
        }
        Some(at)
    }

    fn parent(&self, path: &ModulePath) -> Option<ModulePath> {
        let (_, parent) = path.split_last()?;
        Some(parent.to_vec())
    }

    /// What `name` means in a module.
    fn name(&self, module: &ModulePath, name: &str, seen: &mut Vec<(ModulePath, String)>) -> Name {
        let child = [module.clone(), vec![name.to_owned()]].concat();
        if self.modules.contains_key(&child) {
            return Name::Module(child);
        }
        let key = (module.clone(), name.to_owned());
        let Some(source) = self.modules.get(module).filter(|_| !seen.contains(&key)) else {
            return Name::Unknown;
        };
        if source.items.iter().any(|item| item == name) {
            return Name::Item(module.clone());
        }
        seen.push(key);
        if module.is_empty()
            && let Some(owner) = self.exporter(name)
        {
            return Name::Item(owner);
        }
        let mut imports = source.imports.iter();
        if let Some(import) = imports.find(|import| import.name.as_deref() == Some(name)) {
            // `use name;` of another crate names itself.
            return match self.follow(module, &import.path, seen) {
                None => Name::Outside,
                Some(module)
                    if module
                        .last()
                        .is_some_and(|last| Some(last) == import.path.last()) =>
                {
                    Name::Module(module)
                }
                Some(module) => Name::Item(module),
            };
        }
        let globs = source.imports.iter().filter(|import| import.name.is_none());
        for glob in globs {
            let Some(below) = self.follow(module, &glob.path, seen) else {
                continue;
            };
            match self.name(&below, name, seen) {
                Name::Unknown | Name::Outside => {}
                known => return known,
            }
        }
        Name::Unknown
    }

    /// The module that exports a macro.
    fn exporter(&self, name: &str) -> Option<ModulePath> {
        let mut modules = self.modules.iter();
        let exports = |source: &Source| source.exported_macros.iter().any(|known| known == name);
        modules
            .find(|(_, source)| exports(source))
            .map(|(path, _)| path.clone())
    }
}

/// What a name is.
enum Name {
    Module(ModulePath),
    /// Something that is defined in this module.
    Item(ModulePath),
    /// Something of another crate.
    Outside,
    Unknown,
}

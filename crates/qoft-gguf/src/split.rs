//! Models in one file or several.

use std::path::{Path, PathBuf};

use qoft_scheme::{Error, Result};

use crate::file::{File, MAGIC};

/// The ending of files.
pub const EXTENSION: &str = "gguf";

/// Whether a path is a file, or a folder of nothing else that holds a model.
pub fn is_model(path: &Path) -> bool {
    match path.is_dir() {
        false => path.is_file() && (has_extension(path) || begins_as_one(path)),
        true => !has_safetensors(path) && !files_of(path).is_empty(),
    }
}

fn has_extension(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default();
    extension.eq_ignore_ascii_case(EXTENSION)
}

fn begins_as_one(path: &Path) -> bool {
    let mut start = [0; 4];
    let read = std::fs::File::open(path);
    let read = read.and_then(|mut file| std::io::Read::read_exact(&mut file, &mut start));
    read.is_ok() && start == *MAGIC
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path())
}

fn has_safetensors(folder: &Path) -> bool {
    entries(folder).any(|path| path.extension().is_some_and(|e| e == "safetensors"))
}

/// The files of a folder that begin a model, sorted: other parts of split models are none.
fn files_of(folder: &Path) -> Vec<PathBuf> {
    let files = entries(folder).filter(|path| has_extension(path) && path.is_file());
    let mut files: Vec<PathBuf> = files.collect();
    files.retain(|path| part(path).is_none_or(|part| part.number == 1));
    files.sort();
    files
}

/// Which part of a split model a file is, by its name: `NAME-00001-of-00003.gguf`.
struct Part {
    stem: String,
    number: usize,
    count: usize,
}

fn part(path: &Path) -> Option<Part> {
    let name = path.file_stem()?.to_str()?;
    let (rest, count) = name.rsplit_once("-of-")?;
    let (stem, number) = rest.rsplit_once('-')?;
    let digits = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
    (digits(number) && digits(count)).then_some(())?;
    Some(Part {
        stem: stem.to_owned(),
        number: number.parse().ok()?,
        count: count.parse().ok()?,
    })
}

/// The file that `path` names, or the only model of the folder that it is.
///
/// # Errors
/// If the folder has several.
pub fn file_of(path: &Path) -> Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    match &files_of(path)[..] {
        [only] => Ok(only.clone()),
        files => {
            let names = files.iter().filter_map(|file| file.file_name()?.to_str());
            let names: Vec<&str> = names.collect();
            let reason = format!("has several models, name one of them: {}", names.join(", "));
            Err(Error::file(path, reason))
        }
    }
}

/// All files of a model; the first one has its metadata.
///
/// # Errors
/// If one is missing or damaged.
pub fn open(path: &Path) -> Result<Vec<File>> {
    let path = file_of(path)?;
    let first = File::open(&path)?;
    let count = first.metadata.size("split.count")?.unwrap_or(1);
    if count <= 1 {
        return Ok(vec![first]);
    }
    let Some(part) = part(&path).filter(|part| part.count == count && part.number == 1) else {
        let reason = format!(
            "one of {count} parts of a model; name the first one, NAME-00001-of-{count:05}.gguf"
        );
        return Err(Error::file(path, reason));
    };
    let mut files = vec![first];
    for number in 2..=count {
        let name = format!("{}-{number:05}-of-{count:05}.gguf", part.stem);
        let path = path.with_file_name(name);
        let file = File::open(&path)?;
        if file.metadata.size("split.no")? != Some(number - 1) {
            let reason = format!("expected part {number} of {count} by `split.no`");
            return Err(Error::file(path, reason));
        }
        files.push(file);
    }
    Ok(files)
}

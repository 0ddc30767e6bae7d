//! What a path to data leads to, before rows are read from it.

mod describe;
mod unpack;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Cursor, ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::error::DataError;
use super::split::Split;
use unpack::unpacked;

/// What a data file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// One JSON row on each line.
    JsonLines,
    /// JSON rows one after another, or one array of them.
    Json,
    /// Texts with blank lines between them.
    Text,
    /// Texts with a delimiter between them, the names on the first line.
    Table {
        /// What stands between two cells.
        delimiter: u8,
    },
    /// A Parquet file, which is read by itself.
    #[cfg(feature = "parquet")]
    Parquet,
}

/// A data file.
pub(super) struct Opened {
    pub(super) kind: Kind,
    /// What it holds, unpacked.
    pub(super) content: Box<dyn BufRead>,
}

/// The endings of data files, without those of compression.
const ENDINGS: [&str; 7] = ["jsonl", "ndjson", "json", "csv", "tsv", "txt", "parquet"];
/// The endings of packed files.
const PACKED: [&str; 3] = ["gz", "zst", "zstd"];
/// Files that lie beside data sets.
const BESIDE: [&str; 4] = [
    "dataset_info.json",
    "dataset_infos.json",
    "dataset_dict.json",
    "state.json",
];
/// Bytes that show what a file is.
const HEAD: usize = 4096;

/// Data files that a path leads to.
#[derive(Debug)]
pub(super) struct Found {
    /// The file itself, or those of a folder in the order of their names.
    pub(super) files: Vec<PathBuf>,
    /// The names of these files, where they are a folder's.
    pub(super) names: Vec<String>,
    /// The names of the folder's data files that are for something else.
    pub(super) others: Vec<String>,
}

/// The data files that a path leads to, of a folder those for `split`.
pub(super) fn files(path: &Path, split: Split) -> Result<Found, DataError> {
    if !path.is_dir() {
        return Ok(Found {
            files: vec![path.to_owned()],
            names: Vec::new(),
            others: Vec::new(),
        });
    }
    for folder in [path.to_owned(), path.join("data")] {
        let (names, others) = split.choose(in_folder(&folder));
        if !names.is_empty() {
            return Ok(Found {
                files: names.iter().map(|name| folder.join(name)).collect(),
                names,
                others,
            });
        }
    }
    Err(DataError::Unusable {
        path: path.to_owned(),
        what: describe::folder_without_data(path),
    })
}

/// The names of the data files of a folder; of texts only where there is nothing else.
fn in_folder(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let is_data = |name: &String| {
        !name.starts_with('.')
            && !BESIDE.contains(&&**name)
            && ending(Path::new(name)).is_some()
            && folder.join(name).is_file()
    };
    let mut names: Vec<String> = names.filter(is_data).collect();
    names.sort();
    let is_text = |name: &str| ending(Path::new(name)) == Some("txt");
    if names.iter().any(|name| !is_text(name)) {
        names.retain(|name| !is_text(name));
    }
    names
}

/// The ending of a data file's name in small letters, without that of its compression.
fn ending(path: &Path) -> Option<&'static str> {
    let last = |path: &Path| {
        let ending = path.extension().and_then(|ending| ending.to_str());
        ending.map(str::to_ascii_lowercase)
    };
    let mut found = last(path)?;
    if PACKED.contains(&&*found) {
        found = last(Path::new(path.file_stem()?))?;
    }
    ENDINGS.into_iter().find(|ending| *ending == found)
}

/// Opens a data file, or says what the path leads to instead.
pub(super) fn open(path: &Path) -> Result<Opened, DataError> {
    let unusable = |what: String| DataError::Unusable {
        path: path.to_owned(),
        what,
    };
    let io = |error| io_error(path, error);
    match fs::metadata(path) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(unusable(describe::missing(path)));
        }
        Err(error) => return Err(io(error)),
    }
    let file = File::open(path).map_err(io)?;
    let packed = file.metadata().map_err(io)?.len();
    let mut content = unpacked(BufReader::new(file), packed).map_err(io)?;
    let mut head = Vec::new();
    let start = (&mut content).take(HEAD as u64).read_to_end(&mut head);
    start.map_err(io)?;
    if head.starts_with(b"PAR1") {
        #[cfg(feature = "parquet")]
        return Ok(Opened {
            kind: Kind::Parquet,
            content: Box::new(std::io::empty()),
        });
    }
    if let Some(what) = describe::bytes(&head) {
        return Err(unusable(what.to_owned()));
    }
    let kind = kind(path, &head).ok_or_else(|| DataError::UnknownKind {
        path: path.to_owned(),
    })?;
    Ok(Opened {
        kind,
        content: Box::new(BufReader::new(Cursor::new(head).chain(content))),
    })
}

/// What a file holds, by the ending of its name and by how it begins.
fn kind(path: &Path, head: &[u8]) -> Option<Kind> {
    let start = head.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(head);
    let first = start.trim_ascii_start().first();
    match (ending(path), first) {
        (Some("jsonl" | "ndjson"), Some(b'[')) | (Some("json"), _) => Some(Kind::Json),
        (Some("jsonl" | "ndjson"), _) => Some(Kind::JsonLines),
        (Some("csv"), _) => Some(Kind::Table { delimiter: b',' }),
        (Some("tsv"), _) => Some(Kind::Table { delimiter: b'\t' }),
        (Some("txt"), _) => Some(Kind::Text),
        (None, Some(b'{' | b'[')) => Some(Kind::Json),
        _ => None,
    }
}

pub(super) fn io_error(path: &Path, source: std::io::Error) -> DataError {
    DataError::Io {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_follow_names_and_what_files_begin_with() {
        let kind = |name: &str, head: &[u8]| kind(Path::new(name), head);
        assert_eq!(kind("a.jsonl.gz", b"{"), Some(Kind::JsonLines));
        assert_eq!(kind("a.JSONL", b"\n [{"), Some(Kind::Json));
        assert_eq!(
            kind("a.tsv.zst", b""),
            Some(Kind::Table { delimiter: b'\t' })
        );
        assert_eq!(kind("rows", b"\xEF\xBB\xBF{"), Some(Kind::Json));
        assert_eq!(kind("rows", b"text"), None);
        assert_eq!(kind("a.parquet", b"text"), None);
    }

    #[test]
    fn folders_give_what_is_for_training() {
        let folder = tempfile::tempdir().unwrap();
        let names = [
            "b.jsonl",
            "a.csv.gz",
            "README.md",
            "notes.txt",
            "dataset_info.json",
        ];
        for name in names {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let found = |folder: &Path| {
            let found = files(folder, Split::Train).unwrap();
            assert!(found.files.iter().all(|file| file.is_file()));
            found.names
        };
        assert_eq!(found(folder.path()), ["a.csv.gz", "b.jsonl"]);
        let hub = tempfile::tempdir().unwrap();
        let data = hub.path().join("data");
        fs::create_dir(&data).unwrap();
        for name in ["test-0.parquet", "train-1.parquet", "train-0.parquet"] {
            fs::write(data.join(name), "").unwrap();
        }
        fs::write(hub.path().join("README.md"), "").unwrap();
        assert_eq!(found(hub.path()), ["train-0.parquet", "train-1.parquet"]);
    }
}

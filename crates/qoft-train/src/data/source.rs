//! What a path to data leads to, before rows are read from it.

use std::fs::{self, File};
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;

use super::error::DataError;

/// What a data file holds, by the ending of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// One JSON row on each line.
    JsonLines,
    /// JSON rows one after another, or one array of them.
    Json,
    /// Texts with blank lines between them.
    Text,
}

/// Opens a data file, or says what the path leads to instead.
pub(super) fn open(path: &Path) -> Result<(Kind, BufReader<File>), DataError> {
    let unusable = |what: String| DataError::Unusable {
        path: path.to_owned(),
        what,
    };
    match fs::metadata(path) {
        Ok(data) if data.is_dir() => return Err(unusable(describe_folder(path))),
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(unusable(describe_missing(path)));
        }
        Err(error) => return Err(io_error(path, error)),
    }
    let ending = path.extension().and_then(|ending| ending.to_str());
    let kind = match ending.unwrap_or_default().to_ascii_lowercase().as_str() {
        "jsonl" | "ndjson" => Some(Kind::JsonLines),
        "json" => Some(Kind::Json),
        "txt" => Some(Kind::Text),
        _ => None,
    };
    let mut file = File::open(path).map_err(|error| io_error(path, error))?;
    let mut head = Vec::new();
    let start = (&mut file).take(64).read_to_end(&mut head);
    start.map_err(|error| io_error(path, error))?;
    if let Some(what) = describe_bytes(&head) {
        return Err(unusable(what.to_owned()));
    }
    let Some(kind) = kind else {
        return Err(DataError::UnknownKind {
            path: path.to_owned(),
        });
    };
    let rewound = file.seek(SeekFrom::Start(0));
    rewound.map_err(|error| io_error(path, error))?;
    Ok((kind, BufReader::new(file)))
}

pub(super) fn io_error(path: &Path, source: std::io::Error) -> DataError {
    DataError::Io {
        path: path.to_owned(),
        source,
    }
}

fn describe_folder(path: &Path) -> String {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| {
            let name = name.to_ascii_lowercase();
            [".jsonl", ".json", ".txt"]
                .iter()
                .any(|ending| name.ends_with(ending))
        })
        .collect();
    names.sort();
    names.truncate(5);
    if names.is_empty() {
        "is a folder, and no data file (.jsonl, .json or .txt) lies in it".to_owned()
    } else {
        format!(
            "is a folder; give one of the files in it, such as {}",
            names.join(", ")
        )
    }
}

fn describe_missing(path: &Path) -> String {
    let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
    let is_name = |part: &&str| {
        part.chars()
            .all(|c| c.is_alphanumeric() || "-_.".contains(c))
    };
    match &parts[..] {
        [owner, name] if path.extension().is_none() && parts.iter().all(is_name) => {
            format!(
                "does not exist. If it is the name of a data set on the Hugging Face Hub: \
                 `hf download --repo-type dataset {owner}/{name} --local-dir {name}` fetches it, \
                 then give one of its files (.jsonl, .json or .txt)"
            )
        }
        _ => "does not exist".to_owned(),
    }
}

/// What a file is that starts with the bytes `head`; `None` when it may be text in UTF-8.
fn describe_bytes(head: &[u8]) -> Option<&'static str> {
    let utf16 = "is text in UTF-16, as `>` of older PowerShells writes it; save it as UTF-8 \
                 (PowerShell: Get-Content FILE | Set-Content -Encoding utf8 NEW, elsewhere: \
                 iconv -f UTF-16 -t UTF-8 FILE > NEW)";
    let zeros = |start: usize| {
        let bytes = head.iter().skip(start).step_by(2);
        head.len() >= 4 && bytes.copied().all(|byte| byte == 0)
    };
    let kinds: [(&[u8], &str); 9] = [
        (b"\xFF\xFE\0\0", "is text in UTF-32; save it as UTF-8"),
        (b"\0\0\xFE\xFF", "is text in UTF-32; save it as UTF-8"),
        (b"\xFF\xFE", utf16),
        (b"\xFE\xFF", utf16),
        (
            b"\x1F\x8B",
            "is compressed by gzip; unpack it first (gunzip)",
        ),
        (
            b"\x28\xB5\x2F\xFD",
            "is compressed by zstd; unpack it first (unzstd)",
        ),
        (b"PK\x03\x04", "is a zip archive; unpack it first"),
        (
            b"PAR1",
            "is a Parquet table; write its rows as JSON lines (in Python: \
             datasets.Dataset.from_parquet(FILE).to_json(NEW))",
        ),
        (
            b"version https://git-lfs",
            "is a pointer of Git LFS in place of the file; `git lfs pull` fetches the file",
        ),
    ];
    let known = kinds.iter().find(|(start, _)| head.starts_with(start));
    known
        .map(|(_, what)| *what)
        .or_else(|| (zeros(0) || zeros(1)).then_some(utf16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_no_text_are_described() {
        let cases: [(&[u8], Option<&str>); 7] = [
            (b"{\"text\": 1}", None),
            (b"\xEF\xBB\xBF{}", None),
            (b"", None),
            (b"\xFF\xFE{\0", Some("UTF-16")),
            (b"{\0\"\0t\0", Some("UTF-16")),
            (b"PAR1...", Some("Parquet")),
            (
                b"version https://git-lfs.github.com/spec/v1\n",
                Some("Git LFS"),
            ),
        ];
        for (head, expected) in cases {
            match (describe_bytes(head), expected) {
                (None, None) => {}
                (Some(what), Some(expected)) => assert!(what.contains(expected), "{what}"),
                (found, _) => panic!("{head:?}: {found:?}"),
            }
        }
    }
}

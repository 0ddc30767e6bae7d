//! What is said of paths that lead to no rows.

use std::fs;
use std::path::Path;

pub(super) fn folder_without_data(folder: &Path) -> String {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let has_arrow = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let has_arrow = has_arrow.into_iter().any(|name| name.ends_with(".arrow"));
    let arrow = match has_arrow {
        true => {
            "; it has Arrow files as `save_to_disk` of datasets writes them: in Python \
             datasets.load_from_disk(FOLDER).to_parquet(NEW) writes a file that can be read"
        }
        false => "",
    };
    format!(
        "is a folder, and no data file (.jsonl, .json, .csv, .tsv, .txt or .parquet) lies in it{arrow}"
    )
}

pub(super) fn missing(path: &Path) -> String {
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
                 then give that folder"
            )
        }
        _ => "does not exist".to_owned(),
    }
}

/// What a file is that starts with the bytes `head`; `None` when it may be text in UTF-8.
pub(super) fn bytes(head: &[u8]) -> Option<&'static str> {
    let utf16 = "is text in UTF-16, as `>` of older PowerShells writes it; save it as UTF-8 \
                 (PowerShell: Get-Content FILE | Set-Content -Encoding utf8 NEW, elsewhere: \
                 iconv -f UTF-16 -t UTF-8 FILE > NEW)";
    let zeros = |start: usize| {
        let evens = head.iter().skip(start).step_by(2);
        head.len() >= 4 && evens.copied().all(|byte| byte == 0)
    };
    let kinds: [(&[u8], &str); 8] = [
        (b"\xFF\xFE\0\0", "is text in UTF-32; save it as UTF-8"),
        (b"\0\0\xFE\xFF", "is text in UTF-32; save it as UTF-8"),
        (b"\xFF\xFE", utf16),
        (b"\xFE\xFF", utf16),
        (
            b"PK\x03\x04",
            "is a zip archive, which is to be unpacked first, or a table of a spreadsheet, which is to be \
             saved as CSV",
        ),
        (
            b"PAR1",
            "is a Parquet file, which this program was built without: build it with the Cargo \
             feature `parquet`, or write its rows as JSON lines (in Python: \
             datasets.Dataset.from_parquet(FILE).to_json(NEW))",
        ),
        (
            b"ARROW1",
            "is an Arrow file; write its rows as JSON lines (in Python: \
             datasets.Dataset.from_file(FILE).to_json(NEW))",
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
            match (bytes(head), expected) {
                (None, None) => {}
                (Some(what), Some(expected)) => assert!(what.contains(expected), "{what}"),
                (found, _) => panic!("{head:?}: {found:?}"),
            }
        }
    }
}

//! Where the rows of a data set come from, so that what goes wrong with one can name it.

use std::path::{Path, PathBuf};

use super::place::RowNumber;

/// Where a row is: in which of some files, and where in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Origin {
    file: u32,
    row: RowNumber,
}

/// Where each row of a data set was read. Rows from elsewhere than a file have no place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Origins {
    files: Vec<PathBuf>,
    rows: Vec<Option<Origin>>,
}

impl Origins {
    /// Of no rows yet, of which those that are read come from `files`.
    pub(super) fn of_files(files: &[PathBuf]) -> Self {
        Self {
            files: files.to_vec(),
            rows: Vec::new(),
        }
    }

    /// One row more, of the file with an index.
    pub(super) fn push(&mut self, file: usize, row: RowNumber) {
        let file = file as u32;
        self.rows.push(Some(Origin { file, row }));
    }

    /// Those of `count` rows, and behind them those of others.
    pub(super) fn append(&mut self, count: usize, others: Self) {
        let files = self.files.len() as u32;
        self.rows.resize(count, None);
        let moved = others.rows.into_iter().map(|row| {
            row.map(|origin| Origin {
                file: origin.file + files,
                ..origin
            })
        });
        self.rows.extend(moved);
        self.files.extend(others.files);
    }

    /// Those of the rows with some indices.
    pub(super) fn of_rows(&self, indices: impl IntoIterator<Item = usize>) -> Self {
        let rows = indices.into_iter();
        Self {
            files: self.files.clone(),
            rows: rows.map(|index| self.at(index)).collect(),
        }
    }

    /// Names rows, as `train.jsonl line 3`, without the file where it is that of the row before. A row without
    /// a place is named by its number, counted from 1.
    pub(super) fn names(&self, indices: &[usize]) -> Vec<String> {
        let mut last = None;
        let name = |&index: &usize| {
            let before = last;
            let found = self.at(index);
            last = found.map(|origin| origin.file);
            match found {
                None => format!("row {}", index + 1),
                Some(Origin { file, row }) if before == Some(file) => row.to_string(),
                Some(Origin { file, row }) => {
                    let file = self.files.get(file as usize);
                    let file = file.map_or(Path::new(""), PathBuf::as_path);
                    format!("{} {row}", file.display())
                }
            }
        };
        indices.iter().map(name).collect()
    }

    fn at(&self, index: usize) -> Option<Origin> {
        self.rows.get(index).copied().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_named_by_their_files() {
        let of = |file: &str, lines: &[usize]| {
            let mut origins = Origins::of_files(&[file.into()]);
            for &line in lines {
                origins.push(0, RowNumber::Line(line));
            }
            origins
        };
        let mut all = of("a.jsonl", &[1, 4]);
        // Two rows, and one from elsewhere.
        all.append(3, of("b.csv", &[2]));
        let names = all.names(&[0, 1, 2, 3]);
        assert_eq!(names, ["a.jsonl line 1", "line 4", "row 3", "b.csv line 2"]);
        assert_eq!(all.of_rows([3, 1]).names(&[1]), ["a.jsonl line 4"]);
    }
}

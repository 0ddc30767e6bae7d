//! Examples on disk: the same data need not become tokens twice, and their tokens need no memory.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytemuck::cast_slice;
use qoft_core::MappedFile;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::data_row::DataRow;
use super::dataset::{DatasetReport, Rows};
use super::example::Example;
use super::numbers::Numbers;
use super::options::DatasetOptions;
use super::origins::Origins;
use super::place::RowNumber;
use crate::tokenizer::Tokenizer;

/// Counts changes of what is learned of a row: what was kept under others is not used.
const RULES: u32 = 4;
/// What a file begins with; another one is of another version, or of a machine with another order of
/// bytes.
const MAGIC: &[u8; 16] = if cfg!(target_endian = "little") {
    b"qoft rows, v. 4\n"
} else {
    b"qoft rows, v. 4\r"
};
/// Bytes of a SHA-256.
const DIGEST: usize = 32;
/// Where the first example begins.
const START: usize = MAGIC.len() + DIGEST;
/// Bytes of a number.
const NUMBER: usize = 4;
/// Numbers of a row: its kind, the index of its file and its place there.
const OF_ROW: usize = 4;
/// What the names of files begin with until they are finished.
const UNFINISHED: &str = ".qoft-rows-";
/// After how long without a change nobody writes a file any more.
const LEFT: Duration = Duration::from_secs(24 * 60 * 60);

/// The file for some data, which may not be there yet.
///
/// [`MAGIC`] and the digest of what follows come first, then the ids and the labels of each example, the
/// kind and the place of each row, the length of each example, the [`Header`] and its length.
pub(super) struct CacheFile(PathBuf);

/// What tells the numbers apart; it is written when all are there.
#[derive(Serialize, Deserialize)]
struct Header {
    report: DatasetReport,
    rows: usize,
    /// Examples that these consist of.
    examples: usize,
}

impl CacheFile {
    /// The file in `folder` for what `files` hold, as `tokenizer` and `options` make tokens of it;
    /// `None` if one of the files cannot be read.
    pub(super) fn new<R>(
        folder: &Path,
        files: &[PathBuf],
        tokenizer: &Tokenizer,
        options: &DatasetOptions,
    ) -> Option<Self> {
        let mut hash = Sha256::new();
        hash.update(MAGIC);
        hash.update(env!("CARGO_PKG_VERSION"));
        hash.update(RULES.to_le_bytes());
        hash.update(std::any::type_name::<R>());
        hash.update(format!("{options:?}"));
        hash.update(tokenizer.identity().ok()?);
        for path in files {
            // The ending of the name says how a file is read, and rows of several files are named by it.
            let name = match files.len() {
                1 => path.extension(),
                _ => path.file_name(),
            };
            hash.update(name.unwrap_or_default().as_encoded_bytes());
            let mut file = File::open(path).ok()?;
            let length = std::io::copy(&mut file, &mut hash).ok()?;
            hash.update(length.to_le_bytes());
        }
        let name = format!("{:x}.rows", hash.finalize());
        Some(Self(folder.join(name)))
    }

    /// The rows of `files`, if they are there and whole. Their numbers stay in the file.
    pub(super) fn read<R: DataRow>(&self, files: &[PathBuf]) -> Option<Rows<R>> {
        if !is_whole(&self.0).ok()? {
            return None;
        }
        let file = MappedFile::open(&self.0).ok()?;
        let body = file.bytes().get(START..)?;
        let (body, length) = body.split_last_chunk::<NUMBER>()?;
        let length = u32::from_ne_bytes(*length) as usize;
        let (body, header) = body.split_at_checked(body.len().checked_sub(length)?)?;
        let Header {
            report,
            rows,
            examples,
        } = serde_json::from_slice(header).ok()?;
        let of_rows = rows.checked_mul(OF_ROW)?;
        let index = of_rows.checked_add(examples)?.checked_mul(NUMBER)?;
        let index = (START + body.len()).checked_sub(index)?;
        let kinds = Numbers::<u32>::of_file(&file, index, of_rows)?;
        let lengths = Numbers::<u32>::of_file(&file, index + of_rows * NUMBER, examples)?;
        let (mut at, mut lengths) = (START, lengths.iter());
        let mut found = Rows::new([]);
        found.examples.reserve_exact(rows);
        found.origins = Origins::of_files(files);
        for &[kind, of, place, number] in kinds.as_chunks().0 {
            let mut parts = Vec::new();
            for _ in 0..R::parts_of(kind)? {
                let length = *lengths.next()? as usize;
                let labels = at.checked_add(length.checked_mul(NUMBER)?)?;
                parts.push(Example {
                    input_ids: Numbers::of_file(&file, at, length)?,
                    labels: Numbers::of_file(&file, labels, length)?,
                });
                at = labels + length * NUMBER;
            }
            found.examples.push(R::from_parts(kind, parts)?);
            let number = RowNumber::from_words([place, number])?;
            found.origins.push(of as usize, number);
        }
        found.report = report;
        (at == index && lengths.next().is_none()).then_some(found)
    }

    /// A file of this name that appears when all rows are written.
    pub(super) fn create(&self) -> std::io::Result<Writer> {
        let folder = self.0.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        remove_leftovers(folder);
        let mut file = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .tempfile_in(folder)?;
        file.write_all(MAGIC)?;
        file.write_all(&[0; DIGEST])?;
        Ok(Writer {
            path: self.0.clone(),
            file: BufWriter::with_capacity(1 << 20, file),
            hash: Sha256::new(),
            rows: Vec::new(),
            lengths: Vec::new(),
        })
    }
}

/// Removes what processes that were killed left: files that nobody has written into for long.
fn remove_leftovers(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_unfinished = name
            .to_str()
            .is_some_and(|name| name.starts_with(UNFINISHED));
        let changed = entry.metadata().and_then(|file| file.modified());
        let age = changed.ok().and_then(|changed| changed.elapsed().ok());
        if is_unfinished && age.is_some_and(|age| age > LEFT) {
            // It is no error of this run that it stays.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether a file is of this version and undamaged. It is read piece by piece, since pages of a map would count as
/// memory of the process.
fn is_whole(path: &Path) -> std::io::Result<bool> {
    let mut file = File::open(path)?;
    let mut start = [0; START];
    file.read_exact(&mut start)?;
    let (magic, digest) = start.split_at(MAGIC.len());
    let mut hash = Sha256::new();
    std::io::copy(&mut BufReader::with_capacity(1 << 20, file), &mut hash)?;
    Ok(magic == MAGIC && hash.finalize()[..] == *digest)
}

/// A file on its way.
pub(super) struct Writer {
    path: PathBuf,
    file: BufWriter<NamedTempFile>,
    hash: Sha256,
    rows: Vec<[u32; OF_ROW]>,
    lengths: Vec<u32>,
}

impl Writer {
    /// Appends a row that is at `place` of the file with an index.
    pub(super) fn add<R: DataRow>(
        &mut self,
        row: &R,
        file: usize,
        place: RowNumber,
    ) -> std::io::Result<()> {
        let [kind, number] = place.to_words();
        self.rows.push([row.kind(), file as u32, kind, number]);
        for part in row.parts() {
            self.lengths.push(part.input_ids.len() as u32);
            self.write(cast_slice(&part.input_ids))?;
            self.write(cast_slice(&part.labels))?;
        }
        Ok(())
    }

    /// Ends the file, which appears in one piece.
    pub(super) fn finish(mut self, report: DatasetReport) -> std::io::Result<()> {
        let (rows, lengths) = (
            std::mem::take(&mut self.rows),
            std::mem::take(&mut self.lengths),
        );
        self.write(cast_slice(&rows))?;
        self.write(cast_slice(&lengths))?;
        let header = serde_json::to_vec(&Header {
            report,
            rows: rows.len(),
            examples: lengths.len(),
        })?;
        self.write(&header)?;
        self.write(&(header.len() as u32).to_ne_bytes())?;
        let mut file = self.file.into_inner()?;
        file.seek(SeekFrom::Start(MAGIC.len() as u64))?;
        file.write_all(&self.hash.finalize())?;
        file.persist(&self.path)?;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.hash.update(bytes);
        self.file.write_all(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::data::Dataset;

    #[test]
    fn what_is_written_is_read_and_damage_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let cache = CacheFile(folder.path().join("new/a.rows"));
        let files = ["a.jsonl", "b.parquet"].map(PathBuf::from);
        assert!(cache.read::<Example>(&files).is_none());
        let mut dataset = Dataset::new([
            Example::new(vec![1, 2, 3], vec![-100, 2, 3]),
            Example::new(vec![7], vec![-100]),
        ]);
        let places = [(0, RowNumber::Line(2)), (1, RowNumber::Row(1))];
        dataset.origins = Origins::of_files(&files);
        for (file, row) in places {
            dataset.origins.push(file, row);
        }
        let write = |cache: &CacheFile| {
            let mut writer = cache.create().unwrap();
            for (row, (file, place)) in dataset.examples.iter().zip(places) {
                writer.add(row, file, place).unwrap();
            }
            writer.finish(dataset.report.clone()).unwrap();
        };
        write(&cache);
        assert!(cache.read(&files).as_ref() == Some(&dataset));
        let bytes = fs::read(&cache.0).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x11;
            fs::write(&cache.0, &damaged).unwrap();
            assert!(cache.read::<Example>(&files).is_none(), "{at}");
            fs::write(&cache.0, &bytes[..at]).unwrap();
            assert!(cache.read::<Example>(&files).is_none(), "{at}");
        }
        write(&cache);
        let found: Dataset = cache.read(&files).unwrap();
        assert!(found == dataset);
        assert_eq!(
            found.row_names(&[0, 1]),
            ["a.jsonl line 2", "b.parquet row 1"]
        );
        assert_eq!(fs::read_dir(folder.path().join("new")).unwrap().count(), 1);
    }

    #[test]
    fn what_killed_processes_left_is_removed_after_a_day() {
        let folder = tempfile::tempdir().unwrap();
        let old = SystemTime::now() - LEFT - Duration::from_secs(60);
        let cache = CacheFile(folder.path().join("a.rows"));
        let writer = cache.create().unwrap();
        let being_written = writer.file.get_ref().path().to_path_buf();
        let made = |name: &str| {
            let path = folder.path().join(name);
            let file = File::create(&path).unwrap();
            file.set_modified(old).unwrap();
            path
        };
        let left = made(".qoft-rows-aB3dE6");
        let others = ["b.rows", ".tmpaB3dE6"].map(made);
        drop(cache.create().unwrap());
        assert!(!left.exists());
        assert!(being_written.exists() && others.iter().all(|path| path.exists()));
        drop(writer);
        assert!(!being_written.exists());
    }
}

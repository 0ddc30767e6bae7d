//! Examples on disk, so that the same data need not become tokens twice.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::data_row::DataRow;
use super::dataset::{DatasetReport, Rows};
use super::encode::Example;
use super::options::DatasetOptions;
use crate::tokenizer::Tokenizer;

/// Counts changes of what is learned of a row: what was kept under others is not used.
const RULES: u32 = 3;
/// What a file begins with; another one is of another version.
const MAGIC: &[u8; 16] = b"qoft rows, v. 2\n";
/// Bytes of a SHA-256.
const DIGEST: usize = 32;

/// The file for some data, which may not be there yet.
pub(super) struct CacheFile(PathBuf);

/// What stands before the numbers.
#[derive(Serialize, Deserialize)]
struct Header {
    report: DatasetReport,
    examples: usize,
    /// Examples that these consist of.
    parts: usize,
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

    /// The examples, if they are there and whole.
    pub(super) fn read<R: DataRow>(&self) -> Option<Rows<R>> {
        let file = File::open(&self.0).ok()?;
        let length = file.metadata().ok()?.len();
        let mut file = BufReader::with_capacity(1 << 20, file);
        let mut start = [0; MAGIC.len() + DIGEST];
        file.read_exact(&mut start).ok()?;
        let (magic, digest) = start.split_at(MAGIC.len());
        if magic != MAGIC {
            return None;
        }
        let mut body = Body {
            file,
            hash: Sha256::new(),
            left: length.checked_sub(start.len() as u64)?,
        };
        let header = body.numbers(1)?;
        let header = body.bytes(*header.first()? as usize)?;
        let Header {
            report,
            examples,
            parts,
        } = serde_json::from_slice(&header).ok()?;
        let kinds = body.numbers(examples)?;
        let mut lengths = body.numbers(parts)?.into_iter();
        let mut dataset = Rows::new([]);
        dataset.examples.reserve(examples);
        for kind in kinds {
            let mut parts = Vec::new();
            for _ in 0..R::parts_of(kind)? {
                let length = lengths.next()?;
                let input_ids = body.numbers(length as usize)?;
                let labels = body.numbers(length as usize)?;
                let labels = labels.into_iter().map(|label| label as i32).collect();
                parts.push(Example::new(input_ids, labels));
            }
            dataset.examples.push(R::from_parts(kind, parts)?);
        }
        let is_whole = body.left == 0 && body.hash.finalize()[..] == *digest;
        dataset.report = report;
        is_whole.then_some(dataset)
    }

    /// Writes the examples; the file appears in one piece.
    pub(super) fn write<R: DataRow>(&self, dataset: &Rows<R>) -> std::io::Result<()> {
        let folder = self.0.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(MAGIC)?;
        file.write_all(&[0; DIGEST])?;
        let digest = {
            let mut out = Hashing {
                file: BufWriter::with_capacity(1 << 20, file.as_file_mut()),
                hash: Sha256::new(),
            };
            let header = serde_json::to_vec(&Header {
                report: dataset.report.clone(),
                examples: dataset.examples.len(),
                parts: dataset.examples.iter().map(|row| row.parts().len()).sum(),
            })?;
            out.numbers([header.len() as u32])?;
            out.write(&header)?;
            out.numbers(dataset.examples.iter().map(DataRow::kind))?;
            let parts = dataset.examples.iter().flat_map(DataRow::parts);
            out.numbers(parts.clone().map(|part| part.input_ids.len() as u32))?;
            for row in parts {
                out.numbers(row.input_ids.iter().copied())?;
                out.numbers(row.labels.iter().map(|&label| label as u32))?;
            }
            out.file.flush()?;
            out.hash.finalize()
        };
        file.seek(SeekFrom::Start(MAGIC.len() as u64))?;
        file.write_all(&digest)?;
        file.persist(&self.0)?;
        Ok(())
    }
}

/// The rest of a file that is read.
struct Body {
    file: BufReader<File>,
    hash: Sha256,
    /// Bytes of it.
    left: u64,
}

impl Body {
    /// The next bytes, if there are so many.
    fn bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        self.left = self.left.checked_sub(count as u64)?;
        let mut bytes = vec![0; count];
        self.file.read_exact(&mut bytes).ok()?;
        self.hash.update(&bytes);
        Some(bytes)
    }

    fn numbers(&mut self, count: usize) -> Option<Vec<u32>> {
        let bytes = self.bytes(count.checked_mul(4)?)?;
        let numbers = bytes.chunks_exact(4);
        Some(
            numbers
                .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect(),
        )
    }
}

/// A file that is written.
struct Hashing<W: Write> {
    file: W,
    hash: Sha256,
}

impl<W: Write> Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.hash.update(bytes);
        self.file.write_all(bytes)
    }

    fn numbers(&mut self, numbers: impl IntoIterator<Item = u32>) -> std::io::Result<()> {
        let bytes: Vec<u8> = numbers.into_iter().flat_map(u32::to_le_bytes).collect();
        self.write(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Dataset;

    #[test]
    fn what_is_written_is_read_and_damage_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let cache = CacheFile(folder.path().join("new/a.rows"));
        assert!(cache.read::<Example>().is_none());
        let dataset = Dataset::new([
            Example::new(vec![1, 2, 3], vec![-100, 2, 3]),
            Example::new(vec![7], vec![-100]),
        ]);
        cache.write(&dataset).unwrap();
        assert_eq!(cache.read().unwrap(), dataset);
        let bytes = fs::read(&cache.0).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x11;
            fs::write(&cache.0, &damaged).unwrap();
            assert!(cache.read::<Example>().is_none(), "{at}");
            fs::write(&cache.0, &bytes[..at]).unwrap();
            assert!(cache.read::<Example>().is_none(), "{at}");
        }
        cache.write(&dataset).unwrap();
        assert_eq!(cache.read().unwrap(), dataset);
        assert_eq!(fs::read_dir(folder.path().join("new")).unwrap().count(), 1);
    }
}

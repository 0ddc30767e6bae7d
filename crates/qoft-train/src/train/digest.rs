//! What tells two files, models or data sets apart.

use std::fmt;
use std::path::Path;

use qoft_core::{Checkpoint, Error, Walk};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::model::TrainData;

/// Bytes of a weight that are looked at, at each of [`PLACES`].
const WINDOW: usize = 1024;
/// Places of a weight that are looked at, from its first to its last byte.
const PLACES: usize = 6;
/// Keys of `config.json` that say where a model comes from, and not what it is.
const PROVENANCE: [&str; 2] = ["_name_or_path", "transformers_version"];
/// Characters that are shown.
const SHOWN: usize = 12;

/// A SHA-256 in hexadecimal digits. [`fmt::Display`] shows its beginning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(String);

impl Digest {
    /// Of a file's content.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn of_file(path: &Path) -> Result<Self, Error> {
        let mut hash = Sha256::new();
        let mut file = std::fs::File::open(path).map_err(Error::io(path))?;
        std::io::copy(&mut file, &mut hash).map_err(Error::io(path))?;
        Ok(Self::new(hash))
    }

    /// Of a model: its configuration, the names, shapes and formats of all tensors, and samples of
    /// their bytes, so that large models take little time.
    ///
    /// # Errors
    /// If a tensor cannot be read.
    pub fn of_checkpoint(checkpoint: &Checkpoint) -> Result<Self, Error> {
        let mut hash = Sha256::new();
        let mut config = checkpoint.config().clone();
        if let Some(config) = config.as_object_mut() {
            config.retain(|key, _| !PROVENANCE.contains(&key.as_str()));
            config.sort_keys();
        }
        hash.update(config.to_string());
        let mut names: Vec<&str> = checkpoint.names().collect();
        names.sort_unstable();
        for name in names {
            let tensor = checkpoint.tensor(name)?;
            hash.update(format!(
                "\n{name} {:?} {:?}\n",
                tensor.dtype(),
                tensor.shape()
            ));
            sample(tensor.bytes(), &mut |bytes| hash.update(bytes));
        }
        Ok(Self::new(hash))
    }

    /// Of all that a model learns from.
    #[must_use]
    pub fn of_data(data: &impl TrainData) -> Self {
        let mut hash = Sha256::new();
        data.content(&mut |bytes| hash.update(bytes));
        Self::new(hash)
    }

    /// Of the parameters of all adapters of a model.
    pub(super) fn of_parameters(model: &impl Walk) -> Self {
        let mut hash = Sha256::new();
        for (path, layer) in model.layers() {
            for param in layer
                .adapters()
                .slots()
                .iter()
                .flat_map(|slot| slot.params())
            {
                hash.update(format!("\n{path}.{} {:?}\n", param.name(), param.shape()));
                for value in param.to_vec() {
                    hash.update(value.to_le_bytes());
                }
            }
        }
        Self::new(hash)
    }

    /// Of bytes.
    pub(super) fn of_bytes(bytes: &[u8]) -> Self {
        Self::new(Sha256::new_with_prefix(bytes))
    }

    fn new(hash: Sha256) -> Self {
        Self(format!("{:x}", hash.finalize()))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.get(..SHOWN).unwrap_or(&self.0))
    }
}

/// Hands on windows of the bytes, or all of them if there are few.
fn sample(bytes: &[u8], take: &mut dyn FnMut(&[u8])) {
    let Some(last) = bytes.len().checked_sub(WINDOW * PLACES) else {
        return take(bytes);
    };
    let last = last + WINDOW * (PLACES - 1);
    for place in 0..PLACES {
        let at = last / (PLACES - 1) * place;
        take(&bytes[at..at + WINDOW]);
    }
    take(&bytes[bytes.len() - WINDOW..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Dataset, Example};

    #[test]
    fn files_have_the_digest_that_other_programs_give() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "abc").unwrap();
        let digest = Digest::of_file(file.path()).unwrap();
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest.0, known);
        assert_eq!(digest.to_string(), "ba7816bf8f01");
    }

    #[test]
    fn rows_count_one_by_one() {
        let dataset = |rows: &[&[u32]]| {
            Dataset::new(rows.iter().map(|ids| {
                let labels = ids.iter().map(|&id| id as i32).collect();
                Example::new(ids.to_vec(), labels)
            }))
        };
        let of = |rows: &[&[u32]]| Digest::of_data(&dataset(rows));
        assert_eq!(of(&[&[1, 2], &[3]]), of(&[&[1, 2], &[3]]));
        assert_ne!(of(&[&[1, 2], &[3]]), of(&[&[1], &[2, 3]]));
        assert_ne!(of(&[&[1, 2], &[3]]), of(&[&[3], &[1, 2]]));
        let packed = dataset(&[&[1, 2], &[3]]).packed(3);
        assert_ne!(of(&[&[1, 2], &[3]]), Digest::of_data(&packed));
        let mut other = dataset(&[&[1, 2], &[3]]);
        other.examples[0].labels[0] = -100;
        assert_ne!(of(&[&[1, 2], &[3]]), Digest::of_data(&other));
    }

    #[test]
    fn samples_reach_from_the_first_to_the_last_byte() {
        for length in [0, 1, 6143, 6144, 6145, 1 << 20, (1 << 20) + 1] {
            let bytes: Vec<u8> = (0..length).map(|i| (i / 7) as u8).collect();
            let (mut seen, mut first, mut last) = (0, None, None);
            sample(&bytes, &mut |part| {
                seen += part.len();
                first = first.or(part.first().copied());
                last = part.last().copied();
            });
            assert_eq!(
                (first, last),
                (bytes.first().copied(), bytes.last().copied())
            );
            assert!(seen == length || seen == WINDOW * (PLACES + 1), "{length}");
        }
    }
}

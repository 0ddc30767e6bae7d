//! Memory-mapped files of tensors.

mod part;
mod tensor;

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
#[cfg(unix)]
use memmap2::UncheckedAdvice;
use memmap2::{Mmap, MmapOptions};
use safetensors::{Dtype, SafeTensors};

use crate::error::{Error, Result};
use crate::json::stands_for_another;

pub(crate) use part::TensorPart;
pub use tensor::{TensorView, float_dtype, float_format};

/// The bytes of a map that tensors share.
struct Mapped(Arc<Mmap>);

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// A file in memory, read only.
#[derive(Debug, Clone)]
pub struct MappedFile {
    path: Arc<PathBuf>,
    map: Arc<Mmap>,
}

impl MappedFile {
    /// Maps a file.
    ///
    /// # Errors
    /// If it cannot be read, or is a pointer of Git LFS.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let file = File::open(&path).map_err(Error::io(&path))?;
        Self::map(&MmapOptions::new(), &file, path)
    }

    fn map(part: &MmapOptions, file: &File, path: PathBuf) -> Result<Self> {
        // SAFETY: the map is read only. Another process that truncates the file while we run
        // can end us with a signal, as it can every program that maps its input.
        let map = unsafe { part.map(file) }.map_err(Error::io(&path))?;
        if let Some(reason) = stands_for_another(&map) {
            return Err(Error::file(&path, reason));
        }
        Ok(Self {
            path: Arc::new(path),
            map: Arc::new(map),
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    fn release(&self) {
        // SAFETY: the map is of a file and read only, so its pages come back as they were.
        #[cfg(unix)]
        let result = unsafe { self.map.unchecked_advise(UncheckedAdvice::DontNeed) };
        #[cfg(unix)]
        if let Err(error) = result {
            tracing::debug!("{}: memory is not given back: {error}", self.path.display());
        }
    }
}

/// A change of a tensor's bytes on the way in, which keeps their number.
pub type ReadAs = Arc<dyn Fn(&[u8]) -> Vec<u8> + Send + Sync>;

/// A tensor in a mapped file.
#[derive(Clone)]
#[non_exhaustive]
pub struct StoredTensor {
    /// The name that the model has for it.
    pub name: String,
    /// Dtype of its values.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Where its bytes are in the file.
    pub range: Range<usize>,
    /// What the model's values are made by, if the file has others.
    pub read_as: Option<ReadAs>,
}

impl StoredTensor {
    /// A tensor that is in the file as it is.
    pub fn new(
        name: impl Into<String>,
        dtype: Dtype,
        shape: &[usize],
        range: Range<usize>,
    ) -> Self {
        Self {
            name: name.into(),
            dtype,
            shape: shape.to_vec(),
            range,
            read_as: None,
        }
    }

    /// The same with its bytes changed whenever they are read; their number stays.
    #[must_use]
    pub fn read_as(self, change: Option<ReadAs>) -> Self {
        Self {
            read_as: change,
            ..self
        }
    }

    fn byte_len(&self) -> Option<usize> {
        let elements = self
            .shape
            .iter()
            .try_fold(1usize, |all, &size| all.checked_mul(size));
        let bits = elements?.checked_mul(self.dtype.bitsize())?;
        bits.is_multiple_of(8).then_some(bits / 8)
    }
}

impl fmt::Debug for StoredTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {:?} {:?} {:?}",
            self.name, self.dtype, self.shape, self.range
        )
    }
}

/// A file and its tensors, checked: all of them lie inside it and fit their shapes.
#[derive(Debug)]
pub struct MappedTensors {
    file: MappedFile,
    bytes: Bytes,
    tensors: HashMap<String, StoredTensor>,
    /// What the file says of itself and of its tensors.
    metadata: HashMap<String, String>,
    /// Whether somebody asked for a tensor since memory was given back.
    asked: AtomicBool,
}

impl MappedTensors {
    /// The tensors of a file.
    ///
    /// # Errors
    /// If one lies outside of it, has another size than its shape demands, or the name of another.
    pub fn new(file: MappedFile, tensors: impl IntoIterator<Item = StoredTensor>) -> Result<Self> {
        let (mut all, length) = (HashMap::new(), file.bytes().len());
        for tensor in tensors {
            let Range { start, end } = tensor.range;
            let (name, found) = (tensor.name.clone(), end.saturating_sub(start));
            if end > length || start > end || tensor.byte_len() != Some(found) {
                let reason = format!(
                    "tensor `{name}` of {:?} {:?} has bytes {start}..{end} of {length}",
                    tensor.dtype, tensor.shape
                );
                return Err(Error::file(file.path(), reason));
            }
            if all.insert(name.clone(), tensor).is_some() {
                let reason = format!("tensor `{name}` is there twice");
                return Err(Error::file(file.path(), reason));
            }
        }
        let bytes = Bytes::from_owner(Mapped(file.map.clone()));
        Ok(Self {
            file,
            bytes,
            tensors: all,
            metadata: HashMap::new(),
            asked: AtomicBool::new(false),
        })
    }

    /// Maps and validates a safetensors file.
    pub(crate) fn open(path: PathBuf) -> Result<Self> {
        Self::safetensors(MappedFile::open(path)?)
    }

    /// Maps and validates `length` bytes of an open safetensors file; `path` is how messages name it.
    pub(crate) fn map_part(file: &File, start: u64, length: usize, path: PathBuf) -> Result<Self> {
        let part = MmapOptions::new().offset(start).len(length).to_owned();
        Self::safetensors(MappedFile::map(&part, file, path)?)
    }

    fn safetensors(file: MappedFile) -> Result<Self> {
        let invalid = |e: safetensors::SafeTensorError| {
            Error::file(file.path(), format!("not a valid safetensors file: {e}")).caused_by(e)
        };
        let (header, metadata) = SafeTensors::read_metadata(file.bytes()).map_err(invalid)?;
        let tensors = metadata.tensors();
        let tensors = tensors.into_iter().map(|(name, info)| {
            let (start, end) = info.data_offsets;
            let range = header + 8 + start..header + 8 + end;
            StoredTensor::new(name, info.dtype, &info.shape, range)
        });
        let tensors: Vec<StoredTensor> = tensors.collect();
        let about = metadata.metadata().clone().unwrap_or_default();
        let found = Self::new(file, tensors)?;
        Ok(Self {
            metadata: about,
            ..found
        })
    }

    /// The `__metadata__` of a safetensors file.
    pub(crate) fn metadata(&self) -> &HashMap<String, String> {
        &self.metadata
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Gives the memory of what was read back to the system; it comes back when it is read again.
    pub(crate) fn release(&self) {
        self.file.release();
    }

    /// As [`Self::release`], if somebody asked for a tensor since the last time.
    pub(crate) fn release_if_asked(&self) {
        if self.asked.load(Ordering::Relaxed) && self.asked.swap(false, Ordering::Relaxed) {
            self.release();
        }
    }

    /// Names of all tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether the file has a tensor of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// How many tensors there are in the first dimension of one, if it can be divided so that its second
    /// dimension has `shares` equal parts.
    pub(crate) fn parts(&self, name: &str, shares: usize) -> Option<usize> {
        let tensor = self.tensors.get(name)?;
        part::count(tensor.dtype, &tensor.shape, shares)
    }

    /// A tensor of this file, which the model calls `model_name`.
    pub(crate) fn tensor(&self, name: &str, model_name: &str) -> Option<TensorView> {
        let tensor = self.tensors.get(name)?;
        self.asked.store(true, Ordering::Relaxed);
        let bytes = self.bytes.slice(tensor.range.clone());
        let bytes = match &tensor.read_as {
            None => bytes,
            Some(change) => change(&bytes).into(),
        };
        Some(TensorView::new(
            self.file.path.clone(),
            model_name,
            tensor.dtype,
            tensor.shape.clone(),
            bytes,
        ))
    }
}

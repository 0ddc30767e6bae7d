//! One memory-mapped safetensors file.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
#[cfg(unix)]
use memmap2::UncheckedAdvice;
use memmap2::{Mmap, MmapOptions};
use safetensors::SafeTensors;
use safetensors::tensor::TensorInfo;

use super::json::stands_for_another;
use super::tensor::TensorView;
use crate::error::{Error, Result};

/// The bytes of a map that tensors share.
struct Mapped(Arc<Mmap>);

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// A validated file: all offsets lie inside it and fit the shapes.
#[derive(Debug)]
pub struct Shard {
    path: Arc<PathBuf>,
    map: Arc<Mmap>,
    /// What stands behind the header.
    data: Bytes,
    tensors: HashMap<String, TensorInfo>,
}

impl Shard {
    /// Maps and validates a file.
    pub fn open(path: PathBuf) -> Result<Self> {
        let file = File::open(&path).map_err(Error::io(&path))?;
        Self::map(&MmapOptions::new(), &file, path)
    }

    /// Maps and validates `length` bytes of an open file; `path` is how messages name it.
    pub fn map_part(file: &File, start: u64, length: usize, path: PathBuf) -> Result<Self> {
        Self::map(MmapOptions::new().offset(start).len(length), file, path)
    }

    fn map(part: &MmapOptions, file: &File, path: PathBuf) -> Result<Self> {
        // SAFETY: the map is read only. Another process that truncates the file while we run
        // can end us with a signal, as it can every program that maps its input.
        let map = unsafe { part.map(file) }.map_err(Error::io(&path))?;
        if let Some(reason) = stands_for_another(&map) {
            return Err(Error::file(&path, reason));
        }
        let invalid = |e: safetensors::SafeTensorError| {
            Error::file(&path, format!("not a valid safetensors file: {e}")).caused_by(e)
        };
        let (header, metadata) = SafeTensors::read_metadata(&map).map_err(invalid)?;
        let tensors = metadata
            .tensors()
            .into_iter()
            .map(|(n, i)| (n, i.clone()))
            .collect();
        let map = Arc::new(map);
        let data = Bytes::from_owner(Mapped(map.clone())).slice(header + 8..);
        Ok(Self {
            path: Arc::new(path),
            map,
            data,
            tensors,
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the memory of what was read back to the system; it comes back when it is read again.
    pub fn release(&self) {
        // SAFETY: the map is of a file and read only, so its pages come back as they were.
        #[cfg(unix)]
        let result = unsafe { self.map.unchecked_advise(UncheckedAdvice::DontNeed) };
        #[cfg(unix)]
        if let Err(error) = result {
            tracing::debug!("{}: memory is not given back: {error}", self.path.display());
        }
    }

    /// Names of all tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether the file has a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// A tensor of this file, which the model calls `model_name`.
    pub fn tensor(&self, name: &str, model_name: &str) -> Option<TensorView> {
        let info = self.tensors.get(name)?;
        let bytes = self.data.slice(info.data_offsets.0..info.data_offsets.1);
        Some(TensorView::new(
            self.path.clone(),
            model_name,
            info.dtype,
            info.shape.clone(),
            bytes,
        ))
    }
}

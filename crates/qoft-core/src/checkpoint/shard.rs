//! One memory-mapped safetensors file.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use safetensors::SafeTensors;
use safetensors::tensor::TensorInfo;

use super::tensor::TensorView;
use crate::error::{Error, Result};

/// A validated file: all offsets lie inside it and fit the shapes.
#[derive(Debug)]
pub struct Shard {
    path: Arc<PathBuf>,
    data: Bytes,
    tensors: HashMap<String, TensorInfo>,
}

impl Shard {
    /// Maps and validates a file.
    pub fn open(path: PathBuf) -> Result<Self> {
        let file = File::open(&path).map_err(Error::io(&path))?;
        // SAFETY: the map is read only. Another process that truncates the file while we run
        // can end us with a signal, as it can every program that maps its input.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(Error::io(&path))?;
        let invalid = |e| Error::file(&path, format!("not a valid safetensors file: {e}"));
        let (header, metadata) = SafeTensors::read_metadata(&map).map_err(invalid)?;
        let tensors = metadata
            .tensors()
            .into_iter()
            .map(|(n, i)| (n, i.clone()))
            .collect();
        let data = Bytes::from_owner(map).slice(header + 8..);
        Ok(Self {
            path: Arc::new(path),
            data,
            tensors,
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of all tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Gives all tensors other names.
    pub fn rename(&mut self, new: impl Fn(&str) -> String) {
        let tensors = std::mem::take(&mut self.tensors).into_iter();
        self.tensors = tensors.map(|(n, info)| (new(&n), info)).collect();
    }

    /// A tensor of this file.
    pub fn tensor(&self, name: &str) -> Option<TensorView> {
        let info = self.tensors.get(name)?;
        let bytes = self.data.slice(info.data_offsets.0..info.data_offsets.1);
        Some(TensorView::new(
            self.path.clone(),
            name,
            info.dtype,
            info.shape.clone(),
            bytes,
        ))
    }
}

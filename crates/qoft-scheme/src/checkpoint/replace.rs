//! Putting layers that were written again in the place of those of a checkpoint.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::tensor::TensorView as View;

use super::{Checkpoint, NewTensor, Stored};
use crate::error::{Error, Result};
use crate::mapped::MappedTensors;

/// Where a layer's tensors may begin in the file: at a page of any system.
const PAGE: u64 = 1 << 16;

/// A file without a name in which new tensors wait, so that they need not stay in memory. It is
/// there until nobody holds any of them.
#[derive(Debug)]
pub struct WaitingFile {
    file: File,
    folder: PathBuf,
    length: u64,
}

impl WaitingFile {
    /// An empty file in `folder`.
    ///
    /// # Errors
    /// If the file system refuses.
    pub fn new(folder: &Path) -> Result<Self> {
        let file = tempfile::tempfile_in(folder).map_err(Error::io(folder))?;
        Ok(Self {
            file,
            folder: folder.to_owned(),
            length: 0,
        })
    }

    fn take(&mut self, tensors: &[NewTensor]) -> Result<MappedTensors> {
        let mut views = Vec::with_capacity(tensors.len());
        for tensor in tensors {
            let name = tensor.name();
            let view = View::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes)
                .map_err(|e| Error::file(&self.folder, format!("new tensor `{name}`: {e}")))?;
            views.push((name, view));
        }
        let bytes = safetensors::serialize(views, None)
            .map_err(|e| Error::file(&self.folder, format!("new tensors: {e}")))?;
        let start = self.length.next_multiple_of(PAGE);
        let written = self.file.seek(SeekFrom::Start(start));
        let written = written.and_then(|_| self.file.write_all(&bytes));
        written.map_err(Error::io(&self.folder))?;
        self.length = start + bytes.len() as u64;
        MappedTensors::map_part(&self.file, start, bytes.len(), self.folder.clone())
    }
}

impl Checkpoint {
    /// Lets this checkpoint have `tensors`, in place of all tensors of the layer at module path
    /// `layer` but its bias, and in place of those of other layers that have the same names. The
    /// files of the checkpoint stay as they are, and so do its clones. The new tensors wait in
    /// `file`.
    ///
    /// # Errors
    /// If a tensor's bytes do not fit its dtype and shape, or the file cannot be written.
    pub fn replace(
        &mut self,
        layer: &str,
        tensors: &[NewTensor],
        file: &mut WaitingFile,
    ) -> Result<()> {
        self.remove_layer(layer);
        self.insert(tensors, file)
    }

    /// Lets this checkpoint have `tensors`, in place of those that have the same names, as
    /// [`Self::replace`] does.
    ///
    /// # Errors
    /// Those of [`Self::replace`].
    pub fn insert(&mut self, tensors: &[NewTensor], file: &mut WaitingFile) -> Result<()> {
        let shard = file.take(tensors)?;
        self.add(shard);
        Ok(())
    }

    /// Lets this checkpoint have the tensors of the safetensors file `path`, in place of those of
    /// `layers` but their biases, and of those that have the same names.
    ///
    /// # Errors
    /// If the file is damaged.
    pub fn overlay<'a>(
        &mut self,
        path: &Path,
        layers: impl IntoIterator<Item = &'a str>,
    ) -> Result<()> {
        let shard = MappedTensors::open(path.to_owned())?;
        for layer in layers {
            self.remove_layer(layer);
        }
        self.add(shard);
        Ok(())
    }

    /// Forgets all tensors of a layer but its bias.
    fn remove_layer(&mut self, layer: &str) {
        let bias = format!("{layer}.bias");
        let old = self.under(layer).filter(|name| *name != bias);
        let old: Vec<String> = old.map(str::to_owned).collect();
        for name in old {
            self.tensors.remove(&name);
        }
    }

    fn add(&mut self, shard: MappedTensors) {
        let shard = Arc::new(shard);
        let names = shard.names().map(str::to_owned);
        let new = names.map(|name| (name, Stored::new(shard.clone())));
        self.tensors.extend(new.collect::<Vec<_>>());
        self.added.push(shard);
    }
}

//! Putting layers that were written again in the place of those of a checkpoint.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use safetensors::tensor::TensorView as View;

use super::{Checkpoint, Shard};
use crate::error::{Error, Result};
use crate::requantize::NewTensor;

impl Checkpoint {
    /// Lets this checkpoint have `tensors`, in place of all tensors of the layer at module path
    /// `layer` but its bias, and in place of those of other layers that have the same names. The
    /// files of the checkpoint stay as they are, and so do its clones.
    ///
    /// The new tensors wait in unnamed files in `folder`. The disk space of each comes back when
    /// nobody holds its tensor any more.
    ///
    /// # Errors
    /// If a tensor's bytes do not fit its dtype and shape, or `folder` cannot be written.
    pub fn replace(&mut self, layer: &str, tensors: &[NewTensor], folder: &Path) -> Result<()> {
        let shards = tensors.iter().map(|tensor| stored(tensor, folder));
        let shards: Vec<(String, Shard)> = shards.collect::<Result<_>>()?;
        let bias = format!("{layer}.bias");
        let old = self.under(layer).filter(|name| *name != bias);
        let old: Vec<String> = old.map(str::to_owned).collect();
        for name in old {
            self.tensors.remove(&name);
        }
        for (name, shard) in shards {
            self.tensors.insert(name, Arc::new(shard));
        }
        Ok(())
    }
}

/// A tensor in a file of its own.
fn stored(tensor: &NewTensor, folder: &Path) -> Result<(String, Shard)> {
    let name = tensor.name();
    let invalid = |e| Error::file(folder, format!("new tensor `{name}`: {e}"));
    let view = View::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes).map_err(invalid)?;
    let bytes = safetensors::serialize([(&name, view)], None).map_err(invalid)?;
    let mut file = tempfile::tempfile_in(folder).map_err(Error::io(folder))?;
    file.write_all(&bytes).map_err(Error::io(folder))?;
    let shard = Shard::map(&file, folder.to_path_buf())?;
    Ok((name, shard))
}

//! Writing a checkpoint folder, tensor by tensor.

mod container;
mod copied;
mod finite;
mod older_keys;
mod shard;
mod shard_size;
mod whole;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use qoft_core::{Dtype, Error, Result, ScratchDir, StagedDir, TensorView, write_file};
use qoft_models::ModelFolder;
use serde_json::{Map, Value, json};

use crate::layers::is_foreign;
pub(crate) use copied::copy_others;
pub use copied::{copy_tokenizer, replace_tokenizer};
use older_keys::with_older_keys;

pub use container::NewContainer;
pub(crate) use container::{rewrite, write_model, writer_of};
pub(crate) use finite::check_finite;
pub use shard_size::MaxShardSize;
pub(crate) use whole::together;

/// What a merge tells about itself; it is no part of the checkpoint.
pub(crate) const REPORT: &str = "merge_report.json";

/// A tensor of the new checkpoint, whose bytes are made when it is written.
pub(crate) struct Output<'a> {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub data: Data<'a>,
}

/// Bytes that are there, or are made when they are written.
pub(crate) enum Data<'a> {
    Stored(TensorView),
    /// Of a tensor that is none of the model's, or holds codes: no numbers to be checked.
    Foreign(TensorView),
    Made(Box<dyn Fn() -> Result<Vec<u8>> + Send + Sync + 'a>),
}

impl Output<'_> {
    /// A tensor as it is.
    pub fn copy(tensor: TensorView) -> Self {
        Self {
            name: tensor.name().to_owned(),
            dtype: tensor.dtype(),
            shape: tensor.shape().to_vec(),
            data: Data::Stored(tensor),
        }
    }

    /// A tensor of a model's files, as it is.
    pub fn of(folder: &ModelFolder, tensor: TensorView) -> Self {
        match is_foreign(folder, tensor.name()) {
            true => Self::foreign(tensor),
            false => Self::copy(tensor),
        }
    }

    /// A tensor that is none of the model's, as it is.
    pub fn foreign(tensor: TensorView) -> Self {
        Self {
            data: Data::Foreign(tensor.clone()),
            ..Self::copy(tensor)
        }
    }

    /// A tensor of a quantized layer, as it is. Its numbers may be codes under the name of floats, as
    /// libraries store them on demand; what they stand for is checked where the layer is read.
    pub fn packed(tensor: TensorView) -> Self {
        Self::foreign(tensor)
    }

    /// Its bytes.
    ///
    /// # Errors
    /// If they cannot be made, or are numbers of the model that are not finite.
    pub fn content(&self) -> Result<Cow<'_, [u8]>> {
        let bytes: Cow<[u8]> = match &self.data {
            Data::Foreign(tensor) => return Ok(Cow::Borrowed(tensor.bytes())),
            Data::Stored(tensor) => Cow::Borrowed(tensor.bytes()),
            Data::Made(make) => Cow::Owned(make()?),
        };
        check_finite(&self.name, self.dtype, &bytes)?;
        Ok(bytes)
    }

    fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8
    }
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written {
    /// Tensors in the folder.
    pub tensors: usize,
    /// Files that hold them.
    pub shards: usize,
    /// Bytes of all tensors.
    pub bytes: usize,
}

/// What a folder gets beside its tensors, and how these are divided.
pub(crate) struct Surroundings<'a> {
    /// `config.json`.
    pub config: &'a Value,
    /// What all files say of their tensors.
    pub metadata: &'a BTreeMap<String, String>,
    /// A checkpoint whose other files are copied: tokenizer, generation settings and the like.
    pub from: &'a Path,
    /// Files that are not.
    pub skip: &'a [&'a str],
    /// How large files with tensors become.
    pub max_shard_size: MaxShardSize,
}

/// Fills a folder with the tensors and what belongs to them.
pub(crate) fn fill(
    staged: &StagedDir,
    mut outputs: Vec<Output>,
    around: &Surroundings,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Written> {
    outputs.sort_by(|a, b| a.name.cmp(&b.name));
    let shards = into_shards(&outputs, around.max_shard_size);
    let (count, total) = (shards.len(), outputs.len());
    let (mut weight_map, mut written) = (Map::new(), 0);
    for (index, shard) in shards.into_iter().enumerate() {
        let name = shard_name(index, count);
        for output in &shard {
            weight_map.insert(output.name.clone(), Value::from(name.clone()));
        }
        shard::write(
            &staged.path().join(&name),
            shard,
            around.metadata,
            &mut || {
                written += 1;
                progress(written, total);
            },
        )?;
    }
    let bytes = outputs.iter().map(Output::bytes).sum();
    if count > 1 {
        let index = json!({"metadata": {"total_size": bytes}, "weight_map": weight_map});
        write_json(&staged.path().join("model.safetensors.index.json"), &index)?;
    }
    let config = with_older_keys(around.config.clone());
    write_json(&staged.path().join("config.json"), &config)?;
    copy_others(around.from, staged.path(), around.skip)?;
    Ok(Written {
        tensors: total,
        shards: count,
        bytes,
    })
}

/// Writes one file of tensors that says `about` of them, which appears in one step once `finish` was given it.
pub(crate) fn write_tensors(
    path: &Path,
    outputs: &[Output],
    about: &BTreeMap<String, String>,
    finish: &dyn Fn(&Path) -> Result<()>,
) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let scratch = ScratchDir::new(folder, "qoft-tensors")?;
    let file = scratch.path().join("tensors");
    shard::write(&file, outputs.iter().collect(), about, &mut || ())?;
    finish(&file)?;
    std::fs::rename(&file, path).map_err(Error::io(path))
}

fn into_shards<'a, 'b>(outputs: &'b [Output<'a>], most: MaxShardSize) -> Vec<Vec<&'b Output<'a>>> {
    let mut shards: Vec<Vec<&Output>> = vec![Vec::new()];
    let mut size = 0;
    for output in outputs {
        let bytes = output.bytes();
        if size > 0 && size + bytes > most.bytes() {
            shards.push(Vec::new());
            size = 0;
        }
        size += bytes;
        if let Some(shard) = shards.last_mut() {
            shard.push(output);
        }
    }
    shards
}

fn shard_name(index: usize, count: usize) -> String {
    match count {
        1 => "model.safetensors".into(),
        _ => format!("model-{:05}-of-{count:05}.safetensors", index + 1),
    }
}

pub(crate) fn write_json(path: &Path, value: &Value) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value).map_err(|e| Error::file(path, e))?;
    text.push('\n');
    write_file(path, text.as_bytes())
}

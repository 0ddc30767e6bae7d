//! Files as checkpoints.

use std::path::Path;

use qoft_scheme::{
    Container, ContainerRegistration, ContainerWriter, Contents, Dtype, Error, MappedTensors,
    Result, StoredTensor, register_container,
};

use crate::change::Change;
use crate::config::{Heads, config};
use crate::file::{Entry, File, TensorType};
use crate::layout::WEIGHT;
use crate::model::Kind;
use crate::{rope, split, tokenizer};

/// GGUF files: configuration, tokenizer, chat template and tensors in one.
#[derive(Debug, Clone, Copy)]
pub struct GgufContainer;

/// The registration of [`GgufContainer`].
pub static CONTAINER: ContainerRegistration = ContainerRegistration::new(&GgufContainer);

register_container!(CONTAINER);

/// Tensors that say how positions turn, and are read with the configuration.
pub const NO_LAYERS: [&str; 3] = [rope::FACTORS, rope::LONG_FACTORS, rope::SHORT_FACTORS];

impl Container for GgufContainer {
    fn name(&self) -> &'static str {
        split::EXTENSION
    }

    fn reads(&self, path: &Path) -> bool {
        split::is_model(path)
    }

    fn open(&self, path: &Path) -> Result<Contents> {
        let files = split::open(path)?;
        let metadata = &files[0].metadata;
        let kind = Kind::of_file(metadata)?;
        let heads = Heads::read(&kind, metadata)?;
        let config = config(&kind, &files)?;
        let small = tokenizer::files(metadata, &config)?;
        let tensors = files.iter().map(|file| tensors(&kind, file, heads));
        let tensors = tensors.collect::<Result<_>>()?;
        Ok(Contents::new(config, small, tensors))
    }

    fn writer(&self) -> Option<&dyn ContainerWriter> {
        Some(self)
    }
}

/// The tensors of a file under their names in the model.
fn tensors(kind: &Kind, file: &File, heads: Heads) -> Result<MappedTensors> {
    let mut stored = Vec::new();
    for entry in &file.tensors {
        if NO_LAYERS.contains(&entry.name.as_str()) {
            continue;
        }
        let invalid = |reason: String| {
            let name = &entry.name;
            Error::file(file.mapped.path(), format!("tensor `{name}`: {reason}"))
        };
        let Some(parts) = kind.parts(entry).map_err(invalid)? else {
            return Err(invalid(format!(
                "no tensor of a model of the kind `{}`",
                kind.name
            )));
        };
        let heads = [heads.queries, heads.keys];
        let change = Change::of(kind, &entry.name, &entry.shape, entry.kind, heads);
        let change = change.map_err(invalid)?;
        for (name, part) in parts {
            let tensor = shown(&part, name).map_err(invalid)?;
            stored.push(tensor.read_as(change.map(Change::read_as)));
        }
    }
    MappedTensors::new(file.mapped.clone(), stored)
}

/// A tensor as the model sees it: plain floats, or the bytes of blocks.
pub fn shown(entry: &Entry, name: String) -> Result<StoredTensor, String> {
    let range = entry.range.clone();
    let block = match entry.kind {
        TensorType::Float(dtype) => {
            return Ok(StoredTensor::new(name, dtype, &entry.shape, range));
        }
        TensorType::Block(block) => block,
    };
    let Some(layer) = name.strip_suffix(".weight") else {
        return Err(format!("blocks of {}, expected plain floats", block.name()));
    };
    let [rows, columns] = entry.shape[..] else {
        return Err(format!(
            "blocks of shape {:?}, expected a matrix",
            entry.shape
        ));
    };
    let bytes = columns / block.values() * block.bytes();
    let name = format!("{layer}.{WEIGHT}{}", block.name());
    Ok(StoredTensor::new(name, Dtype::U8, &[rows, bytes], range))
}

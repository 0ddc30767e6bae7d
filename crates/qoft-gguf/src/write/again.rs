//! Writing a model that was read, with some tensors changed.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use qoft_scheme::{Error, ModelTensor, Result, StoredTensor, WriteTo};

use super::layout::{Header, NewEntry, write};
use crate::block::BlockType;
use crate::change::Change;
use crate::config::Heads;
use crate::container::{NO_LAYERS, shown};
use crate::experts::joined;
use crate::file::{Entry, File, TensorType, Value};
use crate::layout::{WEIGHT, type_of};
use crate::model::Kind;
use crate::split;

/// What stands between the path of a layer and the type of its blocks, see [`WEIGHT`].
const LAYER_BLOCKS: &str = ".weight.";
/// What says how many tensors the parts of a split model have.
const SPLIT_TENSORS: &str = "split.tensors.count";

/// Writes the model at `source` with `tensors`, those that its container has shown. Returns the number
/// of files.
///
/// # Errors
/// If a tensor is missing or of another kind than before, one that is new has no name in files, or
/// the file system refuses.
pub fn rewrite(
    source: &Path,
    tensors: &[ModelTensor],
    to: WriteTo,
    wrote: &mut dyn FnMut(),
) -> Result<usize> {
    let files = split::open(source)?;
    if let (Some(name), true) = (to.file, files.len() > 1) {
        let reason = format!(
            "the model is in {} files, and so is what is written: name a folder for them, not the \
             file `{name}`",
            files.len()
        );
        return Err(Error::file(source, reason));
    }
    let metadata = &files[0].metadata;
    let kind = Kind::of_file(metadata)?;
    let heads = Heads::read(&kind, metadata)?;
    let model = Model { kind, heads };
    let mut left: BTreeMap<&str, &ModelTensor> = tensors.iter().map(|t| (&*t.name, t)).collect();
    let mut written = Vec::new();
    for file in &files {
        let entries = file.tensors.iter();
        let entries = entries.map(|entry| model.entry(file, entry, &mut left));
        written.push(entries.collect::<Result<Vec<_>>>()?);
    }
    let before: usize = files.iter().map(|file| file.tensors.len()).sum();
    if let Some(last) = written.last_mut() {
        for tensor in left.into_values() {
            last.push(model.new_entry(source, tensor)?);
        }
    }
    let count: usize = written.iter().map(Vec::len).sum();
    for (file, tensors) in files.iter().zip(&written) {
        let path = file.mapped.path();
        let own = path.file_name().and_then(|name| name.to_str());
        let name = to
            .file
            .or(own)
            .ok_or_else(|| Error::file(path, "its name is no text"))?;
        let header = Header {
            keys: keys(file, count != before, count),
            alignment: file.alignment,
        };
        write(&to.folder.join(name), &header, tensors, wrote)?;
    }
    Ok(files.len())
}

/// The keys of a file as they are, but with the new number of tensors if that is another one.
fn keys(file: &File, changed: bool, count: usize) -> Vec<Cow<'_, [u8]>> {
    let stored = file.metadata.stored(file.mapped.bytes());
    let keys = stored.map(|(key, bytes)| match key {
        SPLIT_TENSORS if changed => {
            let mut bytes = Vec::new();
            // As the tool that splits files writes it.
            Value::Signed(count as i64).put(key, &mut bytes);
            Cow::Owned(bytes)
        }
        _ => Cow::Borrowed(bytes),
    });
    keys.collect()
}

/// What says where values of the model stand in files.
struct Model {
    kind: Kind,
    heads: Heads,
}

impl Model {
    /// A tensor of a file with the values that it has now, which are taken from `left`.
    fn entry<'a, 'm>(
        &self,
        file: &'a File,
        entry: &Entry,
        left: &mut BTreeMap<&'a str, &'a ModelTensor<'m>>,
    ) -> Result<NewEntry<'a>> {
        let path = file.mapped.path();
        let invalid = |reason: String| {
            let name = &entry.name;
            Error::file(path, format!("tensor `{name}`: {reason}"))
        };
        if NO_LAYERS.contains(&entry.name.as_str()) {
            let bytes = &file.mapped.bytes()[entry.range.clone()];
            return Ok(NewEntry {
                name: entry.name.clone(),
                shape: entry.shape.clone(),
                kind: entry.kind,
                make: Box::new(move || Ok(Cow::Borrowed(bytes))),
            });
        }
        let parts = self.kind.parts(entry).map_err(invalid)?;
        let parts = parts.ok_or_else(|| invalid("is no tensor of the model".into()))?;
        let parts = parts.into_iter().map(|(name, part)| {
            let StoredTensor {
                name, dtype, shape, ..
            } = shown(&part, name).map_err(invalid)?;
            let tensor = left.remove(name.as_str());
            let tensor =
                tensor.ok_or_else(|| invalid(format!("`{name}` is not there any more")))?;
            if (tensor.dtype, &tensor.shape) != (dtype, &shape) {
                let reason = format!("{dtype:?} {shape:?} became {tensor:?}");
                return Err(invalid(reason));
            }
            Ok(tensor)
        });
        let parts = parts.collect::<Result<Vec<&ModelTensor>>>()?;
        let before = &file.mapped.bytes()[entry.range.clone()];
        self.with_values(&entry.name, &entry.shape, entry.kind, parts, Some(before))
            .map_err(invalid)
    }

    /// A tensor that the files did not have.
    fn new_entry<'a>(&self, source: &Path, tensor: &'a ModelTensor<'_>) -> Result<NewEntry<'a>> {
        let invalid = |reason: String| {
            let name = &tensor.name;
            Error::file(source, format!("new tensor `{name}`: {reason}"))
        };
        let blocks = blocks(tensor);
        let name = blocks.as_ref().map_or(&tensor.name, |(name, ..)| name);
        let name = self.kind.file_name(name);
        let name =
            name.ok_or_else(|| invalid("files of this format have no name for it".into()))?;
        let (shape, kind) = match blocks {
            Some((_, shape, block)) => (shape.to_vec(), TensorType::Block(block)),
            None => {
                let kind = TensorType::of_dtype(tensor.dtype);
                let kind = kind.ok_or_else(|| invalid(format!("is {:?}", tensor.dtype)))?;
                (tensor.shape.to_vec(), kind)
            }
        };
        self.with_values(&name, &shape, kind, vec![tensor], None)
            .map_err(invalid)
    }

    /// A tensor with the new values of its parts; `before` is what a file has for it.
    fn with_values<'a>(
        &self,
        name: &str,
        shape: &[usize],
        kind: TensorType,
        parts: Vec<&'a ModelTensor<'_>>,
        before: Option<&'a [u8]>,
    ) -> Result<NewEntry<'a>, String> {
        let heads = [self.heads.queries, self.heads.keys];
        let change = Change::of(&self.kind, name, shape, kind, heads)?;
        Ok(NewEntry {
            name: name.to_owned(),
            shape: shape.to_vec(),
            kind,
            make: Box::new(move || {
                let bytes = match parts[..] {
                    [tensor] => tensor.content()?,
                    _ => joined(parts.iter().map(|tensor| tensor.content()))?,
                };
                let Some(change) = change else {
                    return Ok(bytes);
                };
                // A number of which 1 was subtracted may have lost a last bit.
                Ok(
                    match before.filter(|before| change.read(before) == *bytes) {
                        Some(before) => before.into(),
                        None => change.write_as(&bytes).into(),
                    },
                )
            }),
        })
    }
}

/// Name and shape of a weight whose blocks are in a tensor, and their type.
fn blocks(tensor: &ModelTensor) -> Option<(String, [usize; 2], BlockType)> {
    let (layer, suffix) = tensor.name.split_once(LAYER_BLOCKS)?;
    let block = type_of(&format!("{WEIGHT}{suffix}"))?;
    let [rows, bytes] = tensor.shape[..] else {
        return None;
    };
    let columns = bytes / block.bytes() * block.values();
    Some((format!("{layer}.weight"), [rows, columns], block))
}

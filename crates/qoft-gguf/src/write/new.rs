//! Writing a model of Hugging Face.

use std::borrow::Cow;
use std::collections::BTreeMap;

use qoft_scheme::kernels::FloatFormat;
use qoft_scheme::{Dtype, Error, Keys, ModelTensor, NewModel, Result, WriteTo, float_format};

use super::config::Config;
use super::keys::NewKeys;
use super::layout::{Header, NewEntry, write as write_file};
use super::numbers::{AUTO, Numbers, Sizes};
use super::{rope, tokenizer};
use crate::change::Change;
use crate::experts::{SHARED_GATE, joined};
use crate::file::{ALIGNMENT, TensorType};
use crate::quantize::quantize;

/// The version of blocks that files with some name.
const QUANTIZATION_VERSION: usize = 2;
/// The output head.
const HEAD: &str = "lm_head.weight";
/// The table of tokens.
const TABLE: &str = "model.embed_tokens.weight";

/// Writes a dense model with numbers of a type, or those that follow from its dtype.
///
/// # Errors
/// If files have no name for something in the model or its tokenizer, or the file system refuses.
pub fn write(
    model: &NewModel,
    numbers: Option<&str>,
    to: WriteTo,
    wrote: &mut dyn FnMut(),
) -> Result<()> {
    let name = numbers.unwrap_or(AUTO);
    let numbers = Numbers::named(name, model.format).ok_or_else(|| {
        let known = Numbers::names().join(", ");
        Error::file(
            model.folder,
            format!("no type of numbers `{name}`, only {known}"),
        )
    })?;
    let tensors: BTreeMap<&str, &ModelTensor> = model
        .tensors
        .iter()
        .map(|tensor| (&*tensor.name, tensor))
        .collect();
    let shape = |name: &str| tensors.get(name).map(|tensor| tensor.shape.clone());
    let keys = Keys::new("config.json", model.config.clone());
    let config = Config::read(keys, shape)?;
    let rows = shape(TABLE).and_then(|shape| shape.first().copied());
    let rows =
        rows.ok_or_else(|| Error::file(model.folder, format!("tensor `{TABLE}` is missing")))?;

    let mut keys = NewKeys::default();
    keys.text("general.architecture", config.kind.name);
    keys.text("general.type", "model");
    keys.text("general.name", model.name);
    keys.put(
        "general.file_type",
        crate::file::Value::Unsigned(numbers.file_type),
    );
    keys.size("general.quantization_version", QUANTIZATION_VERSION);
    config.write(rows, &mut keys)?;
    rope::write(&config, &mut keys)?;
    tokenizer::write(&config, model.folder, rows, &mut keys)?;

    let tied = config
        .keys
        .flag("tie_word_embeddings", !tensors.contains_key(HEAD))?;
    let sizes = Sizes {
        layers: config.layers,
        share: config.heads.queries / config.heads.keys,
        tied: tied || !tensors.contains_key(HEAD),
        experts: config.experts()?,
        is_70b: config.layers == 80 && matches!(config.kind.name, "llama" | "qwen2"),
    };
    let entries = tensors
        .values()
        .filter(|tensor| !(sizes.tied && tensor.name == HEAD));
    let mut gathered: BTreeMap<String, Vec<(usize, &ModelTensor)>> = BTreeMap::new();
    for tensor in entries {
        let (name, expert) = place(&config, tensor)?;
        gathered.entry(name).or_default().push((expert, tensor));
    }
    let entries = gathered.into_iter();
    let entries = entries.map(|(name, parts)| entry(&config, numbers, sizes, name, parts));
    let mut entries = entries.collect::<Result<Vec<_>>>()?;
    entries.sort_by_key(|entry| order(&entry.name));
    for (name, factors) in rope::tensors(&config)? {
        entries.insert(
            0,
            NewEntry {
                name: name.to_owned(),
                shape: vec![factors.len()],
                kind: TensorType::Float(Dtype::F32),
                make: Box::new(move || Ok(FloatFormat::F32.to_bytes(&factors).into())),
            },
        );
    }
    let file = format!("{}-{}.gguf", model.name, numbers.name.to_uppercase());
    let header = Header {
        keys: keys.into_stored(),
        alignment: ALIGNMENT,
    };
    let path = to.folder.join(to.file.unwrap_or(&file));
    write_file(&path, &header, &entries, wrote)
}

/// The table of tokens first, then block by block, the head last.
fn order(name: &str) -> (usize, String) {
    let block = name
        .strip_prefix("blk.")
        .and_then(|rest| rest.split_once('.'));
    let block = block.and_then(|(number, _)| number.parse::<usize>().ok());
    let place = match block {
        Some(number) => number + 1,
        None if name.starts_with("token") => 0,
        None => usize::MAX,
    };
    (place, name.to_owned())
}

/// The name of a tensor in files, and the expert that it is of there.
fn place(config: &Config, tensor: &ModelTensor) -> Result<(String, usize)> {
    let mixture = config.kind.mixture;
    let expert = mixture.and_then(|mixture| mixture.place(&tensor.name));
    let place = expert.or_else(|| Some((config.kind.file_name(&tensor.name)?, 0)));
    place.ok_or_else(|| {
        let (name, kind) = (&tensor.name, config.kind.name);
        let reason =
            format!("tensor `{name}`: files have no name for it in a model of the kind `{kind}`");
        Error::file("GGUF file", reason)
    })
}

/// A tensor in its type, of one of the model or of one for each expert.
fn entry<'a>(
    config: &Config,
    numbers: Numbers,
    sizes: Sizes,
    name: String,
    mut parts: Vec<(usize, &'a ModelTensor<'_>)>,
) -> Result<NewEntry<'a>> {
    parts.sort_by_key(|(expert, _)| *expert);
    let tensor = parts[0].1;
    let invalid =
        |reason: String| Error::file("GGUF file", format!("tensor `{}`: {reason}", tensor.name));
    let format = float_format(tensor.dtype);
    let format = format.ok_or_else(|| invalid(format!("is of {:?}", tensor.dtype)))?;
    let part = tensor.shape.clone();
    let is_expert = config
        .kind
        .mixture
        .is_some_and(|m| m.place(&tensor.name).is_some());
    let shape = match (is_expert, &part[..]) {
        (true, [rows, columns]) => vec![sizes.experts, *rows, *columns],
        (false, [1, columns]) if name.contains(SHARED_GATE) => vec![*columns],
        _ => part.clone(),
    };
    let whole = parts.iter().enumerate().all(|(at, (expert, tensor))| {
        *expert == at && tensor.shape == part && float_format(tensor.dtype) == Some(format)
    });
    if !whole || is_expert && parts.len() != sizes.experts {
        let count = sizes.experts;
        return Err(invalid(format!(
            "not all of {count} experts have one like it"
        )));
    }
    // Vectors and norms are always of single precision.
    let kind = match shape[..] {
        [_, columns] | [_, _, columns] => numbers.of_matrix(&name, columns, sizes),
        [_] => TensorType::Float(Dtype::F32),
        _ => return Err(invalid(format!("has the shape {:?}", tensor.shape))),
    };
    let heads = [config.heads.queries, config.heads.keys];
    let change = Change::of(&config.kind, &name, &shape, kind, heads).map_err(invalid)?;
    Ok(NewEntry {
        name,
        shape,
        kind,
        make: Box::new(move || {
            let parts = parts.iter().map(|(_, tensor)| {
                let bytes = tensor.content()?;
                let stored = stored(&bytes, format, &part, kind).map_err(|reason| {
                    Error::file("GGUF file", format!("tensor `{}`: {reason}", tensor.name))
                })?;
                Ok(match change {
                    None => stored,
                    Some(change) => change.write_as(&stored).into(),
                })
            });
            joined(parts)
        }),
    })
}

/// Values of a format as numbers of a type.
fn stored<'a>(
    bytes: &[u8],
    format: FloatFormat,
    shape: &[usize],
    kind: TensorType,
) -> Result<Cow<'a, [u8]>, String> {
    let mut values = vec![0.0; shape.iter().product()];
    format.decode(bytes, &mut values);
    let too_large = || {
        let most = values
            .iter()
            .fold(0.0f32, |most, value| most.max(value.abs()));
        format!(
            "has values up to {most}, beyond what {} holds; choose bf16 or f32",
            kind.name()
        )
    };
    match kind {
        TensorType::Float(dtype) => {
            let format = float_format(dtype).ok_or_else(too_large)?;
            let bytes = format.to_bytes(&values);
            let mut read = vec![0.0; values.len()];
            format.decode(&bytes, &mut read);
            match read.iter().all(|value| value.is_finite()) {
                true => Ok(bytes.into()),
                false => Err(too_large()),
            }
        }
        TensorType::Block(block) => {
            let blocks = quantize(block, &values);
            let shape = [shape[0], shape[1]];
            let weight = block.weight(shape, blocks.clone().into());
            weight.map_err(|_| too_large())?;
            Ok(blocks.into())
        }
    }
}

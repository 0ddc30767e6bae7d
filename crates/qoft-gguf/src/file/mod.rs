//! A GGUF file: metadata, a table of tensors, and their bytes.

mod cursor;
mod metadata;
mod value;

use std::ops::Range;
use std::path::Path;

use qoft_scheme::{Dtype, Error, MappedFile, Result};

use crate::block::BlockType;
use cursor::Cursor;
pub use metadata::Metadata;
pub use value::{Value, put_string};

/// How files begin.
pub const MAGIC: &[u8; 4] = b"GGUF";
/// Versions that are read.
const VERSIONS: Range<u32> = 2..4;
/// What the places of tensors are multiples of, unless the file says otherwise.
pub const ALIGNMENT: usize = 32;
/// The key that says otherwise.
const ALIGNMENT_KEY: &str = "general.alignment";

/// Names of types that are not read, by their numbers.
const OTHERS: [(u32, &str); 18] = [
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (40, "NVFP4"),
    (41, "Q1_0"),
];

/// How the values of a tensor are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TensorType {
    /// Plain floats.
    Float(Dtype),
    /// Blocks.
    Block(BlockType),
}

impl TensorType {
    /// The plain floats, with their numbers in files.
    const FLOATS: [(u32, Dtype); 3] = [(0, Dtype::F32), (1, Dtype::F16), (30, Dtype::BF16)];

    /// The type of a number.
    fn of(number: u32) -> Result<Self, String> {
        let float = Self::FLOATS.into_iter().find(|(id, _)| *id == number);
        let block = BlockType::ALL.into_iter().find(|(id, _)| *id == number);
        match (float, block) {
            (Some((_, dtype)), _) => Ok(Self::Float(dtype)),
            (_, Some((_, block))) => Ok(Self::Block(block)),
            _ => {
                let known = OTHERS.into_iter().find(|(id, _)| *id == number);
                let name = known.map_or(format!("number {number}"), |(_, name)| name.into());
                let read: Vec<&str> = BlockType::ALL.iter().map(|(_, b)| b.name()).collect();
                let read = read.join(", ");
                Err(format!(
                    "type {name} is not supported; those that are: F32, F16, BF16, {read}"
                ))
            }
        }
    }

    /// Plain floats of this dtype.
    pub fn of_dtype(dtype: Dtype) -> Option<Self> {
        let mut floats = Self::FLOATS.into_iter();
        floats
            .any(|(_, known)| known == dtype)
            .then_some(Self::Float(dtype))
    }

    /// Its number in files.
    pub fn number(self) -> u32 {
        let floats = Self::FLOATS.map(|(number, dtype)| (number, Self::Float(dtype)));
        let blocks = BlockType::ALL.map(|(number, block)| (number, Self::Block(block)));
        let mut all = floats.into_iter().chain(blocks);
        // The two lists have every type.
        all.find(|(_, kind)| *kind == self)
            .map_or(0, |(number, _)| number)
    }

    /// `Q4_K`, `F16` and the like.
    pub fn name(self) -> String {
        match self {
            Self::Float(dtype) => format!("{dtype:?}"),
            Self::Block(block) => block.name().to_owned(),
        }
    }

    /// Bytes of a row of so many values, if they are whole blocks.
    pub fn row_bytes(self, values: usize) -> Option<usize> {
        let (block, bytes) = match self {
            Self::Float(dtype) => (1, dtype.bitsize() / 8),
            Self::Block(block) => (block.values(), block.bytes()),
        };
        let whole = values.is_multiple_of(block);
        whole.then(|| (values / block).checked_mul(bytes)).flatten()
    }
}

/// An entry of the table.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The format's name.
    pub name: String,
    /// Slowest dimension first, as in PyTorch.
    pub shape: Vec<usize>,
    /// How its values are stored.
    pub kind: TensorType,
    /// Where its bytes are in the file.
    pub range: Range<usize>,
}

/// A file whose table is checked: all tensors lie inside of it.
pub struct File {
    /// The bytes.
    pub mapped: MappedFile,
    /// Keys and values.
    pub metadata: Metadata,
    /// The tensors in the order of the file.
    pub tensors: Vec<Entry>,
    /// What their places are multiples of.
    pub alignment: usize,
}

impl File {
    /// Maps a file and reads all but the tensors' bytes.
    ///
    /// # Errors
    /// If it is damaged, or has a tensor of a type that is not read.
    pub fn open(path: &Path) -> Result<Self> {
        let mapped = MappedFile::open(path)?;
        let file = &mut Cursor::new(path, mapped.bytes());
        if file.array::<4>()? != *MAGIC {
            return Err(file.error("not a GGUF file: it does not begin with `GGUF`"));
        }
        let version = file.u32()?;
        if VERSIONS.contains(&version.swap_bytes()) {
            return Err(file.error("a big-endian file, which is not supported"));
        }
        if !VERSIONS.contains(&version) {
            let reason = format!("version {version}; those that are supported: 2, 3");
            return Err(file.error(reason));
        }
        // A name's length, a count of dimensions, a type and a place.
        let tensors = file.count("tensors", 24)?;
        // A key's length, a type and a byte.
        let keys = file.count("keys of metadata", 13)?;
        let metadata = Metadata::read(path, file, keys)?;
        let alignment = metadata.size(ALIGNMENT_KEY)?.unwrap_or(ALIGNMENT);
        if !alignment.is_power_of_two() {
            let reason = format!("expected a power of two, found {alignment}");
            return Err(metadata.error(ALIGNMENT_KEY, reason));
        }
        let mut table = Vec::new();
        for _ in 0..tensors {
            table.push(entry(file)?);
        }
        let start = file.position().checked_next_multiple_of(alignment);
        let start = start.ok_or_else(|| file.error("an alignment that is too large"))?;
        for entry in &mut table {
            let Range { start: from, end } = entry.range;
            let placed = start.checked_add(from).zip(start.checked_add(end));
            let placed = placed.filter(|(_, end)| *end <= mapped.bytes().len());
            let Some((from, end)) = placed.filter(|(from, _)| from.is_multiple_of(alignment))
            else {
                let reason = format!(
                    "tensor `{}` has bytes {from}..{end} of the data, which begin at {start} of {} \
                     bytes and are aligned to {alignment}",
                    entry.name,
                    mapped.bytes().len()
                );
                return Err(Error::file(path, reason));
            };
            entry.range = from..end;
        }
        Ok(Self {
            mapped: mapped.clone(),
            metadata,
            tensors: table,
            alignment,
        })
    }
}

/// An entry of the table, whose range counts from the beginning of the data.
fn entry(file: &mut Cursor) -> Result<Entry> {
    let name = file.string()?.to_owned();
    let dimensions = file.u32()?;
    if !(1..=4).contains(&dimensions) {
        return Err(file.error(format!("tensor `{name}` has {dimensions} dimensions")));
    }
    let mut shape = Vec::new();
    for _ in 0..dimensions {
        let size = file.u64()?;
        let size = usize::try_from(size).ok().filter(|&size| size > 0);
        shape.push(size.ok_or_else(|| file.error(format!("tensor `{name}`: an empty size")))?);
    }
    let kind = TensorType::of(file.u32()?);
    let kind = kind.map_err(|reason| file.error(format!("tensor `{name}`: {reason}")))?;
    let start = file.u64()?;
    let rows = shape[1..].iter().try_fold(1usize, |n, &s| n.checked_mul(s));
    let bytes = kind.row_bytes(shape[0]).zip(rows);
    let bytes = bytes.and_then(|(row, rows)| row.checked_mul(rows));
    let range = usize::try_from(start).ok().zip(bytes);
    let range = range.and_then(|(start, bytes)| Some(start..start.checked_add(bytes)?));
    shape.reverse();
    let range = range.ok_or_else(|| {
        file.error(format!(
            "tensor `{name}` of shape {shape:?} at {start}: impossible, or rows that are no whole \
             blocks of {kind:?}"
        ))
    })?;
    Ok(Entry {
        name,
        shape,
        kind,
        range,
    })
}

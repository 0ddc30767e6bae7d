//! How a file is laid out: metadata, the table of tensors, their bytes.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use qoft_scheme::{Error, Result};

use crate::file::{MAGIC, TensorType, put_string};

/// The version that is written.
const VERSION: u32 = 3;

/// A tensor of a new file.
pub struct NewEntry<'a> {
    /// The format's name.
    pub name: String,
    /// Slowest dimension first.
    pub shape: Vec<usize>,
    /// How its values are stored.
    pub kind: TensorType,
    /// Makes its bytes.
    pub make: Box<dyn Fn() -> Result<Cow<'a, [u8]>> + 'a>,
}

impl NewEntry<'_> {
    /// Bytes of all rows; `None` if these are no whole blocks.
    fn bytes(&self) -> Option<usize> {
        let (columns, rows) = self.shape.split_last()?;
        let row = self.kind.row_bytes(*columns)?;
        rows.iter()
            .try_fold(row, |all, size| all.checked_mul(*size))
    }
}

/// A new file before its tensors: keys with their values as they are stored.
pub struct Header<'a> {
    /// One for each key.
    pub keys: Vec<Cow<'a, [u8]>>,
    /// What the places of tensors are multiples of.
    pub alignment: usize,
}

/// Writes a file, tensor by tensor, and waits until it is on the disk. `wrote` is called after each
/// tensor.
///
/// # Errors
/// If a tensor cannot be made or has other bytes than its shape demands, or the file system refuses.
pub fn write(
    path: &Path,
    header: &Header,
    tensors: &[NewEntry],
    wrote: &mut dyn FnMut(),
) -> Result<()> {
    let alignment = header.alignment;
    let mut start = Vec::new();
    start.extend(MAGIC);
    start.extend(VERSION.to_le_bytes());
    start.extend((tensors.len() as u64).to_le_bytes());
    start.extend((header.keys.len() as u64).to_le_bytes());
    for key in &header.keys {
        start.extend_from_slice(key);
    }
    let mut end = 0usize;
    let mut sizes = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let NewEntry { name, shape, .. } = tensor;
        let place = tensor.bytes().and_then(|bytes| {
            let next = end.checked_add(bytes)?;
            let next = next.checked_next_multiple_of(alignment)?;
            Some((bytes, std::mem::replace(&mut end, next)))
        });
        let Some((bytes, at)) = place else {
            let kind = tensor.kind.name();
            let reason = format!("tensor `{name}` of {shape:?} has no whole blocks of {kind}");
            return Err(Error::file(path, reason));
        };
        sizes.push(bytes);
        put_string(&mut start, name);
        start.extend((shape.len() as u32).to_le_bytes());
        for size in shape.iter().rev() {
            start.extend((*size as u64).to_le_bytes());
        }
        start.extend(tensor.kind.number().to_le_bytes());
        start.extend((at as u64).to_le_bytes());
    }
    start.resize(start.len().next_multiple_of(alignment), 0);

    let file = File::create(path).map_err(Error::io(path))?;
    let mut file = BufWriter::new(file);
    let mut put = |bytes: &[u8]| file.write_all(bytes).map_err(Error::io(path));
    put(&start)?;
    for (tensor, size) in tensors.iter().zip(sizes) {
        let bytes = (tensor.make)()?;
        if bytes.len() != size {
            let (name, found) = (&tensor.name, bytes.len());
            let reason = format!("tensor `{name}` has {found} bytes, expected {size}");
            return Err(Error::file(path, reason));
        }
        put(&bytes)?;
        put(&vec![0; size.next_multiple_of(alignment) - size])?;
        wrote();
    }
    let file = file
        .into_inner()
        .map_err(|e| Error::io(path)(e.into_error()))?;
    file.sync_all().map_err(Error::io(path))
}

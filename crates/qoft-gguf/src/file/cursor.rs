//! Reading numbers and strings of a file made by strangers.

use std::path::Path;

use qoft_scheme::{Error, Result};

/// A place in the bytes of a file. Nothing is taken that is not there.
pub struct Cursor<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// The beginning of a file.
    pub fn new(path: &'a Path, bytes: &'a [u8]) -> Self {
        Self { path, bytes, at: 0 }
    }

    /// Bytes before this place.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Bytes behind this place.
    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The next bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(count);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or_else(|| {
            let found = self.left();
            self.error(format!("expected {count} more bytes, found {found}"))
        })?;
        self.at += count;
        Ok(taken)
    }

    /// The next bytes of a known number.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let taken = self.take(N)?;
        let mut array = [0; N];
        array.copy_from_slice(taken);
        Ok(array)
    }

    /// A number of 32 bits.
    pub fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// A number of 64 bits.
    pub fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A count of 64 bits of things that take at least `bytes` bytes each: so many are there.
    pub fn count(&mut self, what: &str, bytes: usize) -> Result<usize> {
        let count = self.u64()?;
        let found = usize::try_from(count).ok();
        let fits = found.filter(|count| count.saturating_mul(bytes) <= self.left());
        fits.ok_or_else(|| {
            let left = self.left();
            self.error(format!("{count} {what} in the {left} bytes that follow"))
        })
    }

    /// A string.
    pub fn string(&mut self) -> Result<&'a str> {
        let length = self.count("bytes of a string", 1)?;
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map_err(|_| self.error("a string that is no UTF-8"))
    }

    /// An error at this place.
    pub fn error(&self, reason: impl ToString) -> Error {
        let reason = reason.to_string();
        Error::file(self.path, format!("at byte {}: {reason}", self.at))
    }
}

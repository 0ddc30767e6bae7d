//! A checksum that a file of tensors has in its own header: CRC-32C of all its bytes, with zeros in its place.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;

use qoft_core::{Error, Result};
use rayon::prelude::*;

/// What the header calls it.
const KEY: &str = "crc32c";
/// What stands there before it is known. Sums have as many digits.
const UNKNOWN: &str = "00000000";
/// Bytes that a thread reads at once.
const BUFFER: usize = 1 << 20;
/// Bytes whose sum a thread makes.
const PIECE: u64 = 64 << 20;
/// The most bytes of a header, as in the library for these files.
const HEADER: u64 = 100_000_000;

/// What a file has to say of its tensors when it is written, so that [`seal`] finds a place for the sum.
pub fn placeholder() -> BTreeMap<String, String> {
    BTreeMap::from([(KEY.to_owned(), UNKNOWN.to_owned())])
}

/// Puts the sum into a file that was written with the [`placeholder`].
///
/// # Errors
/// If the file cannot be read or written, or has no place for it.
pub fn seal(path: &Path) -> Result<()> {
    let sealed = || {
        let place = place(path)?.ok_or_else(|| std::io::Error::other("no place for a checksum"))?;
        let sum = sum(path, &place, PIECE)?;
        let mut file = File::options().write(true).open(path)?;
        file.seek(SeekFrom::Start(place.start))?;
        file.write_all(text(sum).as_bytes())?;
        file.sync_all()
    };
    sealed().map_err(Error::io(path))
}

/// Fails if a file is not as it was when it got its sum.
///
/// # Errors
/// If it cannot be read, or has none or another one.
pub fn check(path: &Path) -> Result<()> {
    let found = || -> std::io::Result<Option<(String, String)>> {
        let Some(place) = place(path)? else {
            return Ok(None);
        };
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(place.start))?;
        let mut stored = [0; UNKNOWN.len()];
        file.read_exact(&mut stored)?;
        let stored = String::from_utf8_lossy(&stored).into_owned();
        Ok(Some((text(sum(path, &place, PIECE)?), stored)))
    };
    match found().map_err(Error::io(path))? {
        None => Err(Error::file(path, "it is damaged: it has no checksum")),
        Some((found, stored)) if found != stored => {
            let reason = format!("it is damaged: its checksum is {found}, expected {stored}");
            Err(Error::file(path, reason))
        }
        Some(_) => Ok(()),
    }
}

fn text(sum: u32) -> String {
    format!("{sum:08x}")
}

/// Where the sum stands; `None` if the header has none.
fn place(path: &Path) -> std::io::Result<Option<Range<u64>>> {
    let mut file = File::open(path)?;
    let mut length = [0; 8];
    file.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    if length > HEADER {
        return Ok(None);
    }
    let mut header = Vec::new();
    file.take(length).read_to_end(&mut header)?;
    let before = format!("\"{KEY}\":\"");
    let mut windows = header.windows(before.len());
    let Some(at) = windows.position(|window| window == before.as_bytes()) else {
        return Ok(None);
    };
    let start = (at + before.len()) as u64;
    let place = 8 + start..8 + start + UNKNOWN.len() as u64;
    Ok((place.end <= 8 + header.len() as u64).then_some(place))
}

/// The sum of a file with zeros at `place`, of pieces that all threads read. The file is no map, whose pages would
/// count as memory of the process.
fn sum(path: &Path, place: &Range<u64>, piece: u64) -> std::io::Result<u32> {
    let length = path.metadata()?.len();
    let of_piece = |index: u64| {
        let start = index * piece;
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(start))?;
        let (mut sum, mut at) = (0, start);
        let end = length.min(start + piece);
        let mut buffer = vec![0; BUFFER.min((end - start) as usize)];
        while at < end {
            let bytes = BUFFER.min((end - at) as usize);
            let read = &mut buffer[..bytes];
            file.read_exact(read)?;
            let inside = place.start.max(at)..place.end.min(at + bytes as u64);
            for byte in inside {
                read[(byte - at) as usize] = b'0';
            }
            sum = crc32c::crc32c_append(sum, read);
            at += bytes as u64;
        }
        Ok((sum, (end - start) as usize))
    };
    let pieces = (0..length.div_ceil(piece)).into_par_iter().map(of_piece);
    let sums = pieces.collect::<std::io::Result<Vec<_>>>()?;
    let join = |all, (next, length)| crc32c::crc32c_combine(all, next, length);
    Ok(sums.into_iter().fold(0, join))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn file(about: &str) -> Vec<u8> {
        let mut header = format!(
            "{{\"__metadata__\":{{{about}}},\"a\":{{\"dtype\":\"U8\",\"shape\":[5],\"data_offsets\":[0,5]}}}}"
        );
        header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend([1, 2, 3, 4, 5]);
        bytes
    }

    #[test]
    fn every_change_is_seen() {
        let work = tempfile::tempdir().unwrap();
        let path = work.path().join("a.safetensors");
        fs::write(&path, file("\"crc32c\":\"00000000\"")).unwrap();
        assert!(check(&path).is_err());
        seal(&path).unwrap();
        check(&path).unwrap();
        let bytes = fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x01;
            fs::write(&path, &damaged).unwrap();
            assert!(check(&path).is_err(), "{at}");
            fs::write(&path, &bytes[..at]).unwrap();
            assert!(check(&path).is_err(), "{at}");
        }
        fs::write(&path, &bytes).unwrap();
        check(&path).unwrap();
        // The sum is that of the whole, however it is divided.
        let place = place(&path).unwrap().unwrap();
        let whole = crc32c::crc32c(&file("\"crc32c\":\"00000000\""));
        for piece in [1, 3, 64, PIECE] {
            assert_eq!(sum(&path, &place, piece).unwrap(), whole, "{piece}");
        }
    }

    #[test]
    fn files_without_a_sum_are_not_trusted() {
        let work = tempfile::tempdir().unwrap();
        let path = work.path().join("a.safetensors");
        fs::write(&path, file("\"format\":\"pt\"")).unwrap();
        assert!(seal(&path).is_err());
        let error = check(&path).unwrap_err().to_string();
        assert!(error.contains("no checksum"), "{error}");
    }
}

//! What the fuzz targets share: inputs of several parts, and folders that are made of them.

pub mod layers;
#[cfg(feature = "models")]
pub mod small;

use std::path::Path;

use tempfile::TempDir;

/// Stands between the parts of an input, on a line of its own.
pub const BORDER: &[u8] = b"\n--- next part ---\n";

/// The parts of an input; those that are missing are empty.
pub fn parts<const N: usize>(input: &[u8]) -> [&[u8]; N] {
    let mut rest = input;
    let mut left = N;
    std::array::from_fn(|_| {
        left -= 1;
        let at = rest.windows(BORDER.len()).position(|w| w == BORDER);
        match at.filter(|_| left > 0) {
            Some(at) => {
                let part = &rest[..at];
                rest = &rest[at + BORDER.len()..];
                part
            }
            None => std::mem::take(&mut rest),
        }
    })
}

/// A safetensors file of a header and tensors, with the right length of the header before it; the
/// tensors as they are if there is no header.
pub fn safetensors(header: &[u8], tensors: &[u8]) -> Vec<u8> {
    if header.is_empty() {
        return tensors.to_vec();
    }
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header, tensors].concat()
}

/// A temporary folder, in memory where the system has such files.
///
/// # Panics
/// If the file system refuses.
pub fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    made.expect("a temporary folder")
}

/// Writes a file.
///
/// # Panics
/// If the file system refuses.
pub fn write(folder: &Path, name: &str, content: &[u8]) {
    std::fs::write(folder.join(name), content).expect("a file in a temporary folder");
}

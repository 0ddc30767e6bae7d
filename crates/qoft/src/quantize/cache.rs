//! Packed weights that are kept for the next time.

use std::path::{Path, PathBuf};

use qoft_core::kernels::FloatFormat;
use qoft_core::{Checkpoint, Error, Quantization, Result};
use sha2::{Digest as _, Sha256};

use super::checksum;
use super::plan::Plan;
use crate::write::{Output, write_tensors};

/// Characters of the digest in the name of a file.
const SHOWN: usize = 16;

/// The file in the folder `dir` for the packed weights of a checkpoint, whose configuration says how
/// it is to be quantized.
pub fn file(
    dir: &Path,
    checkpoint: &Checkpoint,
    quantization: &Quantization,
    format: FloatFormat,
) -> Result<PathBuf> {
    std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
    let digest = digest(checkpoint)?;
    let (backend, format) = (quantization.backend(), format.name());
    let version = env!("CARGO_PKG_VERSION");
    Ok(dir.join(format!("{digest}-{backend}-{format}-{version}.safetensors")))
}

/// Of the configuration, the tensors' names, shapes and dtypes, and of when the files were changed. Their bytes
/// are not read: that would take longer than all that is done with packed weights.
fn digest(checkpoint: &Checkpoint) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(checkpoint.config().to_string());
    hash.update(serde_json::json!(checkpoint.metadata()).to_string());
    for name in checkpoint.names() {
        let tensor = checkpoint.tensor(name)?;
        let (dtype, shape) = (tensor.dtype(), tensor.shape());
        hash.update(format!("\n{name} {dtype:?} {shape:?}"));
    }
    for path in checkpoint.files() {
        let state = state(path).map_err(Error::io(path))?;
        hash.update(format!("\n{state}"));
    }
    let mut digest = format!("{:x}", hash.finalize());
    digest.truncate(SHOWN);
    Ok(digest)
}

/// What of a file is another once something is written into it.
fn state(path: &Path) -> std::io::Result<String> {
    let file = path.metadata()?;
    let state = format!("{} {:?}", file.len(), file.modified()?);
    // Programs that copy files can set the time above, but not this one.
    #[cfg(unix)]
    let state = {
        use std::os::unix::fs::MetadataExt;
        format!("{state} {} {}", file.ctime(), file.ctime_nsec())
    };
    Ok(state)
}

/// Lets the checkpoint have the tensors of the file; `false` if there is none that is whole.
pub fn read(file: &Path, checkpoint: &mut Checkpoint, plan: &Plan) -> bool {
    if !file.is_file() {
        return false;
    }
    let whole = checksum::check(file);
    match whole.and_then(|()| checkpoint.overlay(file, plan.paths())) {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!("{error}; the model is quantized anew");
            false
        }
    }
}

/// Writes the tensors in which `quantized` differs from `dense`. A cache that cannot be written is
/// no error: the model is there.
pub fn write(file: &Path, dense: &Checkpoint, quantized: &Checkpoint, plan: &Plan) {
    let written = || {
        let (mut outputs, is_packed) = (Vec::new(), plan.packed());
        for name in quantized.names() {
            let tensor = quantized.tensor(name)?;
            let before = dense.get(name);
            if before.is_none_or(|before| before.file() != tensor.file()) {
                outputs.push(match is_packed(name) {
                    true => Output::packed(tensor),
                    false => Output::copy(tensor),
                });
            }
        }
        write_tensors(file, &outputs, &checksum::placeholder(), &checksum::seal)
    };
    if let Err(error) = written() {
        tracing::warn!("the packed weights are not kept: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn what_is_written_into_a_file_makes_it_another() {
        let work = tempfile::tempdir().expect("a folder");
        let path = work.path().join("config.json");
        let checkpoint = || Checkpoint::open(work.path()).expect("a checkpoint");
        fs::write(&path, "{}").expect("a file");
        let weights = work.path().join("model.safetensors");
        let mut bytes = 64u64.to_le_bytes().to_vec();
        let mut header =
            br#"{"a.weight": {"dtype":"U8","shape":[2],"data_offsets":[0,2]}}"#.to_vec();
        header.resize(64, b' ');
        bytes.extend(header);
        bytes.extend([1, 2]);
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        let write = |bytes: &[u8]| {
            fs::write(&weights, bytes).expect("a file");
            let file = fs::File::options().write(true).open(&weights);
            file.and_then(|file| file.set_modified(time))
                .expect("a time");
        };
        write(&bytes);
        let first = digest(&checkpoint()).expect("a digest");
        assert_eq!(digest(&checkpoint()).expect("a digest"), first);
        assert_eq!(first.len(), SHOWN);
        // Configurations count.
        fs::write(&path, r#"{"a": 1}"#).expect("a file");
        let other = digest(&checkpoint()).expect("a digest");
        assert_ne!(other, first);
        // So do other bytes, also where nothing but the time of the change tells it.
        #[cfg(unix)]
        {
            std::thread::sleep(Duration::from_millis(20));
            *bytes.last_mut().expect("bytes") = 3;
            write(&bytes);
            assert_ne!(digest(&checkpoint()).expect("a digest"), other);
        }
    }
}

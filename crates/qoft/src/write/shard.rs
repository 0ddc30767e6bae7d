//! One file of tensors.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;

use qoft_core::{Error, Result};
use safetensors::tensor::{Metadata, TensorInfo};

use super::Output;
use crate::ahead::one_ahead;

/// Writes a safetensors file that says `about` of its tensors, whose tensors are made one after another, each while the one before
/// it is written.
pub fn write(
    path: &Path,
    mut outputs: Vec<&Output<'_>>,
    about: &BTreeMap<String, String>,
    progress: &mut (dyn FnMut() + Send),
) -> Result<()> {
    // As the library writes them: every tensor begins at a multiple of its numbers' size.
    outputs.sort_by(|a, b| b.dtype.cmp(&a.dtype).then(a.name.cmp(&b.name)));
    let mut file = File::create(path).map_err(Error::io(path))?;
    file.write_all(&header(&outputs, about).map_err(|e| Error::file(path, e))?)
        .map_err(Error::io(path))?;
    let clone = file.try_clone().map_err(Error::io(path))?;
    let mut disk = Disk::new(clone);
    let put = |output: &&Output, content: Cow<[u8]>| {
        if content.len() != output.bytes() {
            let (name, found, expected) = (&output.name, content.len(), output.bytes());
            let reason = format!("`{name}` has {found} bytes, expected {expected}");
            return Err(Error::file(path, reason));
        }
        for piece in content.chunks(Disk::PIECE) {
            file.write_all(piece).map_err(Error::io(path))?;
            disk.wrote(piece.len());
        }
        progress();
        Ok(())
    };
    let written = one_ahead(&outputs, |output| output.content(), put);
    let synced = disk.finish().map_err(Error::io(path));
    written.and(synced)
}

/// The length of the header, and the header.
fn header(
    outputs: &[&Output],
    about: &BTreeMap<String, String>,
) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let mut end = 0;
    let infos = outputs.iter().map(|output| {
        let start = end;
        end += output.bytes();
        let info = TensorInfo {
            dtype: output.dtype,
            shape: output.shape.clone(),
            data_offsets: (start, end),
        };
        (output.name.clone(), info)
    });
    let about = about
        .iter()
        .map(|(key, value)| (key.clone(), value.clone()));
    let format = ("format".to_owned(), "pt".to_owned());
    let about: HashMap<String, String> = about.chain([format]).collect();
    let metadata = Metadata::new(Some(about), infos.collect())?;
    let mut text = serde_json::to_vec(&metadata)?;
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.append(&mut text);
    Ok(bytes)
}

/// Sends what was written of a file to the disk while more is written.
struct Disk {
    /// Bytes that nobody was told of yet.
    waiting: usize,
    wake: Sender<()>,
    thread: JoinHandle<std::io::Result<()>>,
}

impl Disk {
    /// Bytes that are sent at once, at least.
    const PIECE: usize = 32 << 20;

    fn new(file: File) -> Self {
        let (wake, woken) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            while woken.recv().is_ok() {
                // One call sends all that was written until now.
                while woken.try_recv().is_ok() {}
                file.sync_data()?;
            }
            file.sync_all()
        });
        Self {
            waiting: 0,
            wake,
            thread,
        }
    }

    fn wrote(&mut self, bytes: usize) {
        self.waiting += bytes;
        if self.waiting >= Self::PIECE {
            self.waiting = 0;
            // After an error nobody listens; `finish` returns it.
            let _ = self.wake.send(());
        }
    }

    /// Waits until all is on the disk.
    fn finish(self) -> std::io::Result<()> {
        drop(self.wake);
        let panicked = |_| {
            Err(std::io::Error::other(
                "the thread that syncs files panicked",
            ))
        };
        self.thread.join().unwrap_or_else(panicked)
    }
}

#[cfg(test)]
mod tests {
    use qoft_core::Dtype;
    use safetensors::SafeTensors;

    use super::super::Data;
    use super::*;

    fn output(
        name: &str,
        dtype: Dtype,
        shape: &[usize],
        made: Result<Vec<u8>, ()>,
    ) -> Output<'static> {
        let make = move || {
            let failed = |()| Error::file("weights", "damaged");
            made.clone().map_err(failed)
        };
        Output {
            name: name.into(),
            dtype,
            shape: shape.into(),
            data: Data::Made(Box::new(make)),
        }
    }

    #[test]
    fn the_library_reads_what_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let large: Vec<u8> = (0..Disk::PIECE + 12).map(|i| (i % 63) as u8).collect();
        let outputs = [
            output("a", Dtype::U8, &[3], Ok(vec![1, 2, 3])),
            output("b", Dtype::F32, &[2, 1], Ok((0..8).collect())),
            output("c", Dtype::F32, &[large.len() / 4], Ok(large)),
            output("d", Dtype::F16, &[0], Ok(Vec::new())),
        ];
        let mut count = 0;
        let about = BTreeMap::from([("a".to_owned(), "three bytes".to_owned())]);
        write(&path, outputs.iter().collect(), &about, &mut || count += 1).unwrap();
        assert_eq!(count, outputs.len());
        let file = std::fs::read(&path).unwrap();
        let tensors = SafeTensors::deserialize(&file).unwrap();
        for output in &outputs {
            let found = tensors.tensor(&output.name).unwrap();
            assert_eq!(
                (found.dtype(), found.shape()),
                (output.dtype, &output.shape[..])
            );
            assert_eq!(found.data(), &output.content().unwrap()[..]);
        }
        let (_, metadata) = SafeTensors::read_metadata(&file).unwrap();
        let start = |name| metadata.info(name).unwrap().data_offsets.0;
        assert_eq!(start("b") % 4 + start("c") % 4 + start("d") % 2, 0);
        let found = metadata.metadata().as_ref().unwrap();
        assert_eq!((&*found["format"], &*found["a"]), ("pt", "three bytes"));
    }

    #[test]
    fn errors_name_the_tensor_or_are_passed_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let error = |second| {
            let outputs = [output("a", Dtype::U8, &[1], Ok(vec![1])), second];
            let result = write(
                &path,
                outputs.iter().collect(),
                &BTreeMap::new(),
                &mut || (),
            );
            result.unwrap_err().to_string()
        };
        let short = error(output("b", Dtype::F32, &[2], Ok(vec![0; 7])));
        assert!(short.contains("`b` has 7 bytes, expected 8"), "{short}");
        let failed = error(output("b", Dtype::F32, &[2], Err(())));
        assert!(failed.contains("damaged"), "{failed}");
    }
}

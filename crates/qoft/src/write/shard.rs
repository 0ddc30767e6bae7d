//! One file of tensors.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;

use qoft_core::{Error, Result};
use safetensors::tensor::{Metadata, TensorInfo};

use super::Output;
use crate::ahead::one_ahead;

/// Writes a safetensors file, whose tensors are made one after another, each while the one before
/// it is written.
pub fn write(
    path: &Path,
    mut outputs: Vec<&Output<'_>>,
    progress: &mut (dyn FnMut() + Send),
) -> Result<()> {
    // As the library writes them: every tensor begins at a multiple of its numbers' size.
    outputs.sort_by(|a, b| b.dtype.cmp(&a.dtype).then(a.name.cmp(&b.name)));
    let mut file = File::create(path).map_err(Error::io(path))?;
    file.write_all(&header(&outputs).map_err(|e| Error::file(path, e))?)
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
fn header(outputs: &[&Output]) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
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
    let about = HashMap::from([("format".to_owned(), "pt".to_owned())]);
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

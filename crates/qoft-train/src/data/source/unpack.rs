//! Files that are packed by gzip or zstd.

use std::io::{BufRead, BufReader, Error, Read, Result};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::StreamingDecoder;

/// What a file holds: unpacked if its first bytes say that it is packed.
pub(super) fn unpacked<R: BufRead + 'static>(mut file: R) -> Result<Box<dyn BufRead>> {
    let head = file.fill_buf()?;
    Ok(if head.starts_with(b"\x1F\x8B") {
        Box::new(BufReader::new(MultiGzDecoder::new(file)))
    } else if head.starts_with(b"\x28\xB5\x2F\xFD") {
        Box::new(BufReader::new(Frames::Between(file)))
    } else {
        Box::new(file)
    })
}

/// The frames of a zstd file, one after another.
enum Frames<R: BufRead> {
    /// Before a frame, or at the end.
    Between(R),
    Within(Box<StreamingDecoder<R, ruzstd::decoding::FrameDecoder>>),
    /// After an error.
    Broken,
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, out: &mut [u8]) -> Result<usize> {
        loop {
            match std::mem::replace(self, Self::Broken) {
                Self::Between(mut file) => {
                    if file.fill_buf()?.is_empty() {
                        *self = Self::Between(file);
                        return Ok(0);
                    }
                    let frame = StreamingDecoder::new(file).map_err(Error::other)?;
                    *self = Self::Within(Box::new(frame));
                }
                Self::Within(mut frame) => {
                    let count = frame.read(out)?;
                    *self = match count {
                        0 => Self::Between(frame.into_inner()),
                        _ => Self::Within(frame),
                    };
                    if count > 0 || out.is_empty() {
                        return Ok(count);
                    }
                }
                Self::Broken => return Err(Error::other("the zstd data is damaged")),
            }
        }
    }
}

//! Files that are packed by gzip or zstd.

use std::io::{BufRead, BufReader, Error, Read, Result};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::StreamingDecoder;

/// What a file holds: unpacked if its first bytes say that it is packed.
///
/// `packed` is the size of the file. What unpacks to far more than data does is an error: it may have been made to
/// fill the memory.
pub(super) fn unpacked<R: BufRead + 'static>(mut file: R, packed: u64) -> Result<Box<dyn BufRead>> {
    let head = file.fill_buf()?;
    let left = packed.saturating_mul(RATIO).saturating_add(SMALL);
    Ok(if head.starts_with(b"\x1F\x8B") {
        let content = MultiGzDecoder::new(file);
        Box::new(BufReader::new(Bounded { content, left }))
    } else if head.starts_with(b"\x28\xB5\x2F\xFD") {
        let content = Frames::Between(file);
        Box::new(BufReader::new(Bounded { content, left }))
    } else {
        Box::new(file)
    })
}

/// Data unpacks to at most so many times its size: JSON to five to thirty times, a thousand equal rows to more.
const RATIO: u64 = 200;
/// And small files to so many bytes.
const SMALL: u64 = 1 << 26;

/// Content that is read to a certain length only.
struct Bounded<R> {
    content: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, out: &mut [u8]) -> Result<usize> {
        let count = self.content.read(out)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| {
            Error::other(format!(
                "it unpacks to more than {RATIO} times its size, as data does not; unpack it by another \
                 program if it is meant so"
            ))
        })?;
        Ok(count)
    }
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

//! Memory that will be read soon, asked for while something else is computed.

use super::Mat;
use crate::simd::prefetch_at;

/// Bytes of a cache line.
const LINE: usize = 64;

/// Rows of bytes that will be read soon. A processor looks ahead in rows that it reads from their first to
/// their last byte, but not from a short piece of a row to that of the row below.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ahead {
    at: *const u8,
    rows: usize,
    row_bytes: usize,
    row_stride: usize,
}

impl Ahead {
    /// Nothing.
    pub(crate) const NOTHING: Self = Self {
        at: std::ptr::null(),
        rows: 0,
        row_bytes: 0,
        row_stride: 0,
    };

    /// A piece of `bytes`: so many rows, of `row_bytes` bytes each, that begin `row_stride` bytes apart.
    pub(crate) fn new(bytes: &[u8], rows: usize, row_bytes: usize, row_stride: usize) -> Self {
        Self {
            at: bytes.as_ptr(),
            rows: if row_bytes == 0 { 0 } else { rows },
            row_bytes,
            row_stride,
        }
    }

    /// A matrix whose columns lie next to each other.
    pub(super) fn of(mat: Mat) -> Self {
        Self {
            at: mat.data.as_ptr().cast(),
            rows: if mat.cols == 0 { 0 } else { mat.rows },
            row_bytes: size_of::<f32>() * mat.cols,
            row_stride: size_of::<f32>() * mat.row_stride,
        }
    }

    /// The rows of one of `parts` parts.
    pub(super) fn part(self, part: usize, parts: usize) -> Self {
        let [start, end] = [part, part + 1].map(|part| self.rows * part / parts);
        Self {
            at: self.at.wrapping_add(start * self.row_stride),
            rows: end - start,
            ..self
        }
    }
}

/// Asks for all lines of an [`Ahead`], some at a time.
pub(super) struct Fetch {
    row: *const u8,
    row_stride: usize,
    /// How many rows there still are, how many lines each has, and which one of the first of them is next.
    rows: usize,
    lines: usize,
    next: usize,
    each: usize,
}

impl Fetch {
    /// So that all has been asked for after so many calls of [`Self::some`].
    pub(super) fn new(ahead: Ahead, calls: usize) -> Self {
        let before = ahead.at.addr() % LINE;
        let lines = (before + ahead.row_bytes).div_ceil(LINE);
        Self {
            row: ahead.at.wrapping_sub(before),
            row_stride: ahead.row_stride,
            rows: ahead.rows,
            lines,
            next: 0,
            each: (ahead.rows * lines).div_ceil(calls.max(1)),
        }
    }

    /// Asks for the next lines.
    #[inline(always)]
    pub(super) fn some(&mut self) {
        if self.rows == 0 {
            return;
        }
        for _ in 0..self.each {
            prefetch_at(self.row.wrapping_add(self.next * LINE));
            self.next += 1;
            if self.next == self.lines {
                self.next = 0;
                self.row = self.row.wrapping_add(self.row_stride);
                self.rows -= 1;
                if self.rows == 0 {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines that each call asks for, counted from the first one.
    fn asked(ahead: Ahead, calls: usize) -> Vec<Vec<usize>> {
        let mut fetch = Fetch::new(ahead, calls);
        let first = fetch.row.addr();
        let mut call = |_| {
            let mut before = Fetch { ..fetch };
            fetch.some();
            let mut lines = Vec::new();
            while (before.rows, before.next) != (fetch.rows, fetch.next) {
                lines.push((before.row.addr() + before.next * LINE - first) / LINE);
                before.each = 1;
                before.some();
            }
            lines
        };
        (0..calls).map(&mut call).collect()
    }

    #[test]
    fn each_line_of_each_row_is_asked_for_once() {
        let lines = vec![[0u8; LINE]; 64];
        let bytes = lines.as_flattened();
        let bytes = &bytes[bytes.as_ptr().align_offset(LINE)..];
        let found = asked(Ahead::new(bytes, 3, 2 * LINE, 10 * LINE), 4);
        assert_eq!(found, [vec![0, 1], vec![10, 11], vec![20, 21], vec![]]);
        // Rows that begin inside of a line end in another one.
        let found = asked(Ahead::new(&bytes[8..], 2, LINE, 5 * LINE), 2);
        assert_eq!(found, [[0, 1], [5, 6]]);
        assert_eq!(asked(Ahead::NOTHING, 2), [Vec::<usize>::new(), Vec::new()]);
    }

    #[test]
    fn parts_are_all_rows() {
        let bytes = [0u8; 700];
        let ahead = Ahead::new(&bytes, 7, 10, 100);
        let parts = [0, 1, 2].map(|part| ahead.part(part, 3));
        assert_eq!(parts.map(|part| part.rows), [2, 2, 3]);
        let first = bytes.as_ptr().addr();
        assert_eq!(parts.map(|part| part.at.addr() - first), [0, 200, 400]);
    }
}

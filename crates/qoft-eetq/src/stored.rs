//! The orders in which EETQ stores the bytes of a weight.

use std::ops::Range;

use bytes::Bytes;
use qoft_scheme::kernels::transpose;

/// Input features in a tile, and the number that sizes must be multiples of.
pub const TILE: usize = 64;

/// The order of the bytes of a weight of `K` input and `N` output features.
///
/// All but [`ByteOrder::Plain`] store a code plus 128.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ByteOrder {
    /// For compute capability 7.5 to 8.9. Two output channels at a time: tiles of 64 codes of
    /// the one and of the other take turns. Within 16 codes the halves alternate: 0, 8, 1, 9 …
    Sm80,
    /// For compute capability 7.0. Row-major `[K, N]`; of four bytes the middle two are swapped.
    Sm70,
    /// Row-major `[K, N]`. No version of EETQ writes it.
    Plain,
}

impl ByteOrder {
    /// The values of the option.
    pub const NAMES: [(&str, Self); 3] = [
        ("sm80", Self::Sm80),
        ("sm70", Self::Sm70),
        ("plain", Self::Plain),
    ];

    /// Signed codes `[N, K]` in this order; sizes are multiples of 64.
    pub fn encode(self, codes: &[u8], [n, k]: [usize; 2]) -> Vec<u8> {
        match self {
            Self::Plain => transpose(codes, 1, [n, k]),
            Self::Sm70 => {
                let mut bytes = transpose(codes, 1, [n, k]);
                for word in bytes.as_chunks_mut::<4>().0 {
                    let [a, b, c, d] = *word;
                    *word = [a, c, b, d].map(|byte| byte ^ 0x80);
                }
                bytes
            }
            Self::Sm80 => {
                let mut bytes = Vec::with_capacity(codes.len());
                for pair in codes.chunks_exact(2 * k) {
                    let (even, odd) = pair.split_at(k);
                    let tiles = even.as_chunks::<TILE>().0.iter();
                    for (even, odd) in tiles.zip(odd.as_chunks::<TILE>().0) {
                        bytes.extend(even.as_chunks::<16>().0.iter().flat_map(alternating));
                        bytes.extend(odd.as_chunks::<16>().0.iter().flat_map(alternating));
                    }
                }
                bytes
            }
        }
    }
}

/// The order within 16 codes of [`ByteOrder::Sm80`].
fn alternating(codes: &[u8; 16]) -> [u8; 16] {
    std::array::from_fn(|at| codes[at / 2 + at % 2 * 8] ^ 0x80)
}

/// A stored matrix of `K` rows and `N` columns, whose columns may be spread over several tensors.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The bytes of each part and its number of columns, from left to right.
    parts: Vec<(Bytes, usize)>,
    rows: usize,
    columns: usize,
}

impl Stored {
    /// Puts parts of `rows` rows beside each other; each is given with its number of columns.
    ///
    /// `None` if such a matrix does not consist of whole tiles, or channels are not in pairs.
    pub fn new(rows: usize, parts: Vec<(Bytes, usize)>) -> Option<Self> {
        let mut columns = 0usize;
        for (_, width) in &parts {
            columns = columns.checked_add(*width)?;
        }
        let whole = |size: usize| size > 0 && size.is_multiple_of(TILE);
        let fits = |(bytes, columns): &(Bytes, usize)| {
            columns.is_multiple_of(2) && rows.checked_mul(*columns) == Some(bytes.len())
        };
        (whole(rows) && whole(columns) && parts.iter().all(fits)).then_some(Self {
            parts,
            rows,
            columns,
        })
    }

    /// Input features.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Output features.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Columns of each part.
    pub fn widths(&self) -> impl Iterator<Item = usize> {
        self.parts.iter().map(|(_, width)| *width)
    }

    /// Copies bytes of the row-major matrix, from index `at` on.
    fn read(&self, at: usize, mut out: &mut [u8]) {
        let (mut row, mut column) = (at / self.columns, at % self.columns);
        while !out.is_empty() {
            let mut first = 0;
            for (bytes, width) in &self.parts {
                if column < first + width && !out.is_empty() {
                    let start = row * width + column - first;
                    // A part that is the whole matrix has its rows one after another.
                    let run = match self.parts.len() {
                        1 => out.len(),
                        _ => out.len().min(first + width - column),
                    };
                    let (copy, rest) = out.split_at_mut(run);
                    copy.copy_from_slice(&bytes[start..start + run]);
                    out = rest;
                    column += run;
                }
                first += width;
            }
            (row, column) = (row + 1, 0);
        }
    }

    /// Cuts the bytes of such a matrix into the parts of this one.
    pub fn cut(&self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut first = 0;
        let part = |(_, width): &(Bytes, usize)| {
            let columns = first..first + width;
            first = columns.end;
            let rows = bytes.chunks_exact(self.columns);
            rows.flat_map(|row| &row[columns.clone()])
                .copied()
                .collect()
        };
        self.parts.iter().map(part).collect()
    }

    /// The signed codes of some output channels, one channel after another.
    ///
    /// The range starts and ends with a pair.
    pub fn codes(&self, order: ByteOrder, channels: Range<usize>) -> Vec<u8> {
        let mut codes = vec![0; channels.len() * self.rows];
        match order {
            ByteOrder::Sm80 => self.decode_pairs(channels, &mut codes),
            ByteOrder::Sm70 => self.decode_columns(channels, &mut codes, |word| {
                let [a, b, c, d] = *word;
                *word = [a, c, b, d].map(|byte| byte ^ 0x80);
            }),
            ByteOrder::Plain => self.decode_columns(channels, &mut codes, |_| {}),
        }
        codes
    }

    fn decode_pairs(&self, channels: Range<usize>, out: &mut [u8]) {
        let mut stored = vec![0; 2 * self.rows];
        let pairs = out.chunks_exact_mut(2 * self.rows);
        for (first, out) in channels.step_by(2).zip(pairs) {
            self.read(first * self.rows, &mut stored);
            let (even, odd) = out.split_at_mut(self.rows);
            let even = even.as_chunks_mut::<TILE>().0.iter_mut();
            let odd = odd.as_chunks_mut::<TILE>().0.iter_mut();
            let tiles = stored.as_chunks::<{ 2 * TILE }>().0;
            for (tile, (even, odd)) in tiles.iter().zip(even.zip(odd)) {
                put_in_order(&tile[..TILE], even);
                put_in_order(&tile[TILE..], odd);
            }
        }
    }

    fn decode_columns(&self, channels: Range<usize>, out: &mut [u8], turn: fn(&mut [u8; 4])) {
        let blocks = out.chunks_mut(TILE * self.rows);
        for (first, out) in channels.step_by(TILE).zip(blocks) {
            let width = out.len() / self.rows;
            // Bytes are swapped within groups of four columns; a range of pairs may cut them.
            let (left, right) = (first / 4 * 4, (first + width).next_multiple_of(4));
            let wide = right - left;
            let mut stored = vec![0; wide * self.rows];
            for (row, line) in stored.chunks_exact_mut(wide).enumerate() {
                self.read(row * self.columns + left, line);
                line.as_chunks_mut::<4>().0.iter_mut().for_each(turn);
            }
            let turned = transpose(&stored, 1, [self.rows, wide]);
            out.copy_from_slice(&turned[(first - left) * self.rows..][..out.len()]);
        }
    }
}

/// Undoes the order within a tile: in 16 bytes come codes 0, 8, 1, 9 and so on.
fn put_in_order(stored: &[u8], out: &mut [u8; TILE]) {
    let stored = stored.as_chunks::<16>().0;
    for (stored, out) in stored.iter().zip(out.as_chunks_mut::<16>().0) {
        for i in 0..8 {
            out[i] = stored[2 * i] ^ 0x80;
            out[i + 8] = stored[2 * i + 1] ^ 0x80;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the reference stores the code of input `k` and output `n`.
    fn address(order: ByteOrder, [rows, columns]: [usize; 2], k: usize, n: usize) -> usize {
        let plain = k * columns + n;
        match order {
            ByteOrder::Sm80 => {
                let (pair, tile) = (n / 2 * 2 * rows, k / 64 * 128 + n % 2 * 64);
                pair + tile + k % 64 / 16 * 16 + 2 * (k % 8) + k % 16 / 8
            }
            ByteOrder::Sm70 => plain - plain % 4 + [0, 2, 1, 3][plain % 4],
            ByteOrder::Plain => plain,
        }
    }

    fn code(k: usize, n: usize) -> u8 {
        ((k * 57 + n * 91) >> 2) as u8
    }

    /// A matrix in an order, cut into columns of these widths.
    fn stored(order: ByteOrder, rows: usize, widths: &[usize]) -> Stored {
        let columns: usize = widths.iter().sum();
        let bias = if order == ByteOrder::Plain { 0 } else { 128 };
        let mut bytes = vec![0; rows * columns];
        for k in 0..rows {
            for n in 0..columns {
                let at = address(order, [rows, columns], k, n);
                bytes[at] = code(k, n).wrapping_add(bias);
            }
        }
        let mut first = 0;
        let parts = widths.iter().map(|&width| {
            let lines = bytes.chunks_exact(columns);
            let part = lines.flat_map(|line| &line[first..first + width]).copied();
            let part: Vec<u8> = part.collect();
            first += width;
            (part.into(), width)
        });
        let parts = parts.collect();
        Stored::new(rows, parts).expect("whole tiles")
    }

    #[test]
    fn every_order_is_undone_in_any_part() {
        for (_, order) in ByteOrder::NAMES {
            for (rows, widths) in [
                (64, &[64][..]),
                (128, &[192]),
                (192, &[64, 34, 30]),
                (64, &[100, 156]),
            ] {
                let stored = stored(order, rows, widths);
                for channels in [0..stored.columns(), 2..40, 34..36, 60..64] {
                    let out = stored.codes(order, channels.clone());
                    let expected: Vec<u8> = channels
                        .flat_map(|n| (0..rows).map(move |k| code(k, n)))
                        .collect();
                    assert!(out == expected, "{order:?} {rows} {widths:?}");
                }
            }
        }
    }

    #[test]
    fn encoding_undoes_decoding() {
        for (_, order) in ByteOrder::NAMES {
            for (k, widths) in [(128, &[64][..]), (64, &[192]), (192, &[64, 34, 30])] {
                let stored = stored(order, k, widths);
                let n = stored.columns();
                let bytes = order.encode(&stored.codes(order, 0..n), [n, k]);
                for (part, (expected, _)) in stored.cut(&bytes).into_iter().zip(&stored.parts) {
                    assert!(part == *expected, "{order:?} {widths:?}");
                }
            }
        }
    }

    #[test]
    fn sizes_are_whole_tiles() {
        let make = |rows, columns| {
            let bytes = vec![0; rows * columns].into();
            Stored::new(rows, vec![(bytes, columns)])
        };
        assert!(make(64, 64).is_some());
        assert!(make(96, 64).is_none());
        assert!(make(64, 32).is_none());
        assert!(make(0, 64).is_none());
    }
}

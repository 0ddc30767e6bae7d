//! The order of 4-bit codes that tensor cores of GPUs read: PyTorch's `_convert_weight_to_int4pack` with
//! eight tiles of 16 input features.
//!
//! A word holds eight codes of a row. Words are `[rows / 8, columns / 128, 32, 4]`; the third index is that of
//! a GPU's thread.

/// Rows of a tile.
pub const ROWS: usize = 8;
/// Columns of the tiles of a word's second index.
pub const COLUMNS: usize = 128;
/// Matrices are filled up to a multiple of so many columns.
pub const WHOLE: usize = 1024;
/// The last two sizes of the words.
pub const INNER: [usize; 2] = [32, 4];
/// Which four bits of a word a code is in.
const NIBBLES: [usize; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

/// The word and the first of the four bits of code `(row, column)`, in a matrix of `columns` columns.
fn place(row: usize, column: usize, columns: usize) -> (usize, usize) {
    let tile = row / ROWS * (columns / COLUMNS) + column / COLUMNS;
    let lane = 4 * (row % ROWS) + column % 8 / 2;
    let inner = column % COLUMNS / 32;
    let nibble = 4 * (column % 32 / 16) + 2 * (column % 16 / 8) + column % 2;
    let word = (tile * INNER[0] + lane) * INNER[1] + inner;
    (word, 4 * NIBBLES[nibble])
}

/// The size of a matrix of `[n, k]` that is filled up; `None` if no number can hold it.
pub fn filled([n, k]: [usize; 2]) -> Option<[usize; 2]> {
    Some([
        n.checked_next_multiple_of(ROWS)?,
        k.checked_next_multiple_of(WHOLE)?,
    ])
}

/// The shape of the words of a matrix that is filled up.
pub fn words_shape([rows, columns]: [usize; 2]) -> [usize; 4] {
    [rows / ROWS, columns / COLUMNS, INNER[0], INNER[1]]
}

/// The codes of the first rows and columns, row by row, from words of `columns` columns.
pub fn unpack(words: &[u8], columns: usize, [n, k]: [usize; 2]) -> Vec<u8> {
    let words = words.as_chunks::<4>().0;
    let codes = (0..n).flat_map(|row| {
        (0..k).map(move |column| {
            let (word, shift) = place(row, column, columns);
            (u32::from_le_bytes(words[word]) >> shift & 15) as u8
        })
    });
    codes.collect()
}

/// Codes that count from 0, of codes with a sign.
pub fn centered(codes: &[u8]) -> Vec<u8> {
    codes.iter().map(|code| code.wrapping_add(8)).collect()
}

/// Puts the codes of `k` columns a row into words of `columns` columns; the other codes stay.
pub fn pack(words: &mut [u8], columns: usize, codes: &[u8], k: usize) {
    let words = words.as_chunks_mut::<4>().0;
    for (row, codes) in codes.chunks(k).enumerate() {
        for (column, &code) in codes.iter().enumerate() {
            let (word, shift) = place(row, column, columns);
            let other = u32::from_le_bytes(words[word]) & !(15 << shift);
            words[word] = (other | u32::from(code & 15) << shift).to_le_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_place_of_its_own() {
        let [n, k] = [16, 256];
        let mut places: Vec<_> = (0..n)
            .flat_map(|row| (0..k).map(move |column| place(row, column, k)))
            .collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), n * k);
        assert_eq!(places.last(), Some(&(n * k / 8 - 1, 28)));
    }

    #[test]
    fn codes_come_back_and_others_stay() {
        let (columns, shape) = (256, [5, 100]);
        let codes: Vec<u8> = (0..500).map(|i| (i * 7 % 16) as u8).collect();
        let mut words = vec![0xa5; 8 * columns / 2];
        let before = unpack(&words, columns, [8, columns]);
        pack(&mut words, columns, &codes, shape[1]);
        assert_eq!(unpack(&words, columns, shape), codes);
        let after = unpack(&words, columns, [8, columns]);
        for (at, (before, after)) in before.iter().zip(after).enumerate() {
            let inside = at / columns < shape[0] && at % columns < shape[1];
            assert!(inside || *before == after);
        }
    }
}

//! Turning over matrices of small elements.

/// Side of the squares that are moved at once.
const BLOCK: usize = 64;

/// The transpose of a row-major matrix of `rows` × `cols` elements of `size` bytes each.
///
/// # Panics
/// If `bytes` has another length.
pub fn transpose(bytes: &[u8], size: usize, [rows, cols]: [usize; 2]) -> Vec<u8> {
    let expected = rows.checked_mul(cols).and_then(|n| n.checked_mul(size));
    assert_eq!(Some(bytes.len()), expected, "a {rows} by {cols} matrix");
    match size {
        1 => of_size::<1>(bytes, rows, cols),
        2 => of_size::<2>(bytes, rows, cols),
        4 => of_size::<4>(bytes, rows, cols),
        8 => of_size::<8>(bytes, rows, cols),
        _ => of_any_size(bytes, size, rows, cols),
    }
}

fn of_any_size(bytes: &[u8], size: usize, rows: usize, cols: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for col in 0..cols {
        for row in 0..rows {
            out.extend_from_slice(&bytes[(row * cols + col) * size..][..size]);
        }
    }
    out
}

/// Squares go through a copy: it is read and written in whole cache lines, and rows that are a
/// power of two apart do not drive each other out of the cache.
fn of_size<const S: usize>(bytes: &[u8], rows: usize, cols: usize) -> Vec<u8> {
    let source = bytes.as_chunks::<S>().0;
    let mut out = vec![0; bytes.len()];
    let target = out.as_chunks_mut::<S>().0;
    let mut square = [[[0; S]; BLOCK]; BLOCK];
    for row in (0..rows).step_by(BLOCK) {
        let height = BLOCK.min(rows - row);
        for col in (0..cols).step_by(BLOCK) {
            let width = BLOCK.min(cols - col);
            for (r, line) in square[..height].iter_mut().enumerate() {
                let source = &source[(row + r) * cols + col..];
                line[..width].copy_from_slice(&source[..width]);
            }
            for c in 0..width {
                let target = &mut target[(col + c) * rows + row..];
                for (target, line) in target[..height].iter_mut().zip(&square) {
                    *target = line[c];
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_columns() {
        let (rows, cols) = (133, 70);
        for size in [1, 2, 3, 4, 8, 12] {
            let bytes: Vec<u8> = (0..rows * cols * size)
                .map(|i| ((i * 31) >> 3) as u8)
                .collect();
            let turned = transpose(&bytes, size, [rows, cols]);
            for r in 0..rows {
                for c in 0..cols {
                    let (from, to) = ((r * cols + c) * size, (c * rows + r) * size);
                    assert_eq!(bytes[from..from + size], turned[to..to + size]);
                }
            }
        }
    }
}

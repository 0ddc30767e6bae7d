//! Inverses of small matrices.

/// The inverse of a row-major matrix of `size` rows, by Gauss–Jordan elimination with pivots in
/// `f64`; `None` if it is singular.
pub(super) fn inverse(matrix: &[f32], size: usize) -> Option<Vec<f32>> {
    let width = 2 * size;
    let mut rows = vec![0.0f64; size * width];
    for (index, row) in rows.chunks_exact_mut(width).enumerate() {
        let values = &matrix[index * size..][..size];
        row.iter_mut()
            .zip(values)
            .for_each(|(to, &from)| *to = f64::from(from));
        row[size + index] = 1.0;
    }
    for col in 0..size {
        let of = |row: &usize| rows[row * width + col].abs();
        let pivot = (col..size).max_by(|a, b| of(a).total_cmp(&of(b)))?;
        let scale = rows[pivot * width + col];
        if scale.abs() < 1e-12 {
            return None;
        }
        for at in 0..width {
            rows.swap(pivot * width + at, col * width + at);
        }
        rows[col * width..][..width]
            .iter_mut()
            .for_each(|v| *v /= scale);
        for row in (0..size).filter(|&row| row != col) {
            let factor = rows[row * width + col];
            for at in col..width {
                rows[row * width + at] -= factor * rows[col * width + at];
            }
        }
    }
    let right = rows.chunks_exact(width).flat_map(|row| &row[size..]);
    Some(right.map(|&value| value as f32).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_times_its_inverse_is_one() {
        let size = 5;
        let value = |i: usize| ((i * 29 % 13) as f32 - 6.0) / 5.0;
        let matrix: Vec<f32> = (0..size * size).map(value).collect();
        let inverse = inverse(&matrix, size).unwrap();
        for row in 0..size {
            for col in 0..size {
                let products = (0..size).map(|k| matrix[row * size + k] * inverse[k * size + col]);
                let expected = if row == col { 1.0 } else { 0.0 };
                assert!((products.sum::<f32>() - expected).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn a_singular_matrix_has_none() {
        assert_eq!(inverse(&[1.0, 2.0, 2.0, 4.0], 2), None);
    }
}

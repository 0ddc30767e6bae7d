//! Where numbers stand among others.

use crate::wide;

/// How many of `others` are less than `scale` times each value; at most 255 are. In short lists
/// counting is faster than searching, since it has no branches.
///
/// # Panics
/// If there is not one count for each value.
pub fn count_less<const N: usize>(
    others: &[f32; N],
    values: &[f32],
    scale: f32,
    counts: &mut [u8],
) {
    assert_eq!(counts.len(), values.len(), "a count for each value");
    wide!(for (count, value) in counts.iter_mut().zip(values) {
        let value = value * scale;
        let less = others.iter().map(|&other| u32::from(other < value));
        *count = less.sum::<u32>() as u8;
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_numbers_are_not_less() {
        let values: Vec<f32> = (-40..40).map(|i| i as f32).collect();
        let mut counts = vec![9; values.len()];
        count_less(
            &[-4.0, 0.0, 0.0, 7.5, f32::INFINITY],
            &values,
            0.5,
            &mut counts,
        );
        for (value, count) in values.into_iter().zip(counts) {
            let expected = match value {
                ..=-8.0 => 0,
                ..=0.0 => 1,
                ..=15.0 => 3,
                _ => 4,
            };
            assert_eq!(count, expected, "{value}");
        }
    }
}

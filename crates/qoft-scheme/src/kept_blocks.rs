//! Blocks of a weight that have not changed, and so keep what they have in a file.

use qoft_kernels::{Matrix, PackedWeight, equal_blocks};

/// Which blocks of a layer's weight are still what they were, in the order of
/// [`block_ranges`](qoft_kernels::block_ranges).
#[derive(Debug, Clone)]
pub struct KeptBlocks(Vec<bool>);

impl KeptBlocks {
    /// Compares a weight with that of the file; `blocks` are rows and columns that share a scale.
    ///
    /// # Panics
    /// If a size is 0, or the weights have different shapes.
    pub fn new(weight: &Matrix, before: &dyn PackedWeight, blocks: [usize; 2]) -> Self {
        Self(equal_blocks(weight, &Matrix::decode(before), blocks))
    }

    /// The numbers of the blocks that stay.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        let kept = self.0.iter().enumerate().filter(|(_, kept)| **kept);
        kept.map(|(block, _)| block)
    }

    /// Gives the blocks that stay what they have in the file: `values` and `stored` have one for each
    /// block.
    ///
    /// # Panics
    /// If one of them has less.
    pub fn restore<T: Copy>(&self, values: &mut [T], stored: &[T]) {
        for block in self.iter() {
            values[block] = stored[block];
        }
    }
}

#[cfg(test)]
mod tests {
    use qoft_kernels::{DenseWeight, FloatFormat};

    use super::*;

    #[test]
    fn only_what_has_not_changed_is_restored() {
        let before = Matrix::new((0..8).map(|v| v as f32).collect(), [2, 4]);
        let mut weight = before.clone();
        weight.values[5] = 9.0;
        let bytes = FloatFormat::F32.to_bytes(&before.values);
        let stored = DenseWeight::new(bytes.into(), FloatFormat::F32, before.shape);
        let kept = KeptBlocks::new(&weight, &stored, [1, 2]);
        assert_eq!(kept.iter().collect::<Vec<_>>(), [0, 1, 3]);
        let mut scales = [1, 2, 3, 4];
        kept.restore(&mut scales, &[5, 6, 7, 8]);
        assert_eq!(scales, [5, 6, 3, 8]);
    }
}

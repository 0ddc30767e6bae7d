//! Where the parts of several cards lie in the whole weight.

use std::ops::Range;

use qoft_scheme::kernels::Matrix;

use crate::cards::SplitAxis;

/// A matrix of equal parts, one for each card.
#[derive(Debug, Clone, Copy)]
pub struct Split {
    /// `[out_features, in_features]` of a part.
    pub part: [usize; 2],
    /// The number of parts.
    pub count: usize,
    /// Along which side they lie.
    pub axis: SplitAxis,
}

impl Split {
    /// `[out_features, in_features]` of the whole; `None` if that is more than can be counted.
    pub fn shape(&self) -> Option<[usize; 2]> {
        let [n, k] = self.part;
        let shape = match self.axis {
            SplitAxis::Out => [n.checked_mul(self.count)?, k],
            SplitAxis::In => [n, k.checked_mul(self.count)?],
        };
        shape[0].checked_mul(shape[1]).map(|_| shape)
    }

    /// Where row `row` of a card's part is in the whole, row-major.
    pub fn place(&self, rank: usize, row: usize) -> Range<usize> {
        let [n, k] = self.part;
        let start = match self.axis {
            SplitAxis::Out => (rank * n + row) * k,
            SplitAxis::In => (row * self.count + rank) * k,
        };
        start..start + k
    }

    /// The card that has output `n` and input `k`, and the row of its part.
    pub fn card(&self, n: usize, k: usize) -> (usize, usize) {
        match self.axis {
            SplitAxis::Out => (n / self.part[0], n % self.part[0]),
            SplitAxis::In => (k / self.part[1], n),
        }
    }

    /// A card's part of a whole, row-major.
    pub fn cut<T: Copy>(&self, whole: &[T], rank: usize) -> Vec<T> {
        let rows = (0..self.part[0]).map(|row| &whole[self.place(rank, row)]);
        rows.flatten().copied().collect()
    }

    /// As [`Self::cut`], of a matrix.
    pub fn cut_matrix(&self, whole: &Matrix, rank: usize) -> Matrix {
        Matrix::new(self.cut(&whole.values, rank), self.part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_lie_below_or_beside_each_other() {
        for axis in [SplitAxis::Out, SplitAxis::In] {
            let (part, count) = ([2, 3], 2);
            let split = Split { part, count, axis };
            let [rows, cols] = split.shape().unwrap();
            assert_eq!(rows * cols, 12);
            let whole: Vec<usize> = (0..rows * cols).collect();
            let mut seen = Vec::new();
            for rank in 0..2 {
                let cut = split.cut(&whole, rank);
                for (at, &value) in cut.iter().enumerate() {
                    assert_eq!(split.card(value / cols, value % cols), (rank, at / 3));
                }
                seen.extend(cut);
            }
            seen.sort_unstable();
            assert_eq!(seen, whole);
        }
        let beside = Split {
            part: [2, 3],
            count: 2,
            axis: SplitAxis::In,
        };
        let whole: Vec<usize> = (0..12).collect();
        assert_eq!(beside.cut(&whole, 1), [3, 4, 5, 9, 10, 11]);
        let huge = Split {
            part: [usize::MAX, 1],
            ..beside
        };
        assert_eq!(huge.shape(), None);
    }
}

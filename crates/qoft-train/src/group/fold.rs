//! Sums of gradients in the order of micro-batches.

use super::{Group, GroupError};

/// Sums of lists of numbers, of which each process has some: each owns a slice of all numbers and adds up
/// what the others have of it, in the order of their ranks.
///
/// A process sends (N − 1) / N of its numbers for each of its lists, and as many again at the end.
/// `MPI_Allreduce` would be as cheap, but it may add up in another order.
#[derive(Debug)]
pub(crate) struct OrderedSum<'a> {
    group: &'a dyn Group,
    /// Numbers of each list.
    lengths: Vec<usize>,
    /// Where the slices begin, and the end of the last one.
    bounds: Vec<usize>,
    /// The sums of the own slice.
    sums: Vec<f32>,
    /// Lists of which something was added.
    present: Vec<bool>,
}

impl<'a> OrderedSum<'a> {
    /// Sums of lists of `lengths`, to which nothing is added yet.
    pub(crate) fn new(group: &'a dyn Group, lengths: Vec<usize>) -> Self {
        let (total, size) = (lengths.iter().sum::<usize>(), group.size());
        let bounds: Vec<usize> = (0..=size).map(|rank| total * rank / size).collect();
        let own = bounds[group.rank() + 1] - bounds[group.rank()];
        Self {
            group,
            present: vec![false; lengths.len()],
            lengths,
            bounds,
            sums: vec![0.0; own],
        }
    }

    /// Adds the lists of each rank, one rank after another. `own` are those of this one, all of them one
    /// after another, zeros where one is missing; `present` says for each rank which lists it has.
    pub(crate) fn add(&mut self, own: &[f32], present: &[Vec<bool>]) -> Result<(), GroupError> {
        let slices: Vec<&[f32]> = self
            .bounds
            .windows(2)
            .map(|bounds| &own[bounds[0]..bounds[1]])
            .collect();
        let length = self.sums.len();
        let received = self.group.exchange(&slices, &vec![length; slices.len()])?;
        let first = self.bounds[self.group.rank()];
        for (values, present) in received.iter().zip(present) {
            let mut at = 0;
            for (list, length) in self.lengths.iter().enumerate() {
                let range = at.max(first)..(at + length).min(first + self.sums.len());
                at += length;
                if !present[list] {
                    continue;
                }
                let is_first = !std::mem::replace(&mut self.present[list], true);
                if range.is_empty() {
                    continue;
                }
                let range = range.start - first..range.end - first;
                let sums = self.sums[range.clone()].iter_mut();
                for (sum, value) in sums.zip(&values[range]) {
                    *sum = if is_first { *value } else { *sum + value };
                }
            }
        }
        Ok(())
    }

    /// The sums; nothing for lists of which none had anything.
    pub(crate) fn finish(self) -> Result<Vec<Option<Vec<f32>>>, GroupError> {
        let to = vec![&self.sums[..]; self.group.size()];
        let lengths: Vec<usize> = self.bounds.windows(2).map(|b| b[1] - b[0]).collect();
        let all = self.group.exchange(&to, &lengths)?.concat();
        let mut left = &all[..];
        let lists = self.lengths.iter().zip(&self.present);
        Ok(lists
            .map(|(length, present)| {
                let (list, rest) = left.split_at(*length);
                left = rest;
                present.then(|| list.to_vec())
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::Alone;

    #[test]
    fn lists_of_which_nobody_has_anything_stay_absent() {
        let mut sum = OrderedSum::new(&Alone, vec![2, 1, 2]);
        let present = [vec![true, false, true]];
        sum.add(&[1.0, -0.0, 0.0, 4.0, 5.0], &present).unwrap();
        sum.add(&[0.5, -0.0, 0.0, 1.0, 1.0], &present).unwrap();
        let found = sum.finish().unwrap();
        assert_eq!(found, [Some(vec![1.5, 0.0]), None, Some(vec![5.0, 6.0])]);
        // What is there once is not added to a zero, which would lose the sign of another one.
        let zero = found[0].as_ref().map(|list| list[1].to_bits());
        assert_eq!(zero, Some((-0.0_f32).to_bits()));
    }
}

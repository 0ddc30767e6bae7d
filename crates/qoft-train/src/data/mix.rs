//! Several data sets as one, and a part of one as another.

use qoft_core::Random;

use super::data_row::DataRow;
use super::dataset::{DatasetReport, Rows};
use super::error::MixError;
use super::origins::Origins;

/// How much of a data set is set aside for evaluation.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum ValSize {
    /// This share of the rows, above 0 and below 1; of a fraction of a row the whole row.
    Share(f64),
    /// So many rows.
    Rows(usize),
}

impl ValSize {
    /// A share below 1, or a number of rows.
    ///
    /// # Errors
    /// [`MixError::ValSize`] for what is neither.
    pub fn new(size: f64) -> Result<Self, MixError> {
        match size {
            size if size > 0.0 && size < 1.0 => Ok(Self::Share(size)),
            size if size >= 1.0 && size.is_finite() && size.fract() == 0.0 => {
                Ok(Self::Rows(size as usize))
            }
            size => Err(MixError::ValSize { size }),
        }
    }

    fn rows(self, all: usize) -> usize {
        match self {
            Self::Share(share) => (share * all as f64).ceil() as usize,
            Self::Rows(rows) => rows,
        }
    }
}

impl<R: DataRow> Rows<R> {
    /// Data sets one after another. With weights, which are 1 where there is none, each has so large a
    /// share of the rows, and there are as many rows as that allows without taking one twice. `seed` chooses
    /// which.
    ///
    /// # Errors
    /// [`MixError::NothingOf`] if a data set has too few rows for its share.
    pub fn mix(parts: Vec<(Self, Option<f64>)>, seed: u64) -> Result<Self, MixError> {
        let sizes = parts.iter().map(|(part, by)| (part.examples.len(), *by));
        let taken = rows_by_weights(&sizes.collect::<Vec<_>>());
        let mut all = Self::new([]);
        for (index, (part, _)) in parts.into_iter().enumerate() {
            let part = match taken.as_ref().map(|taken| taken[index]) {
                None => part,
                Some(0) => return Err(MixError::NothingOf { number: index + 1 }),
                Some(wanted) => {
                    let mut chosen = shuffled(part.examples.len(), seed, index as u64);
                    chosen.truncate(wanted);
                    chosen.sort_unstable();
                    part.parted(&chosen).1
                }
            };
            let Self {
                examples,
                report,
                origins,
                ..
            } = part;
            all.origins.append(all.examples.len(), origins);
            all.examples.extend(examples);
            all.report.add(&report);
        }
        Ok(all)
    }

    /// What is left for training, and what is set aside for evaluation, both in their order. `seed`
    /// chooses.
    ///
    /// # Errors
    /// [`MixError::NothingLeft`] if one of the two would have no rows.
    pub fn split(self, size: ValSize, seed: u64) -> Result<(Self, Self), MixError> {
        let rows = self.examples.len();
        let aside = size.rows(rows);
        if aside == 0 || aside >= rows {
            return Err(MixError::NothingLeft { aside, rows });
        }
        let mut chosen = shuffled(rows, seed, u64::MAX);
        chosen.truncate(aside);
        chosen.sort_unstable();
        Ok(self.parted(&chosen))
    }

    /// The other rows, and those with some indices, which grow.
    fn parted(self, indices: &[usize]) -> (Self, Self) {
        let Self {
            examples,
            report,
            origins,
            ..
        } = self;
        let mut wanted = indices.iter().copied().peekable();
        let (mut others, mut chosen) = (Vec::new(), Vec::with_capacity(indices.len()));
        for (index, example) in examples.into_iter().enumerate() {
            match wanted.next_if_eq(&index) {
                Some(_) => chosen.push((index, example)),
                None => others.push((index, example)),
            }
        }
        let part = |rows| Self::part(rows, &report, &origins);
        (part(others), part(chosen))
    }

    /// Rows with their indices in what was read as `report` says.
    fn part(rows: Vec<(usize, R)>, read: &DatasetReport, origins: &Origins) -> Self {
        let (indices, examples): (Vec<usize>, Vec<R>) = rows.into_iter().unzip();
        let part = Self::new(examples);
        Self {
            origins: origins.of_rows(indices),
            report: DatasetReport {
                rows: part.report.rows,
                tokens: part.report.tokens,
                predicted: part.report.predicted,
                longest: part.report.longest,
                unpredictable_rows: part.report.unpredictable_rows,
                ..read.clone()
            },
            ..part
        }
    }
}

/// How many rows [`Rows::mix`] takes of data sets with so many rows and these weights; `None` where there are
/// no shares, and all rows are taken.
#[must_use]
pub fn rows_by_weights(parts: &[(usize, Option<f64>)]) -> Option<Vec<usize>> {
    if parts.len() < 2 || parts.iter().all(|(_, weight)| weight.is_none()) {
        return None;
    }
    let weight = |weight: Option<f64>| weight.unwrap_or(1.0);
    let sizes = parts.iter().map(|(rows, by)| *rows as f64 / weight(*by));
    let unit = sizes.fold(f64::INFINITY, f64::min);
    let taken = parts
        .iter()
        .map(|(_, by)| (weight(*by) * unit + 1e-6) as usize);
    Some(taken.collect())
}

/// All indices below `count`, in an order that `seed` and `part` give.
fn shuffled(count: usize, seed: u64, part: u64) -> Vec<usize> {
    let mut indices: Vec<usize> = (0..count).collect();
    Random::keyed(&[seed, part, MIXING]).shuffle(&mut indices);
    indices
}

/// Tells these numbers from those of the order of an epoch.
const MIXING: u64 = 0x6d69_7869_6e67;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Dataset, Example};

    fn dataset(ids: std::ops::Range<u32>) -> Dataset {
        Dataset::new(ids.map(|id| Example::new(vec![id, id], vec![id as i32; 2])))
    }

    fn ids(dataset: &Dataset) -> Vec<u32> {
        let rows = dataset.examples.iter();
        rows.map(|row| row.input_ids[0]).collect()
    }

    #[test]
    fn shares_are_those_of_the_weights() {
        let parts = |a, b| vec![(dataset(0..10), a), (dataset(100..130), b)];
        let all = Dataset::mix(parts(None, None), 1).unwrap();
        assert_eq!(all.report.rows, 40);
        let mixed = Dataset::mix(parts(Some(0.5), Some(0.5)), 1).unwrap();
        let (few, many): (Vec<u32>, Vec<u32>) = ids(&mixed).into_iter().partition(|id| *id < 100);
        assert_eq!((few.len(), many.len()), (10, 10));
        assert!(many.is_sorted() && many != Vec::from_iter(100..110));
        assert_eq!(mixed.report.predicted, 20);
        let mixed = Dataset::mix(parts(None, Some(3.0)), 1).unwrap();
        assert_eq!(mixed.report.rows, 40);
        let mixed = Dataset::mix(parts(Some(0.1), Some(0.9)), 1).unwrap();
        assert_eq!(mixed.report.rows, 3 + 30);
        let none = Dataset::mix(parts(Some(1e-3), Some(1.0)), 1);
        assert!(matches!(none, Err(MixError::NothingOf { number: 1 })));
    }

    #[test]
    fn a_part_is_set_aside_by_seed() {
        let split = |size, seed| {
            let size = ValSize::new(size).unwrap();
            dataset(0..50)
                .split(size, seed)
                .map(|(a, b)| (ids(&a), ids(&b)))
        };
        let (kept, aside) = split(0.05, 42).unwrap();
        assert_eq!((kept.len(), aside.len()), (47, 3));
        assert_eq!(split(0.05, 42).unwrap().1, aside);
        assert_ne!(split(0.05, 43).unwrap().1, aside);
        let mut all = [kept, aside].concat();
        all.sort_unstable();
        assert_eq!(all, Vec::from_iter(0..50));
        assert_eq!(split(7.0, 1).unwrap().1.len(), 7);
        assert!(split(50.0, 1).is_err());
        for size in [0.0, 1.5, f64::NAN, f64::INFINITY] {
            assert!(ValSize::new(size).is_err(), "{size}");
        }
    }
}

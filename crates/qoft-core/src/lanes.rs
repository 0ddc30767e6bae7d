//! Rows of one pass that different adapters change.
//!
//! The rows of a batch can belong to sequences that want different adapters. [`with`] says which rows want
//! which ones, for the passes that are made within it on the same thread: layers multiply all rows with
//! their weight at once, and turn the rows of each lane by its own adapters. Outside of it the adapters
//! compute that are [activated](crate::adapters::activate).

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use burn::tensor::Tensor;

/// Names of adapters that compute together, in an order for [`activate`](crate::adapters::activate). Without
/// a name it is the model alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AdapterChoice(Arc<[String]>);

impl AdapterChoice {
    /// These adapters. Layers that lack one of them do without it.
    pub fn new(names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self(names.into_iter().map(Into::into).collect())
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// Consecutive rows that want the same adapters.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Lane {
    choice: AdapterChoice,
    rows: usize,
}

/// Which adapters the rows of a pass want, in the order of the rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lanes(Arc<[Lane]>);

impl Lanes {
    /// So many rows for each choice, one after another.
    pub fn new(rows: impl IntoIterator<Item = (AdapterChoice, usize)>) -> Self {
        let mut lanes: Vec<Lane> = Vec::new();
        for (choice, rows) in rows {
            match lanes.last_mut() {
                Some(last) if last.choice == choice => last.rows += rows,
                _ => lanes.push(Lane { choice, rows }),
            }
        }
        Self(lanes.into())
    }

    /// One choice for all rows, however many there are.
    pub fn one(choice: AdapterChoice) -> Self {
        Self(Arc::new([Lane { choice, rows: 1 }]))
    }
}

thread_local! {
    static LANES: RefCell<Option<Lanes>> = const { RefCell::new(None) };
}

/// What was said before, which holds again afterwards.
struct Before(Option<Lanes>);

impl Drop for Before {
    fn drop(&mut self) {
        LANES.set(self.0.take());
    }
}

/// What `f` makes, with these adapters for the rows of the passes in it.
pub fn with<T>(lanes: &Lanes, f: impl FnOnce() -> T) -> T {
    let _before = Before(LANES.replace(Some(lanes.clone())));
    f()
}

/// What `f` makes of a part of the rows: it sees their lanes alone.
///
/// # Panics
/// If there are not so many rows.
pub fn at<T>(rows: Range<usize>, f: impl FnOnce() -> T) -> T {
    let lanes = LANES.with_borrow(|lanes| {
        let lanes = lanes.as_ref().filter(|lanes| lanes.0.len() > 1)?;
        let mut end = 0;
        let parts = lanes.0.iter().map(|lane| {
            let start = end;
            end += lane.rows;
            let common = rows.end.min(end).saturating_sub(rows.start.max(start));
            (lane.choice.clone(), common)
        });
        let parts: Vec<_> = parts.filter(|(_, rows)| *rows > 0).collect();
        assert!(rows.end <= end, "rows {rows:?} of {end}");
        Some(Lanes::new(parts))
    });
    match lanes {
        Some(lanes) => with(&lanes, f),
        None => f(),
    }
}

/// What `f` makes of the rows of each lane by itself, one after another, where there are several lanes.
///
/// # Panics
/// If the number of rows is no multiple of that of the lanes.
pub fn each<const D: usize, const E: usize>(
    x: Tensor<D>,
    f: impl Fn(Tensor<D>) -> Tensor<E>,
) -> Tensor<E> {
    let Some(parts) = parts(x.dims()[0]) else {
        return f(x);
    };
    let made = parts.into_iter().map(|(lane, rows)| {
        let part = x.clone().narrow(0, rows.start, rows.len());
        with(&lane, || f(part))
    });
    Tensor::cat(made.collect(), 0)
}

/// Where there are several lanes: each of them, and which of so many rows are its own. There may be several
/// rows for each that was counted, as there are for heads.
pub(crate) fn parts(rows: usize) -> Option<Vec<(Lanes, Range<usize>)>> {
    LANES.with_borrow(|lanes| {
        let lanes = lanes.as_ref().filter(|lanes| lanes.0.len() > 1)?;
        let counted: usize = lanes.0.iter().map(|lane| lane.rows).sum();
        assert!(
            rows.is_multiple_of(counted),
            "{rows} rows in lanes of {counted}"
        );
        let each = rows / counted;
        let mut end = 0;
        let part = |lane: &Lane| {
            let start = end;
            end += lane.rows * each;
            (Lanes::one(lane.choice.clone()), start..end)
        };
        Some(lanes.0.iter().map(part).collect())
    })
}

/// Whether different rows want different adapters.
pub fn several() -> bool {
    LANES.with_borrow(|lanes| lanes.as_ref().is_some_and(|lanes| lanes.0.len() > 1))
}

/// What all rows want, if anything was said.
///
/// # Panics
/// If they want different adapters: who asks has to look at each lane by itself.
pub(crate) fn choice() -> Option<AdapterChoice> {
    LANES.with_borrow(|lanes| match lanes.as_ref().map(|lanes| &*lanes.0) {
        None | Some([]) => None,
        Some([lane]) => Some(lane.choice.clone()),
        Some(_) => panic!("rows with different adapters in a layer that takes them all together"),
    })
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn each_lane_has_its_rows() {
        let [a, b] = ["a", "b"].map(|name| AdapterChoice::new([name]));
        let none = AdapterChoice::default();
        let lanes = Lanes::new([
            (none.clone(), 1),
            (none.clone(), 1),
            (a.clone(), 1),
            (b.clone(), 3),
        ]);
        let x = Tensor::<1>::from_data([0.0; 12], &Device::flex()).reshape([12, 1]);
        let seen = RefCell::new(Vec::new());
        let look = |x: Tensor<2>| {
            seen.borrow_mut().push((choice(), x.dims()[0]));
            x
        };
        with(&lanes, || {
            assert!(several());
            assert_eq!(each(x.clone(), look).dims(), [12, 1]);
            at(2..3, || assert_eq!(choice(), Some(a.clone())));
            at(1..4, || assert_eq!(parts(3).unwrap().len(), 3));
        });
        let expected = [(Some(none), 4), (Some(a), 2), (Some(b), 6)];
        assert_eq!(seen.take(), expected);
        assert_eq!((choice(), several()), (None, false));
        assert_eq!(each(x, look).dims(), [12, 1]);
        assert_eq!(seen.take(), [(None, 12)]);
    }
}

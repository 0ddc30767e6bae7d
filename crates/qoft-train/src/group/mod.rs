//! Processes that compute together.
//!
//! A [`Group`] is what training and evaluation need of the others: who they are, small values of all of
//! them, and slices of numbers for each of them. Everything else is made of these two in one order, which
//! does not depend on who was faster: so sums have the same bits with any number of processes.

mod dealt;
mod error;
mod fold;
mod same;
mod words;

use std::fmt;

pub use error::GroupError;
pub use same::{check_same, decide};

pub(crate) use dealt::dealt;
pub(crate) use fold::OrderedSum;
pub(crate) use words::{Reader, Words};

/// Processes that compute together, as one of them sees it.
///
/// All of them call the same methods in the same order. A call that others do not answer is an error, not
/// a wait without end.
pub trait Group: fmt::Debug {
    /// The number of this process, from 0 on. Rank 0 writes what is written.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// A small value of each process, in the order of ranks, which all of them get.
    ///
    /// # Errors
    /// [`GroupError`].
    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, GroupError>;

    /// Sends `to[r]` to rank `r`, and returns what each rank sent here, in the order of ranks: `from[r]`
    /// numbers of rank `r`.
    ///
    /// # Errors
    /// [`GroupError`].
    fn exchange(&self, to: &[&[f32]], from: &[usize]) -> Result<Vec<Vec<f32>>, GroupError>;
}

/// A process without others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Alone;

impl Group for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, GroupError> {
        Ok(vec![own.to_vec()])
    }

    fn exchange(&self, to: &[&[f32]], _from: &[usize]) -> Result<Vec<Vec<f32>>, GroupError> {
        Ok(to.iter().map(|slice| slice.to_vec()).collect())
    }
}

/// Whether something is so on any of the processes.
///
/// # Errors
/// [`GroupError`].
pub(crate) fn any(group: &dyn Group, own: bool) -> Result<bool, GroupError> {
    if group.size() == 1 {
        return Ok(own);
    }
    let all = group.gather(&[u8::from(own)])?;
    Ok(all.iter().any(|said| said == &[1]))
}

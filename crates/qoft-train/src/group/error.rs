//! Why processes cannot go on together.

use std::fmt;

/// Why processes cannot go on together.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// Some did not answer in time: they are gone, hang, or are slower than the others by so much.
    #[error(
        "{} did not answer for {seconds} s: gone, stopped, or slower than the others by so much \
         (--ddp-timeout says how long to wait)",
        Ranks(ranks)
    )]
    Silent {
        /// Those that did not answer.
        ranks: Vec<usize>,
        /// How long they were waited for.
        seconds: u64,
    },
    /// One of them has something else than rank 0.
    #[error("rank {rank} is not doing the same as rank 0: {}", differences.join(", "))]
    Different {
        /// The first one that has.
        rank: usize,
        /// What it has, and what rank 0 has instead.
        differences: Vec<String>,
    },
    /// One of them failed.
    #[error("rank {rank}: {text}")]
    Failed {
        /// Which one.
        rank: usize,
        /// What it says.
        text: String,
    },
    /// One of them sent what nobody expects.
    #[error("rank {rank} sent {found}, expected {expected}")]
    Unexpected {
        /// Which one.
        rank: usize,
        /// What came.
        found: String,
        /// What should have come.
        expected: String,
    },
    /// The library that carries messages refuses.
    #[error("messages between processes: {0}")]
    Library(String),
}

impl GroupError {
    /// [`Self::Unexpected`] about a value that cannot be read.
    pub(crate) fn unreadable(rank: usize, bytes: &[u8], expected: &str) -> Self {
        Self::Unexpected {
            rank,
            found: format!("{} bytes", bytes.len()),
            expected: expected.to_owned(),
        }
    }
}

/// Numbers of processes as text.
struct Ranks<'a>(&'a [usize]);

/// So many are named.
const NAMED: usize = 8;

impl fmt::Display for Ranks<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named: Vec<String> = self.0.iter().take(NAMED).map(usize::to_string).collect();
        let word = if self.0.len() == 1 { "rank" } else { "ranks" };
        write!(f, "{word} {}", named.join(", "))?;
        match self.0.len().saturating_sub(NAMED) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_named() {
        let says = |ranks: Vec<usize>| GroupError::Silent { ranks, seconds: 7 }.to_string();
        assert!(says(vec![3]).starts_with("rank 3 did not answer for 7 s"));
        assert!(says(vec![1, 2]).starts_with("ranks 1, 2 did"));
        assert!(says((0..20).collect()).contains("5, 6, 7 and 12 more did"));
    }
}

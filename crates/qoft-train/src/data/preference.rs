//! Rows about what is preferred, as tokens.

use serde_json::{Map, Value};

use super::data_row::DataRow;
use super::dataset::Rows;
use super::encode::{EncodedRow, Encoder};
use super::error::RowError;
use super::example::Example;
use super::format::DataFormat;
use super::row::Preferred;

/// Answers to the same prompt, of which one is better, or one answer that is good or bad. Of each
/// example what follows the prompt is labeled.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Preference {
    /// Two answers.
    Pair {
        /// The prompt with the better one.
        chosen: Example,
        /// The prompt with the worse one.
        rejected: Example,
    },
    /// One answer.
    Judged {
        /// The prompt with it.
        example: Example,
        /// Whether it is good.
        desirable: bool,
    },
}

/// Rows of which the better answers stand together, and then the worse ones, where pairs are taken apart:
/// as TRL does it (`unpair_preference_dataset`).
const TOGETHER: usize = 1000;

const PAIR: u32 = 0;
const BAD: u32 = 1;
const GOOD: u32 = 2;

impl DataRow for Preference {
    fn kind(&self) -> u32 {
        match self {
            Self::Pair { .. } => PAIR,
            Self::Judged { desirable, .. } => match desirable {
                false => BAD,
                true => GOOD,
            },
        }
    }

    fn parts(&self) -> Vec<&Example> {
        match self {
            Self::Pair { chosen, rejected } => vec![chosen, rejected],
            Self::Judged { example, .. } => vec![example],
        }
    }

    fn parts_mut(&mut self) -> Vec<&mut Example> {
        match self {
            Self::Pair { chosen, rejected } => vec![chosen, rejected],
            Self::Judged { example, .. } => vec![example],
        }
    }

    fn parts_of(kind: u32) -> Option<usize> {
        match kind {
            PAIR => Some(2),
            BAD | GOOD => Some(1),
            _ => None,
        }
    }

    fn from_parts(kind: u32, parts: Vec<Example>) -> Option<Self> {
        let mut parts = parts.into_iter();
        let row = match kind {
            PAIR => Self::Pair {
                chosen: parts.next()?,
                rejected: parts.next()?,
            },
            BAD | GOOD => Self::Judged {
                example: parts.next()?,
                desirable: kind == GOOD,
            },
            _ => return None,
        };
        parts.next().is_none().then_some(row)
    }

    fn is_lost(&self, length: usize) -> bool {
        let mut parts = self.parts().into_iter();
        parts.any(|part| part.unlearned_start() >= length)
    }

    fn encode(
        fields: Map<String, Value>,
        format: DataFormat,
        encoder: &Encoder,
    ) -> Result<(EncodedRow<Self>, DataFormat), RowError> {
        let row = Preferred::read(fields, format)?;
        let format = match row.desirable {
            None => DataFormat::Preference,
            Some(_) => DataFormat::Judged,
        };
        Ok((encoder.encode_preferred(row)?, format))
    }

    fn encode_text(_text: String, _encoder: &Encoder) -> Result<EncodedRow<Self>, RowError> {
        Err(RowError::NoPreference { fields: Vec::new() })
    }
}

impl Rows<Preference> {
    /// The same with answers by themselves: those of pairs are good and bad ones.
    #[must_use]
    pub fn unpaired(self) -> Self {
        let is_pair = |row: &Preference| matches!(row, Preference::Pair { .. });
        if !self.examples.iter().any(is_pair) {
            return self;
        }
        let judged = |example, desirable| Preference::Judged { example, desirable };
        let mut rows = Vec::with_capacity(2 * self.examples.len());
        let mut waiting = self.examples.into_iter().enumerate().peekable();
        while waiting.peek().is_some() {
            let mut worse = Vec::new();
            for (index, row) in waiting.by_ref().take(TOGETHER) {
                match row {
                    Preference::Pair { chosen, rejected } => {
                        rows.push((index, judged(chosen, true)));
                        worse.push((index, judged(rejected, false)));
                    }
                    row => rows.push((index, row)),
                }
            }
            rows.extend(worse);
        }
        let (count, report) = (rows.len(), self.report);
        let (indices, rows): (Vec<usize>, Vec<Preference>) = rows.into_iter().unzip();
        let mut all = Self::new(rows);
        all.report = report;
        all.origins = self.origins.of_rows(indices);
        all.report.rows = count;
        all
    }

    /// Whether all rows are pairs.
    #[must_use]
    pub fn is_paired(&self) -> bool {
        let mut rows = self.examples.iter();
        rows.all(|row| matches!(row, Preference::Pair { .. }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(id: u32) -> Example {
        Example::new(vec![id, id], vec![-100, id as i32])
    }

    #[test]
    fn rows_are_told_by_their_kinds() {
        let rows = [
            Preference::Pair {
                chosen: example(1),
                rejected: example(2),
            },
            Preference::Judged {
                example: example(3),
                desirable: true,
            },
            Preference::Judged {
                example: example(4),
                desirable: false,
            },
        ];
        for row in rows {
            let parts: Vec<Example> = row.parts().into_iter().cloned().collect();
            assert_eq!(Preference::parts_of(row.kind()), Some(parts.len()));
            let read = Preference::from_parts(row.kind(), parts.clone());
            assert_eq!(read, Some(row));
            let more = [&parts[..], &parts[..1]].concat();
            assert_eq!(
                Preference::from_parts(PAIR, more.clone()).is_some(),
                more.len() == 2
            );
        }
        assert_eq!(Preference::parts_of(7), None);
    }

    #[test]
    fn pairs_are_taken_apart_a_thousand_at_a_time() {
        let pair = |id| Preference::Pair {
            chosen: example(id),
            rejected: example(id + 5000),
        };
        let rows = Rows::new((0..1002).map(pair));
        assert!(rows.is_paired());
        let rows = rows.unpaired();
        assert!(!rows.is_paired());
        assert_eq!((rows.examples.len(), rows.report.rows), (2004, 2004));
        let ids = rows.examples.iter();
        let ids: Vec<u32> = ids.map(|row| row.parts()[0].input_ids[0]).collect();
        assert_eq!(ids[..2], [0, 1]);
        assert_eq!(ids[999..1001], [999, 5000]);
        assert_eq!(ids[2000..], [1000, 1001, 6000, 6001]);
        assert_eq!(rows.clone().unpaired(), rows);
    }
}

//! Rows about preferences that are computed at once.

use qoft_models::Targets;

use super::stage::Stage;
use crate::data::{Batch, Example, IGNORED, Preference};
use crate::inputs::targets;
use crate::model::TrainBatch;

/// Answers to some prompts.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PreferenceBatch {
    /// The prompts with their answers: of pairs all better answers, and then all worse ones.
    pub rows: Batch,
    /// The prompts with answers to other ones, where these are needed.
    pub mismatched: Option<Batch>,
    /// Which answers are good; empty for pairs.
    pub desirable: Vec<bool>,
    /// Log-probabilities by the reference, in the order of the rows, where they are known already.
    pub reference: Option<Vec<f64>>,
}

impl PreferenceBatch {
    /// A batch of rows that are all pairs, or all single answers. `mismatched` asks for answers to other
    /// prompts.
    pub(super) fn new(rows: &[&Preference], reference: Option<Vec<f64>>, mismatched: bool) -> Self {
        let (mut first, mut second, mut desirable) = (Vec::new(), Vec::new(), Vec::new());
        for row in rows {
            match row {
                Preference::Pair { chosen, rejected } => {
                    first.push(chosen);
                    second.push(rejected);
                }
                Preference::Judged {
                    example,
                    desirable: good,
                } => {
                    first.push(example);
                    desirable.push(*good);
                }
            }
        }
        let mismatched = mismatched.then(|| {
            let others = (0..first.len()).map(|at| match at {
                0 => first.last().copied(),
                at => first.get(at - 1).copied(),
            });
            let pairs = first.iter().zip(others);
            let rows: Vec<Example> = pairs.filter_map(|(a, b)| Some(crossed(a, b?))).collect();
            Batch::new(&rows.iter().collect::<Vec<_>>())
        });
        first.extend(second);
        Self {
            rows: Batch::new(&first),
            mismatched,
            desirable,
            reference,
        }
    }

    /// The pairs, or answers.
    #[must_use]
    pub fn count(&self) -> usize {
        match self.desirable.len() {
            0 => self.rows.batch_size / 2,
            count => count,
        }
    }
}

impl TrainBatch for PreferenceBatch {
    fn predicted(&self) -> usize {
        self.count()
    }

    fn tokens(&self) -> usize {
        self.rows.tokens
    }
}

/// The prompt of one row with the answer of another.
fn crossed(prompt: &Example, answer: &Example) -> Example {
    let (end, start) = (prompt.unlearned_start(), answer.unlearned_start());
    let join = |a: &[u32], b: &[u32]| [a, b].concat();
    let input_ids = join(&prompt.input_ids[..end], &answer.input_ids[start..]);
    let mut labels = vec![IGNORED; end];
    labels.extend_from_slice(&answer.labels[start..]);
    Example::new(input_ids, labels)
}

/// What the rows of a batch predict: a sum for each row, and in ORPO one for the prompts of the better
/// answers. Beside that, how many labels each sum has.
pub(super) fn row_targets(batch: &Batch, stage: Stage) -> (Targets, Vec<f64>) {
    let (rows, time) = (batch.batch_size, batch.seq_len.max(1));
    let mut labels = targets(batch);
    let mut groups: Vec<u32> = (0..labels.len()).map(|at| (at / time) as u32).collect();
    let mut count = rows;
    if stage == Stage::Orpo {
        count += 1;
        for (at, label) in labels.iter_mut().enumerate().take(rows / 2 * time) {
            let (row, next) = (at / time, at % time + 1);
            if label.is_none() && next < batch.lengths[row] {
                *label = u32::try_from(batch.input_ids[at + 1]).ok();
                groups[at] = rows as u32;
            }
        }
    }
    let mut lengths = vec![0.0; count];
    for (label, group) in labels.iter().zip(&groups) {
        lengths[*group as usize] += if label.is_some() { 1.0 } else { 0.0 };
    }
    (Targets::new(labels).in_groups(groups, count), lengths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(ids: &[u32], start: usize) -> Example {
        let labels = ids.iter().enumerate();
        let labels = labels.map(|(at, &id)| if at < start { IGNORED } else { id as i32 });
        Example::new(ids.to_vec(), labels.collect())
    }

    #[test]
    fn better_answers_come_first_and_prompts_have_a_sum_of_their_own() {
        let pair = Preference::Pair {
            chosen: example(&[1, 2, 3, 4], 2),
            rejected: example(&[1, 2, 5], 2),
        };
        let batch = PreferenceBatch::new(&[&pair, &pair], None, false);
        assert_eq!(
            batch.rows.input_ids,
            [1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 5, 0, 1, 2, 5, 0]
        );
        assert_eq!(
            (batch.predicted(), batch.tokens(), batch.rows.batch_size),
            (2, 14, 4)
        );
        let (found, lengths) = row_targets(&batch.rows, Stage::Dpo);
        assert_eq!(lengths, [2.0, 2.0, 1.0, 1.0]);
        assert_eq!(found.labels[..4], [None, Some(3), Some(4), None]);
        let (found, lengths) = row_targets(&batch.rows, Stage::Orpo);
        assert_eq!(lengths, [2.0, 2.0, 1.0, 1.0, 2.0]);
        assert_eq!(found.labels[..4], [Some(2), Some(3), Some(4), None]);
        assert_eq!(found.labels[8..12], [None, Some(5), None, None]);
        let groups: Vec<usize> = (0..5).map(|row| found.groups.of(row)).collect();
        assert_eq!(groups, [4, 0, 0, 0, 4]);
    }

    #[test]
    fn answers_go_to_the_next_prompt() {
        let rows = [
            Preference::Judged {
                example: example(&[1, 2, 3], 1),
                desirable: true,
            },
            Preference::Judged {
                example: example(&[4, 5, 6], 2),
                desirable: false,
            },
        ];
        let batch = PreferenceBatch::new(&rows.iter().collect::<Vec<_>>(), None, true);
        assert_eq!(batch.desirable, [true, false]);
        let mismatched = batch.mismatched.unwrap();
        assert_eq!(mismatched.input_ids, [1, 6, 0, 0, 4, 5, 2, 3]);
        assert_eq!(mismatched.labels, [-100, 6, -100, -100, -100, -100, 2, 3]);
    }
}

//! Rows about preferences as data to learn from.

use std::num::NonZeroUsize;

use super::batch::PreferenceBatch;
use super::config::PreferenceConfig;
use super::loss_type::LossType;
use super::stage::Stage;
use crate::data::{DataRow, Order, Preference, Rows};
use crate::error::TrainError;
use crate::measured::{MeasuredData, of_length};
use crate::model::TrainData;

/// Rows about preferences, all of them pairs or all of them single answers.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PreferenceData {
    /// The rows.
    pub rows: Rows<Preference>,
    /// What the reference says of each, where it was computed ahead.
    reference: Option<Vec<Vec<f64>>>,
    /// Whether answers to other prompts are needed.
    mismatched: bool,
}

impl PreferenceData {
    /// Rows for a stage: KTO takes pairs apart.
    ///
    /// # Errors
    /// [`TrainError::Config`] if the stage needs pairs and a row is none.
    pub fn new(rows: Rows<Preference>, config: &PreferenceConfig) -> Result<Self, TrainError> {
        let is_kto = config.stage == Stage::Kto;
        if !is_kto && !rows.is_paired() {
            return Err(TrainError::Config {
                key: "stage",
                reason: "the data has answers that are good or bad, but this stage needs pairs \
                         (chosen and rejected); kto learns from such rows"
                    .into(),
            });
        }
        let losses = config.losses();
        Ok(Self {
            rows: if is_kto { rows.unpaired() } else { rows },
            reference: None,
            mismatched: losses.iter().any(|(loss, _)| *loss == LossType::Kto),
        })
    }

    /// The rows of each batch of `batch_size` in the order of the file.
    pub(super) fn batches_of_file(
        &self,
        batch_size: NonZeroUsize,
    ) -> impl ExactSizeIterator<Item = PreferenceBatch> + '_ {
        let batches = self.rows.batch_examples(Order::File, batch_size);
        let batches = batches.into_iter();
        batches.map(|indices| self.batch(&indices, false))
    }

    /// Keeps what the reference says of each row.
    pub(super) fn keep_reference(&mut self, of_rows: Vec<Vec<f64>>) {
        self.reference = Some(of_rows);
    }

    fn batch(&self, indices: &[usize], mismatched: bool) -> PreferenceBatch {
        let rows = indices.iter().filter_map(|&at| self.rows.examples.get(at));
        let rows: Vec<&Preference> = rows.collect();
        let parts = rows.first().map_or(0, |row| row.parts().len());
        let reference = self.reference.as_ref().map(|known| {
            let of_part = |part: usize| indices.iter().map(move |&at| known[at][part]);
            (0..parts).flat_map(of_part).collect()
        });
        PreferenceBatch::new(&rows, reference, mismatched)
    }
}

impl TrainData for PreferenceData {
    type Batch = PreferenceBatch;

    fn rows(&self) -> usize {
        self.rows.rows()
    }

    fn predicted(&self) -> usize {
        self.rows.rows()
    }

    fn content(&self, take: &mut dyn FnMut(&[u8])) {
        for row in &self.rows.examples {
            take(&row.kind().to_le_bytes());
            for part in row.parts() {
                part.content(take);
            }
        }
        take(self.rows.arrangement_content().as_bytes());
    }

    fn row_names(&self, rows: &[usize]) -> Vec<String> {
        self.rows.row_names(rows)
    }

    fn batch_rows(&self, order: Order, batch_size: NonZeroUsize) -> Vec<Vec<usize>> {
        self.rows.batch_examples(order, batch_size)
    }

    fn batches(
        &self,
        order: Order,
        batch_size: NonZeroUsize,
    ) -> Box<dyn ExactSizeIterator<Item = PreferenceBatch> + '_> {
        let batches = self.rows.batch_examples(order, batch_size).into_iter();
        Box::new(batches.map(|indices| self.batch(&indices, self.mismatched)))
    }
}

impl MeasuredData for PreferenceData {
    fn shape(&self, examples: &[usize]) -> (usize, usize) {
        let rows = examples.iter().filter_map(|&at| self.rows.examples.get(at));
        (
            examples.len(),
            rows.map(DataRow::longest).max().unwrap_or(0),
        )
    }

    fn longest(&self) -> Option<usize> {
        self.rows.examples.iter().map(DataRow::longest).max()
    }

    fn like(&self, (rows, length): (usize, usize), batches: usize) -> (usize, Self) {
        let longest = self.rows.examples.iter().max_by_key(|row| row.longest());
        let made = (0..rows * batches).filter_map(|number| {
            let mut row = longest?.clone();
            for part in row.parts_mut() {
                *part = of_length(Some(&*part), length);
            }
            // Where answers are judged there are good and bad ones.
            if let Preference::Judged { desirable, .. } = &mut row {
                *desirable = number % 2 == 0;
            }
            Some(row)
        });
        let rows_made = Rows::new(made);
        let known = |row: &Preference| vec![0.0; row.parts().len()];
        let reference = rows_made.examples.iter().map(known);
        let data = Self {
            // What the reference says is known there as it is here.
            reference: self.reference.as_ref().map(|_| reference.collect()),
            mismatched: self.mismatched,
            rows: rows_made,
        };
        (rows, data)
    }
}

//! Codebook weights for GPUs.

use super::{CodebookWeight, Codebooks};
use crate::device::{CodebookLayout, DeviceLayout, DeviceWeight, HeaderWord, Words};
use crate::floats::FloatFormat;

impl CodebookWeight {
    /// The parts in words; `None` if there are too many.
    pub(super) fn words(&self) -> Option<DeviceWeight> {
        let sizes = &self.sizes;
        let mut words = Words::new(self.shape, &self.codes)?;
        let books = match &self.codebooks {
            Codebooks::Decoded(values) => {
                words.values(HeaderWord::Table, values);
                FloatFormat::F32
            }
            Codebooks::Stored(values) => {
                words.floats(HeaderWord::Table, values);
                values.format()
            }
        };
        words.floats(HeaderWord::Scales, &self.scales);
        Some(words.finish(DeviceLayout::Codebook(CodebookLayout {
            out_group_size: sizes.out_group_size,
            in_group_size: sizes.in_group_size,
            num_codebooks: sizes.num_codebooks,
            nbits_per_codebook: sizes.nbits_per_codebook as usize,
            code_bytes: sizes.code_bytes,
            books,
            scales: self.scales.format(),
        })))
    }
}

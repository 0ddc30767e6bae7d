//! Telling the layouts apart by the codes.

use std::ops::Range;

use crate::layout::{Layout, Stored, TILE};

/// Blocks of 64 channels that are looked at.
const SAMPLES: usize = 4;

/// A way to read a layer.
#[derive(Debug, Clone)]
pub struct Reading<'a> {
    /// The matrix: the layer's own tensor, or one with the parts of its siblings.
    pub stored: &'a Stored,
    /// The layer's channels in it.
    pub channels: Range<usize>,
    /// The order of its bytes.
    pub layout: Layout,
}

impl Reading<'_> {
    /// The share of channels with a code of 127 or more in magnitude.
    ///
    /// EETQ's quantizer scales each channel so that its largest weight gets such a code. A wrong
    /// layout mixes the channels up, and only 60 to 90 % of them have one.
    fn share(&self) -> f32 {
        let (rows, blocks) = (self.stored.rows(), self.stored.columns() / TILE);
        let count = blocks.min(SAMPLES);
        let mut codes = vec![0; rows * TILE];
        let mut found = 0;
        for sample in 0..count {
            let first = sample * blocks / count * TILE;
            let channels = first..first + TILE;
            self.stored.decode(self.layout, channels, &mut codes);
            let has_largest = |channel: &&[u8]| channel.iter().any(|c| (127..=129).contains(c));
            found += codes.chunks_exact(rows).filter(has_largest).count();
        }
        found as f32 / (count * TILE) as f32
    }
}

/// The reading that EETQ's quantizer could have written, the first of them if they are equal.
pub fn choose<'a, 'b>(readings: &'b [Reading<'a>]) -> Option<&'b Reading<'a>> {
    // A few channels may be damaged.
    let mut best = (15.0 / 16.0, None);
    for reading in readings {
        let share = reading.share();
        if share > best.0 || share == best.0 && best.1.is_none() {
            best = (share, Some(reading));
        }
    }
    best.1
}

/// Whether codes are stored without the 128 that EETQ adds: most are small, so that such
/// bytes are near 0 or 255, and others near 128.
pub fn has_no_bias(bytes: &[u8]) -> bool {
    let middle = bytes.iter().filter(|b| (64..192).contains(*b)).count();
    middle < bytes.len() / 4
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes of the quantizer's kind, most of them small.
    fn codes(rows: usize, columns: usize) -> Vec<Vec<i8>> {
        let mut state = 7u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as i32 - 128
        };
        let channel = |_| {
            let mut channel: Vec<i8> = (0..rows)
                .map(|_| ((random() + random() + random()) / 4).clamp(-126, 126) as i8)
                .collect();
            channel[(random() + 128) as usize % rows] = if random() > 0 { 127 } else { -128 };
            channel
        };
        (0..columns).map(channel).collect()
    }

    #[test]
    fn a_plain_matrix_is_told_from_a_biased_one() {
        let codes = codes(128, 64);
        let plain: Vec<u8> = codes.concat().iter().map(|&c| c as u8).collect();
        let biased: Vec<u8> = plain.iter().map(|b| b ^ 0x80).collect();
        assert!(has_no_bias(&plain));
        assert!(!has_no_bias(&biased));
    }

    #[test]
    fn the_right_layout_is_chosen() {
        let (rows, columns) = (128, 128);
        let codes = codes(rows, columns);
        // Sm70: row-major, two of four bytes swapped.
        let mut bytes: Vec<u8> = (0..rows)
            .flat_map(|k| codes.iter().map(move |channel| channel[k] as u8 ^ 0x80))
            .collect();
        bytes
            .as_chunks_mut::<4>()
            .0
            .iter_mut()
            .for_each(|b| b.swap(1, 2));
        let stored = Stored::new(rows, vec![(bytes.into(), columns)]).unwrap();
        let readings = [Layout::Sm80, Layout::Sm70].map(|layout| Reading {
            stored: &stored,
            channels: 0..columns,
            layout,
        });
        assert_eq!(choose(&readings).unwrap().layout, Layout::Sm70);
        assert!(choose(&readings[..1]).is_none());
    }
}

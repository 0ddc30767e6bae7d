//! Telling the orders apart by the codes.

use qoft_scheme::{Checkpoint, LayerSource};

use crate::cut::{CutMatrix, LayerCodes, SCALES};
use crate::stored::{ByteOrder, TILE};

/// Layers that are asked for the order of their checkpoint.
const ASKED: usize = 8;
/// Blocks of 64 channels that are looked at.
const SAMPLES: usize = 4;

/// The order of the bytes in a checkpoint: that of most of the first layers that can tell, or else
/// the one that most GPUs use. All layers of a file were written on one GPU.
pub fn order_of(checkpoint: &Checkpoint) -> ByteOrder {
    let paths = checkpoint.names().filter_map(|name| {
        let (path, suffix) = name.rsplit_once('.')?;
        (suffix == SCALES).then_some(path)
    });
    let told = paths.filter_map(|path| {
        let codes = LayerCodes::of(&LayerSource::new(checkpoint, path, None)).ok()?;
        let orders: &[ByteOrder] = match has_no_bias(codes.tensor.bytes()) {
            true => &[ByteOrder::Plain, ByteOrder::Sm80, ByteOrder::Sm70],
            false => &[ByteOrder::Sm80, ByteOrder::Sm70],
        };
        choose(&readings(&codes.cuts, orders)).map(|reading| reading.order)
    });
    let told: Vec<ByteOrder> = told.take(ASKED).collect();
    let votes = |order: &ByteOrder| told.iter().filter(|told| *told == order).count();
    let most = told.iter().max_by_key(|order| votes(order));
    most.copied().unwrap_or(ByteOrder::Sm80)
}

/// A way to read a layer.
#[derive(Debug, Clone)]
pub struct Reading<'a> {
    /// The matrix: the layer's own tensor, or one with the parts of its siblings.
    pub cut: &'a CutMatrix,
    /// The order of its bytes.
    pub order: ByteOrder,
}

/// What the codes of a reading look like.
struct Evidence {
    /// The share of channels with a code of 127 or more in magnitude.
    ///
    /// EETQ's quantizer scales each channel so that its largest weight gets such a code; where
    /// codes were chosen with calibration data, one in a hundred channels may miss it. A wrong
    /// order mixes the channels up, and only 60 to 90 % of them have one.
    share: f64,
    /// The variance of the channels' sizes. It is smaller where they are mixed up.
    variance: f64,
}

impl Reading<'_> {
    fn evidence(&self) -> Evidence {
        let stored = &self.cut.stored;
        let (rows, blocks) = (stored.rows(), stored.columns() / TILE);
        let count = blocks.min(SAMPLES);
        let (mut with_largest, mut sum, mut squares) = (0.0, 0.0, 0.0);
        for sample in 0..count {
            let first = sample * blocks / count * TILE;
            let codes = stored.codes(self.order, first..first + TILE);
            for channel in codes.chunks_exact(rows) {
                let sizes = channel.iter().map(|&code| (code as i8).unsigned_abs());
                if sizes.clone().any(|size| size >= 127) {
                    with_largest += 1.0;
                }
                let size = sizes.map(f64::from).sum::<f64>();
                sum += size;
                squares += size * size;
            }
        }
        let channels = (count * TILE) as f64;
        let mean = sum / channels;
        Evidence {
            share: with_largest / channels,
            variance: squares / channels - mean * mean,
        }
    }
}

/// What can be tried. Only in one order does it matter whether a layer was cut from a larger
/// matrix; in the others all cuts give the same.
pub fn readings<'a>(cuts: &'a [CutMatrix], orders: &[ByteOrder]) -> Vec<Reading<'a>> {
    let mut readings = Vec::new();
    for &order in orders {
        let count = match order {
            ByteOrder::Sm80 => cuts.len(),
            ByteOrder::Sm70 | ByteOrder::Plain => 1,
        };
        let cuts = cuts.iter().take(count);
        readings.extend(cuts.map(|cut| Reading { cut, order }));
    }
    readings
}

/// The share of channels that say nothing, at most.
const FEW: f64 = 1.0 / 16.0;

/// The reading that EETQ's quantizer could have written. In doubt it is the first one of an order.
pub fn choose<'a, 'b>(readings: &'b [Reading<'a>]) -> Option<&'b Reading<'a>> {
    let mut best: Option<(&Reading, Evidence)> = None;
    for reading in readings {
        let found = reading.evidence();
        let better = match &best {
            None => found.share >= 1.0 - FEW,
            Some((chosen, known)) if chosen.order == reading.order => {
                found.share > known.share + FEW
            }
            Some((_, known)) if found.share == known.share => found.variance > known.variance,
            Some((_, known)) => found.share > known.share,
        };
        if better {
            best = Some((reading, found));
        }
    }
    best.map(|(reading, _)| reading)
}

/// Whether codes are stored without the 128 that EETQ adds: most are small, so that such
/// bytes are near 0 or 255, and others near 128.
fn has_no_bias(bytes: &[u8]) -> bool {
    let middle = bytes.iter().filter(|b| (64..192).contains(*b)).count();
    middle < bytes.len() / 4
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stored::Stored;

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
    fn the_right_order_is_chosen() {
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
        let cut = &CutMatrix {
            stored: Stored::new(rows, vec![(bytes.into(), columns)]).unwrap(),
            channels: 0..columns,
            layers: vec!["wide".into()],
        };
        let readings = [ByteOrder::Sm80, ByteOrder::Sm70].map(|order| Reading { cut, order });
        assert_eq!(choose(&readings).unwrap().order, ByteOrder::Sm70);
        assert!(choose(&readings[..1]).is_none());
    }
}

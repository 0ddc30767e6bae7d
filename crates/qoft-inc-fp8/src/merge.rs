//! One weight from those of several cards.

use qoft_scheme::kernels::{FloatFormat, Floats, Fp8Format, transpose};
use qoft_scheme::{Result, TensorView};

use crate::cards::SplitAxis;
use crate::split::Split;

/// Codes by rows and scales of the whole weight.
///
/// Cards may have scaled their parts differently. As the library does where it loads such files
/// with fewer cards, the larger scale is taken and the codes of the others are adapted to it;
/// scales of output features that are on one card only are kept.
pub fn merge(
    split: Split,
    parts: &[TensorView],
    scales: &[TensorView],
    format: Fp8Format,
) -> Result<(Vec<u8>, Floats)> {
    let [n, k] = split.part;
    // As many as the parts have together.
    let mut weight = Merging {
        codes: vec![0; n * k * split.count],
        split,
    };
    for (rank, part) in parts.iter().enumerate() {
        weight.put(rank, &transpose(part.bytes(), 1, [k, n]));
    }
    let scales_format = scales[0].float_format()?;
    let scales: Vec<Vec<f32>> = scales
        .iter()
        .map(TensorView::to_finite_f32)
        .collect::<Result<_>>()?;
    let merged = if split.axis == SplitAxis::Out && scales[0].len() > 1 {
        scales.concat()
    } else {
        weight.adapt(scales, format)
    };
    Ok((weight.codes, Floats::from_f32(&merged, scales_format)?))
}

/// The codes of all cards, row-major.
struct Merging {
    codes: Vec<u8>,
    split: Split,
}

impl Merging {
    /// Copies the rows of a card.
    fn put(&mut self, rank: usize, codes: &[u8]) {
        for (row, codes) in codes.chunks_exact(self.split.part[1]).enumerate() {
            let place = self.split.place(rank, row);
            self.codes[place].copy_from_slice(codes);
        }
    }

    /// Goes to the largest scales card by card, and returns them. There is one scale for each
    /// card, or one for each row of its part.
    fn adapt(&mut self, scales: Vec<Vec<f32>>, format: Fp8Format) -> Vec<f32> {
        let mut cards = scales.into_iter().enumerate();
        let mut merged = cards.next().map_or_else(Vec::new, |(_, first)| first);
        for (rank, scales) in cards {
            let larger: Vec<f32> = merged.iter().zip(&scales).map(|(a, b)| a.max(*b)).collect();
            for before in 0..rank {
                self.recode(before, &merged, &larger, format);
            }
            self.recode(rank, &scales, &larger, format);
            merged = larger;
        }
        merged
    }

    /// Expresses a card's numbers with other scales.
    fn recode(&mut self, rank: usize, from: &[f32], to: &[f32], format: Fp8Format) {
        if from == to {
            return;
        }
        let table = format.table();
        let mut codes = adapted([from[0], to[0]], format, &table);
        for row in 0..self.split.part[0] {
            if row > 0 && row < from.len() {
                codes = adapted([from[row], to[row]], format, &table);
            }
            let place = self.split.place(rank, row);
            for code in &mut self.codes[place] {
                *code = codes[usize::from(*code)];
            }
        }
    }
}

/// For each code the one that stands for its number after the scale has changed, computed in the
/// library's steps.
fn adapted([from, to]: [f32; 2], format: Fp8Format, table: &[f32; 256]) -> [u8; 256] {
    let mut inverse = [to.recip()];
    FloatFormat::Bf16.round(&mut inverse);
    let mut numbers = table.map(|number| number * from);
    FloatFormat::Bf16.round(&mut numbers);
    std::array::from_fn(|code| {
        // What is no number stays so, and is refused later.
        if from == to || !table[code].is_finite() {
            return code as u8;
        }
        format.code(format.round(numbers[code] * inverse[0], format.max()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_follow_the_scale() {
        let format = Fp8Format::E4m3;
        let table = format.table();
        let codes = adapted([1.0, 4.0], format, &table);
        for code in 0..=255u8 {
            let (old, new) = (
                table[usize::from(code)],
                table[usize::from(codes[usize::from(code)])],
            );
            if old.is_nan() {
                assert_eq!(codes[usize::from(code)], code);
            } else if old.abs() >= 2f32.powi(-4) {
                assert_eq!(new * 4.0, old);
            } else {
                assert!((new * 4.0 - old).abs() <= 2f32.powi(-8));
            }
        }
        let same = adapted([0.3, 0.3], format, &table);
        assert!((0..=255).all(|code| same[usize::from(code)] == code));
    }
}

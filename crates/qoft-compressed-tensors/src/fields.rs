//! Codes in words of 32 bits: along the rows of a weight, or down the columns of its zero points.

use qoft_scheme::{Result, TensorView};

/// Bits and bytes of a word.
const WORD: usize = 32;
const BYTES: usize = WORD / 8;

/// How the codes of a line lie in its words: the first one in the lowest bits of the first word.
/// What is left over is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fields {
    /// Width of a code, 1 to 8.
    pub bits: usize,
    /// No code straddles two words: the highest bits of each may be left over, which makes a
    /// difference for 3, 5, 6 and 7 bits. Releases before 0.18 write them so.
    pub padded: bool,
}

impl Fields {
    /// Codes one after another.
    pub fn dense(bits: usize) -> Self {
        let padded = false;
        Self { bits, padded }
    }

    /// Words that so many codes take.
    pub fn words(self, count: usize) -> usize {
        match self.padded {
            true => count.div_ceil(WORD / self.bits),
            false => count.saturating_mul(self.bits).div_ceil(WORD),
        }
    }

    /// The layout that gives `count` codes `words` words: of the one that `padded` names, or of both.
    ///
    /// # Errors
    /// If none does; `tensor` holds them.
    pub fn find(
        bits: usize,
        [count, words]: [usize; 2],
        padded: Option<bool>,
        tensor: &TensorView,
    ) -> Result<Self> {
        let all = [false, true].map(|padded| Self { bits, padded });
        let found = all.into_iter().find(|fields| {
            let named = padded.is_none_or(|padded| padded == fields.padded);
            // There is no difference where words are full.
            let either = WORD.is_multiple_of(bits);
            (named || either) && fields.words(count) == words
        });
        found.ok_or_else(|| {
            let most = Self {
                bits,
                padded: padded == Some(true),
            }
            .words(count);
            let expected = format!("{most} words for {count} codes of {bits} bits");
            tensor.error(expected, tensor.shown_shape())
        })
    }

    /// Whether the lines of `count` codes, one after another, are a stream without gaps.
    pub fn without_gaps(self, count: usize) -> bool {
        let whole = (count * self.bits).is_multiple_of(WORD);
        whole && (!self.padded || WORD.is_multiple_of(self.bits))
    }

    /// The first bit of a code within its line.
    fn bit(self, at: usize) -> usize {
        let each = WORD / self.bits;
        match self.padded {
            true => at / each * WORD + at % each * self.bits,
            false => at * self.bits,
        }
    }

    /// The codes of lines of `count` codes.
    pub fn read(self, bytes: &[u8], count: usize) -> Vec<u8> {
        let mask = (1u16 << self.bits) - 1;
        let mut codes = Vec::new();
        for line in bytes.chunks_exact(self.words(count) * BYTES) {
            codes.extend((0..count).map(|at| {
                let bit = self.bit(at);
                let low = u16::from(line[bit / 8]);
                let high = line.get(bit / 8 + 1).copied().unwrap_or(0);
                ((low | u16::from(high) << 8) >> (bit % 8) & mask) as u8
            }));
        }
        codes
    }

    /// The words of lines of `count` codes.
    pub fn write(self, codes: &[u8], count: usize) -> Vec<u8> {
        let length = self.words(count) * BYTES;
        let mut bytes = vec![0; codes.len() / count * length];
        let lines = bytes.chunks_exact_mut(length);
        for (line, codes) in lines.zip(codes.chunks_exact(count)) {
            for (at, &code) in codes.iter().enumerate() {
                let bit = self.bit(at);
                let [low, high] = (u16::from(code) << (bit % 8)).to_le_bytes();
                line[bit / 8] |= low;
                if high != 0 {
                    line[bit / 8 + 1] |= high;
                }
            }
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_read_as_they_were_written() {
        for bits in 1..=8 {
            for padded in [false, true] {
                let fields = Fields { bits, padded };
                for count in [1, 7, 32, 45] {
                    let code = |i: usize| (i * 37 + 5) as u8 & ((1u16 << bits) - 1) as u8;
                    let codes: Vec<u8> = (0..3 * count).map(code).collect();
                    let bytes = fields.write(&codes, count);
                    assert_eq!(bytes.len(), 3 * fields.words(count) * 4);
                    assert_eq!(fields.read(&bytes, count), codes, "{fields:?} {count}");
                }
            }
        }
    }

    #[test]
    fn padded_codes_leave_the_highest_bits() {
        let gaps = Fields {
            bits: 3,
            padded: true,
        };
        let bytes = gaps.write(&[7; 11], 11);
        assert_eq!(bytes, [0xff, 0xff, 0xff, 0x3f, 7, 0, 0, 0]);
        let dense = Fields::dense(3).write(&[7; 11], 11);
        assert_eq!(dense, [0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0]);
    }
}

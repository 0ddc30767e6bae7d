//! Integer codes in a bit stream, and what they stand for.

use bytes::Bytes;
use rayon::prelude::*;

use crate::decode;
use crate::error::WeightError;
use crate::nibble_order::NibbleOrder;

/// `int4` and the like, for codes of 1 to 8 bits.
pub fn integer_name(bits: usize) -> &'static str {
    match bits {
        1 => "int1",
        2 => "int2",
        3 => "int3",
        4 => "int4",
        5 => "int5",
        6 => "int6",
        7 => "int7",
        _ => "int8",
    }
}

/// Codes of all weights, row-major, as one bit stream whose least significant bits come first, or as
/// half bytes in the other order.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Codes {
    /// The stream.
    pub bytes: Bytes,
    /// Width of a code: 1 to 6, or 8.
    pub bits: u32,
    /// The order of codes of 4 bits; others are a bit stream.
    pub order: NibbleOrder,
}

impl Codes {
    /// Codes of so many bits in a stream.
    pub fn new(bytes: impl Into<Bytes>, bits: u32) -> Self {
        Self {
            bytes: bytes.into(),
            bits,
            order: NibbleOrder::LowFirst,
        }
    }

    /// Codes of 4 bits, of which the first one of each byte is in its high half.
    pub fn high_first(bytes: impl Into<Bytes>) -> Self {
        Self {
            order: NibbleOrder::HighFirst,
            ..Self::new(bytes, 4)
        }
    }

    /// Packs codes; bits above the width are dropped.
    pub fn pack(bits: u32, codes: impl IntoIterator<Item = u8>) -> Self {
        let codes = codes.into_iter();
        let mut bytes = Vec::with_capacity((codes.size_hint().0 * bits as usize).div_ceil(8));
        let (mut word, mut filled) = (0u32, 0);
        for code in codes {
            word |= (u32::from(code) & ((1 << bits) - 1)) << filled;
            filled += bits;
            while filled >= 8 {
                bytes.push(word as u8);
                word >>= 8;
                filled -= 8;
            }
        }
        if filled > 0 {
            bytes.push(word as u8);
        }
        Self::new(bytes, bits)
    }

    /// The code at `index`.
    pub fn get(&self, index: usize) -> u8 {
        decode::code(&self.bytes, self.bits, self.order.place(index))
    }

    /// Codes of a matrix whose column `i` becomes column `to[i]`, as a bit stream.
    pub(crate) fn with_columns(&self, [n, k]: [usize; 2], to: &[usize]) -> Self {
        let width = self.bits as usize;
        let mask = ((1u16 << width) - 1) as u8;
        let mut bytes = vec![0; Self::byte_len(self.bits, n * k)];
        // Eight rows are whole bytes.
        let rows = self.bytes.par_chunks(k * width);
        let threads = bytes.par_chunks_mut(k * width).zip(rows);
        threads.for_each(|(out, bytes)| {
            let mut codes = vec![0; 8 * k];
            let count = bytes.len() * 8 / width;
            for (row, codes) in codes.chunks_exact_mut(k).enumerate() {
                let row = row * k..((row + 1) * k).min(count);
                for (index, &to) in row.zip(to) {
                    codes[to] = decode::code(bytes, self.bits, self.order.place(index));
                }
            }
            for (out, codes) in out.chunks_mut(width).zip(codes.as_chunks::<8>().0) {
                let word = codes
                    .iter()
                    .rev()
                    .fold(0u64, |word, &code| word << width | u64::from(code & mask));
                out.copy_from_slice(&word.to_le_bytes()[..out.len()]);
            }
        });
        Self::new(bytes, self.bits)
    }

    /// Bytes that `count` codes take.
    pub(crate) fn byte_len(bits: u32, count: usize) -> usize {
        count.saturating_mul(bits as usize).div_ceil(8)
    }
}

/// The number that a code stands for, before zero point and scale.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum CodeMap {
    /// A signed 8-bit integer.
    Int8,
    /// An unsigned integer of 1 to 6 or 8 bits.
    Unsigned,
    /// An entry of a table, for 4 bits.
    Table16(Box<[f32; 16]>),
    /// An entry of a table, for 8 bits. Entries that no code names may be infinite or NaN.
    Table256(Box<[f32; 256]>),
}

impl CodeMap {
    /// Checks that `codes` have the right width and only name finite numbers.
    pub(crate) fn check(&self, codes: &Codes) -> Result<(), WeightError> {
        let widths: &[u32] = match self {
            Self::Int8 | Self::Table256(_) => &[8],
            Self::Table16(_) => &[4],
            Self::Unsigned => &[1, 2, 3, 4, 5, 6, 8],
        };
        if !widths.contains(&codes.bits) {
            return Err(WeightError::Unsupported("code width for this map"));
        }
        if codes.order == NibbleOrder::HighFirst && codes.bits != 4 {
            return Err(WeightError::Unsupported(
                "order of half bytes for this code width",
            ));
        }
        match self {
            Self::Table16(table) if table.iter().any(|v| !v.is_finite()) => {
                Err(WeightError::NotFinite("code table"))
            }
            Self::Table256(table) => {
                let finite = |&code: &u8| table[usize::from(code)].is_finite();
                let all = codes.bytes.iter().all(finite);
                all.then_some(()).ok_or(WeightError::NotFinite("codes"))
            }
            _ => Ok(()),
        }
    }

    /// The largest magnitude that a code of this width can stand for, of finite ones.
    pub(crate) fn largest(&self, bits: u32) -> f32 {
        let of = |table: &[f32]| {
            let finite = table.iter().filter(|v| v.is_finite());
            finite.fold(0.0f32, |largest, v| largest.max(v.abs()))
        };
        match self {
            Self::Int8 => 128.0,
            Self::Unsigned => ((1u32 << bits) - 1) as f32,
            Self::Table16(table) => of(&**table),
            Self::Table256(table) => of(&**table),
        }
    }

    /// Whether codes stand for integers.
    pub(crate) fn is_integer(&self) -> bool {
        matches!(self, Self::Int8 | Self::Unsigned)
    }

    /// The numbers of all codes of at most 4 bits, again and again for fewer bits.
    pub(crate) fn small(&self, bits: u32) -> Option<[f32; 16]> {
        match self {
            Self::Table16(table) => Some(**table),
            Self::Unsigned if bits <= 4 => {
                Some(std::array::from_fn(|code| (code % (1 << bits)) as f32))
            }
            _ => None,
        }
    }

    /// The numbers of codes from `start` on, which have more than 4 bits.
    pub(crate) fn decode(&self, codes: &Codes, start: usize, out: &mut [f32]) {
        /// Codes that are unpacked at once.
        const CHUNK: usize = 256;
        if codes.bits == 8 {
            return self.decode_bytes(&codes.bytes[start..], out);
        }
        let mut bytes = [0; CHUNK];
        for (i, out) in out.chunks_mut(CHUNK).enumerate() {
            let bytes = &mut bytes[..out.len()];
            decode::unpack(&codes.bytes, codes.bits, start + i * CHUNK, bytes);
            self.decode_bytes(bytes, out);
        }
    }

    /// The numbers of 8-bit codes.
    fn decode_bytes(&self, codes: &[u8], out: &mut [f32]) {
        match self {
            Self::Int8 => decode::int8(codes, out),
            Self::Unsigned => decode::uint8(codes, out),
            Self::Table256(table) => decode::table256(codes, table, out),
            Self::Table16(_) => unreachable!("4-bit codes have a small table"),
        }
    }

    /// Bytes that the map holds.
    pub(crate) fn byte_len(&self) -> usize {
        match self {
            Self::Int8 | Self::Unsigned => 0,
            Self::Table16(_) => 64,
            Self::Table256(_) => 1024,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_is_least_significant_bits_first() {
        assert_eq!(Codes::pack(4, [1, 2, 3]).bytes.as_ref(), [0x21, 0x03]);
        assert_eq!(Codes::pack(2, [0, 1, 2, 3]).bytes.as_ref(), [0xe4]);
        let three = Codes::pack(3, (0..8).collect::<Vec<_>>());
        assert_eq!(three.bytes.as_ref(), [0x88, 0xc6, 0xfa]);
    }

    #[test]
    fn packed_codes_come_back() {
        let codes: Vec<u8> = (0..77u32).map(|i| (i * 89 + 3) as u8).collect();
        for bits in [1, 2, 3, 4, 5, 6, 8] {
            let packed = Codes::pack(bits, codes.iter().copied());
            assert_eq!(packed.bytes.len(), Codes::byte_len(bits, codes.len()));
            for (i, &code) in codes.iter().enumerate() {
                let mask = ((1u32 << bits) - 1) as u8;
                assert_eq!(packed.get(i), code & mask, "{bits} bits, code {i}");
            }
        }
    }

    #[test]
    fn half_bytes_may_have_the_other_order() {
        let codes = Codes::high_first(vec![0x12, 0x30]);
        let found: Vec<u8> = (0..3).map(|i| codes.get(i)).collect();
        assert_eq!(found, [1, 2, 3]);
        let moved = codes.with_columns([1, 3], &[2, 0, 1]);
        assert_eq!(moved.order, NibbleOrder::LowFirst);
        let found: Vec<u8> = (0..3).map(|i| moved.get(i)).collect();
        assert_eq!(found, [2, 3, 1]);
        let bytes = Codes {
            bits: 8,
            ..codes.clone()
        };
        assert!(CodeMap::Unsigned.check(&codes).is_ok());
        let error = CodeMap::Unsigned.check(&bytes).unwrap_err();
        assert_eq!(
            error.to_string(),
            "unsupported order of half bytes for this code width"
        );
    }

    #[test]
    fn columns_change_places() {
        let [n, k] = [11, 13];
        let codes: Vec<u8> = (0..n * k).map(|i| (i * 89 + 3) as u8).collect();
        let to: Vec<usize> = (0..k).map(|i| i * 5 % k).collect();
        for bits in [1, 2, 3, 4, 5, 6, 8] {
            let packed = Codes::pack(bits, codes.iter().copied());
            let moved = packed.with_columns([n, k], &to);
            assert_eq!(moved.bytes.len(), packed.bytes.len());
            for (i, &to) in (0..n * k).zip(to.iter().cycle()) {
                assert_eq!(moved.get(i / k * k + to), packed.get(i), "{bits} bits, {i}");
            }
        }
    }

    #[test]
    fn codes_without_a_number_are_refused() {
        let mut table = Box::new([1.0; 256]);
        table[0x7f] = f32::NAN;
        let map = CodeMap::Table256(table);
        assert!(map.check(&Codes::pack(8, [0, 0x80])).is_ok());
        let error = map.check(&Codes::pack(8, [0, 0x7f])).unwrap_err();
        assert_eq!(error, WeightError::NotFinite("codes"));
        assert!(CodeMap::Int8.check(&Codes::pack(4, [0])).is_err());
    }
}

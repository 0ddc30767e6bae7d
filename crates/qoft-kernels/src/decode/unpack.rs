//! Codes of 5 to 7 bits, which are too many for a table in registers and do not end with bytes.

/// Codes that are taken from one word.
const EIGHT: usize = 8;

/// Writes the codes from `start` on as bytes.
pub(crate) fn unpack(codes: &[u8], bits: u32, start: usize, out: &mut [u8]) {
    let width = bits as usize;
    let mask = ((1u16 << bits) - 1) as u64;
    // Eight codes are whole bytes.
    let head = (start.next_multiple_of(EIGHT) - start).min(out.len());
    let (head, rest) = out.split_at_mut(head);
    let (eights, tail) = rest.as_chunks_mut::<EIGHT>();
    let middle = start + head.len();
    let bytes = &codes[(middle / EIGHT * width).min(codes.len())..];
    for (out, bytes) in eights.iter_mut().zip(bytes.chunks_exact(width)) {
        let mut word = [0; EIGHT];
        word[..width].copy_from_slice(bytes);
        let mut word = u64::from_le_bytes(word);
        for out in out {
            *out = (word & mask) as u8;
            word >>= bits;
        }
    }
    let last = middle + eights.len() * EIGHT;
    let single = |index| super::code(codes, bits, index);
    for (i, out) in head.iter_mut().enumerate() {
        *out = single(start + i);
    }
    for (i, out) in tail.iter_mut().enumerate() {
        *out = single(last + i);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes::Codes;

    #[test]
    fn any_piece_of_the_stream_is_unpacked() {
        let codes: Vec<u8> = (0..100u32).map(|i| (i * 89 + 3) as u8).collect();
        for bits in [5, 6] {
            let packed = Codes::pack(bits, codes.iter().copied());
            let mask = (1u8 << bits) - 1;
            for (start, length) in [(0, 100), (3, 4), (5, 90), (8, 16), (99, 1), (40, 0)] {
                let mut out = vec![0xff; length];
                unpack(&packed.bytes, bits, start, &mut out);
                let expected = codes[start..start + length].iter().map(|code| code & mask);
                assert!(out.iter().copied().eq(expected), "{bits} bits from {start}");
            }
        }
    }
}

//! 4-bit floats: E2M1.

/// The numbers of all codes: a sign, two bits of exponent, one of mantissa.
pub const FP4: [f32; 16] = [
    0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0,
];

/// Half way between the numbers of neighbouring codes, and whether that goes to the upper one: ties
/// go to even mantissas.
const MIDDLES: [(f32, bool); 7] = [
    (0.25, false),
    (0.75, true),
    (1.25, false),
    (1.75, true),
    (2.5, false),
    (3.5, true),
    (5.0, false),
];

/// The code of the nearest number; beyond ±6, that of ±6. Negative numbers keep their sign where
/// they become zero.
pub fn fp4_code(x: f32) -> u8 {
    let size = x.abs();
    let above = |&(middle, up): &(f32, bool)| size > middle || (up && size == middle);
    let magnitude = MIDDLES.iter().take_while(|middle| above(middle)).count() as u8;
    magnitude | u8::from(x.is_sign_negative()) << 3
}

/// Two 4-bit codes in a byte, the first one in its lower half.
pub fn code_pairs(codes: &[u8]) -> Vec<u8> {
    let pair = |pair: &[u8]| pair[0] | pair.get(1).map_or(0, |second| second << 4);
    codes.chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_to_the_nearest_ties_to_even() {
        for (code, number) in FP4.into_iter().enumerate() {
            assert_eq!(usize::from(fp4_code(number)), code);
        }
        for pair in FP4[..8].windows(2) {
            let middle = (pair[0] + pair[1]) / 2.0;
            let number = |x| FP4[usize::from(fp4_code(x))];
            assert_eq!(number(middle.next_down()), pair[0]);
            assert_eq!(number(middle.next_up()), pair[1]);
            assert_eq!(number(-middle.next_up()), -pair[1]);
            assert_eq!(fp4_code(middle) % 2, 0, "{middle}");
        }
        assert_eq!(fp4_code(1e9), 7);
        assert_eq!(fp4_code(-0.1), 8);
    }
}

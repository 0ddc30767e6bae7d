//! 8-bit floats: E4M3 (no infinities, `float8_e4m3fn`) and E5M2, and powers of two (E8M0).

/// A format of 8-bit floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fp8Format {
    /// Bias 7, largest value 448, no infinities; 0x7f and 0xff are NaN.
    E4m3,
    /// Bias 15, largest value 57344, with infinities and NaN: the upper half of an f16.
    E5m2,
}

impl Fp8Format {
    /// `fp8_e4m3` or `fp8_e5m2`.
    pub fn name(self) -> &'static str {
        match self {
            Self::E4m3 => "fp8_e4m3",
            Self::E5m2 => "fp8_e5m2",
        }
    }

    /// The largest finite value.
    pub fn max(self) -> f32 {
        match self {
            Self::E4m3 => 448.0,
            Self::E5m2 => 57344.0,
        }
    }

    /// Bits of the mantissa, and the exponent of the smallest normal value.
    fn mantissa_and_least(self) -> (i32, i32) {
        match self {
            Self::E4m3 => (3, -6),
            Self::E5m2 => (2, -14),
        }
    }

    /// The values of all bytes.
    pub fn table(self) -> Box<[f32; 256]> {
        let (mantissa_bits, least) = self.mantissa_and_least();
        let value = |code: i32| {
            let (magnitude, one) = (code & 0x7f, 1 << mantissa_bits);
            let (exponent, mantissa) = (magnitude >> mantissa_bits, magnitude & (one - 1));
            let special = match self {
                Self::E4m3 => (magnitude == 0x7f).then_some(f32::NAN),
                Self::E5m2 if magnitude == 0x7c => Some(f32::INFINITY),
                Self::E5m2 => (magnitude > 0x7c).then_some(f32::NAN),
            };
            let value = special.unwrap_or_else(|| {
                let whole = if exponent == 0 {
                    mantissa
                } else {
                    one + mantissa
                };
                let power = least - mantissa_bits + (exponent - 1).max(0);
                whole as f32 * 2f32.powi(power)
            });
            if code < 0x80 { value } else { -value }
        };
        Box::new(std::array::from_fn(|code| value(code as i32)))
    }

    /// The nearest value of the format, ties to even; beyond ±`max`, ±`max`. Numbers keep their sign
    /// where they become zero. NaN stays NaN.
    pub fn round(self, x: f32, max: f32) -> f32 {
        let (mantissa_bits, least) = self.mantissa_and_least();
        let x = x.clamp(-max, max);
        // The biased exponent of x; zero and subnormal f32 are far below the format's own.
        let exponent = ((x.to_bits() >> 23 & 0xff) as i32).max(least + 127) - mantissa_bits;
        let power = |biased: i32| f32::from_bits((biased as u32) << 23);
        // The scaled value is below 2^22, so that adding this constant rounds it to an integer,
        // ties to even, by plain additions.
        const ROUND: f32 = (3 << 22) as f32;
        // Adding it makes small negative numbers a positive zero.
        ((x * power(254 - exponent) + ROUND - ROUND) * power(exponent)).copysign(x)
    }

    /// The byte of the nearest number of the format, saturated. Zero keeps its sign.
    pub fn nearest_code(self, value: f32) -> u8 {
        self.code(self.round(value, self.max()).copysign(value))
    }

    /// The byte of a number of the format, or of a NaN. Others are cut off, not rounded.
    pub fn code(self, number: f32) -> u8 {
        let (mantissa_bits, least) = self.mantissa_and_least();
        let sign = u8::from(number.is_sign_negative()) << 7;
        if !number.is_finite() {
            let infinity = number.is_infinite() && self == Self::E5m2;
            return sign | if infinity { 0x7c } else { 0x7f };
        }
        let size = number.abs();
        let smallest = 2f32.powi(least);
        let magnitude = if size < smallest {
            (size / smallest * (1 << mantissa_bits) as f32) as u32
        } else {
            // The fields of an f32 with another bias and fewer bits.
            (size.to_bits() >> (23 - mantissa_bits)) - (((126 + least) as u32) << mantissa_bits)
        };
        sign | magnitude as u8
    }
}

/// The byte of the smallest power of two among [`powers_of_two`] that is not smaller than the size of
/// `value`, or of the largest one.
pub fn power_above(value: f32) -> u8 {
    // Fields of an f32: the exponent, and whether anything stands behind it.
    let bits = value.abs().to_bits();
    ((bits >> 23) + u32::from(bits << 9 != 0)).min(254) as u8
}

/// The byte of a power of two among [`powers_of_two`].
pub fn power_code(power: f32) -> u8 {
    (power.to_bits() >> 23) as u8
}

/// The values of bytes that are exponents (E8M0): `2^(byte − 127)`. The last one is no number.
pub fn powers_of_two() -> Box<[f32; 256]> {
    // The byte is the exponent of an f32; only 2^-127 is too small for a normal number.
    let power = |byte: usize| f32::from_bits(((byte as u32) << 23).max(1 << 22));
    let mut table: Box<[f32; 256]> = Box::new(std::array::from_fn(power));
    table[255] = f32::NAN;
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_the_known_values() {
        let e4m3 = Fp8Format::E4m3.table();
        assert_eq!((e4m3[0x7e], e4m3[0xfe], e4m3[0x38]), (448.0, -448.0, 1.0));
        assert_eq!((e4m3[0x01], e4m3[0x08]), (2f32.powi(-9), 2f32.powi(-6)));
        assert!(e4m3[0x7f].is_nan() && e4m3[0xff].is_nan());
        let e5m2 = Fp8Format::E5m2.table();
        for code in 0..=255u16 {
            let half = half::f16::from_bits(code << 8).to_f32();
            let value = e5m2[usize::from(code)];
            assert!(value == half || value.is_nan() && half.is_nan());
        }
    }

    #[test]
    fn bytes_are_found_again() {
        for format in [Fp8Format::E4m3, Fp8Format::E5m2] {
            for (code, number) in format.table().into_iter().enumerate() {
                let found = format.code(number);
                assert!(usize::from(found) == code || number.is_nan() && found & 0x7f == 0x7f);
            }
        }
        let powers = powers_of_two();
        for byte in 0..=254u8 {
            let power = f64::from(powers[usize::from(byte)]);
            assert_eq!(power, 2f64.powi(i32::from(byte) - 127));
        }
        assert!(powers[255].is_nan());
    }

    #[test]
    fn values_round_to_the_nearest_even_neighbour() {
        for format in [Fp8Format::E4m3, Fp8Format::E5m2] {
            let table = format.table();
            let mut values: Vec<f32> = table.iter().copied().filter(|v| v.is_finite()).collect();
            values.sort_by(f32::total_cmp);
            values.dedup();
            for pair in values.windows(2) {
                let middle = (pair[0] + pair[1]) / 2.0;
                assert_eq!(format.round(pair[0], format.max()), pair[0]);
                assert_eq!(format.round(middle.next_down(), format.max()), pair[0]);
                assert_eq!(format.round(middle.next_up(), format.max()), pair[1]);
                let tie = format.round(middle, format.max());
                let even = table.iter().position(|&v| v == tie).unwrap();
                assert_eq!(even % 2, 0, "{middle} went to {tie}");
            }
            assert_eq!(format.round(1e9, format.max()), format.max());
            assert!(format.round(f32::NAN, format.max()).is_nan());
        }
        assert_eq!(Fp8Format::E4m3.round(-300.0, 240.0), -240.0);
        assert!(Fp8Format::E4m3.round(-1e-9, 448.0).is_sign_negative());
    }
}

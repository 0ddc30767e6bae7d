//! 8-bit floats: E4M3 (no infinities, `float8_e4m3fn`) and E5M2.

/// A format of 8-bit floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

    /// The nearest value of the format, ties to even; beyond ±`max`, ±`max`. NaN stays NaN.
    pub fn round(self, x: f32, max: f32) -> f32 {
        let (mantissa_bits, least) = self.mantissa_and_least();
        let x = x.clamp(-max, max);
        // The biased exponent of x; zero and subnormal f32 are far below the format's own.
        let exponent = ((x.to_bits() >> 23 & 0xff) as i32).max(least + 127) - mantissa_bits;
        let power = |biased: i32| f32::from_bits((biased as u32) << 23);
        // The scaled value is below 2^22, so that adding this constant rounds it to an integer,
        // ties to even, by plain additions.
        const ROUND: f32 = (3 << 22) as f32;
        (x * power(254 - exponent) + ROUND - ROUND) * power(exponent)
    }
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
    }
}

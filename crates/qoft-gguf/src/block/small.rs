//! Blocks of 32 values.

use qoft_scheme::kernels::BlockFormat;

use super::{f16_at, f16_is_finite, nibbles};

/// The levels of `IQ4_NL` and `IQ4_XS`.
pub const IQ4_LEVELS: [f32; 16] = [
    -127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0,
    89.0, 113.0,
];

/// Twice the values of E2M1.
pub const FP4_LEVELS: [f32; 16] = [
    0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 0.0, -1.0, -2.0, -3.0, -4.0, -6.0, -8.0, -12.0,
];

macro_rules! format {
    ($(#[$doc:meta])* $name:ident, $text:literal, $bytes:literal, $bits:literal,
     $decode:item, $finite:item) => {
        $(#[$doc])*
        pub struct $name;

        impl BlockFormat for $name {
            const NAME: &'static str = $text;
            const VALUES: usize = 32;
            const BYTES: usize = $bytes;
            const BITS: u32 = $bits;
            const GROUP: usize = 32;

            #[inline(always)]
            $decode

            $finite
        }
    };
}

fn scale_is_finite(block: &[u8]) -> bool {
    f16_is_finite(block, 0)
}

fn scale_and_min_are_finite(block: &[u8]) -> bool {
    f16_is_finite(block, 0) && f16_is_finite(block, 2)
}

/// The fifth bit of element `j`, in its place.
#[inline(always)]
fn fifth(high: u32, j: usize) -> u8 {
    ((high >> j & 1) << 4) as u8
}

#[inline(always)]
fn word(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

format!(
    /// A scale and codes less 8.
    Q4_0, "Q4_0", 18, 4,
    fn decode(block: &[u8], out: &mut [f32]) {
        let d = f16_at(block, 0);
        nibbles(&block[2..18], out, |_, code| d * (f32::from(code) - 8.0));
    },
    fn is_finite(block: &[u8]) -> bool {
        scale_is_finite(block)
    }
);

format!(
    /// A scale, a minimum and codes.
    Q4_1, "Q4_1", 20, 4,
    fn decode(block: &[u8], out: &mut [f32]) {
        let (d, m) = (f16_at(block, 0), f16_at(block, 2));
        nibbles(&block[4..20], out, |_, code| d * f32::from(code) + m);
    },
    fn is_finite(block: &[u8]) -> bool {
        scale_and_min_are_finite(block)
    }
);

format!(
    /// A scale and codes less 16, whose fifth bits stand apart.
    Q5_0, "Q5_0", 22, 5,
    fn decode(block: &[u8], out: &mut [f32]) {
        let (d, high) = (f16_at(block, 0), word(block, 2));
        nibbles(&block[6..22], out, |j, code| {
            d * (f32::from(code | fifth(high, j)) - 16.0)
        });
    },
    fn is_finite(block: &[u8]) -> bool {
        scale_is_finite(block)
    }
);

format!(
    /// A scale, a minimum and codes whose fifth bits stand apart.
    Q5_1, "Q5_1", 24, 5,
    fn decode(block: &[u8], out: &mut [f32]) {
        let (d, m, high) = (f16_at(block, 0), f16_at(block, 2), word(block, 4));
        nibbles(&block[8..24], out, |j, code| {
            d * f32::from(code | fifth(high, j)) + m
        });
    },
    fn is_finite(block: &[u8]) -> bool {
        scale_and_min_are_finite(block)
    }
);

format!(
    /// A scale and signed bytes.
    Q8_0, "Q8_0", 34, 8,
    fn decode(block: &[u8], out: &mut [f32]) {
        let d = f16_at(block, 0);
        for (out, code) in out.iter_mut().zip(&block[2..34]) {
            *out = d * f32::from(*code as i8);
        }
    },
    fn is_finite(block: &[u8]) -> bool {
        scale_is_finite(block)
    }
);

format!(
    /// A scale and codes of levels.
    Iq4Nl, "IQ4_NL", 18, 4,
    fn decode(block: &[u8], out: &mut [f32]) {
        let d = f16_at(block, 0);
        nibbles(&block[2..18], out, |_, code| d * IQ4_LEVELS[usize::from(code & 15)]);
    },
    fn is_finite(block: &[u8]) -> bool {
        scale_is_finite(block)
    }
);

format!(
    /// A power of two and codes of E2M1.
    Mxfp4, "MXFP4", 17, 4,
    fn decode(block: &[u8], out: &mut [f32]) {
        let scale = half_power(block[0]);
        nibbles(&block[1..17], out, |_, code| scale * FP4_LEVELS[usize::from(code & 15)]);
    },
    fn is_finite(block: &[u8]) -> bool {
        let scale = half_power(block[0]);
        let mut codes = block[1..].iter().flat_map(|byte| [byte & 15, byte >> 4]);
        codes.all(|code| (scale * FP4_LEVELS[usize::from(code)]).is_finite())
    }
);

/// 2 to the power of `e` − 128: half of what E8M0 says, since levels are doubled.
#[inline(always)]
pub fn half_power(e: u8) -> f32 {
    let bits = match e {
        // Subnormal numbers.
        0 => 0x0020_0000,
        1 => 0x0040_0000,
        _ => (u32::from(e) - 1) << 23,
    };
    f32::from_bits(bits)
}

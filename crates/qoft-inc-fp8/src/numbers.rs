//! The numbers of 8 bits that a device has.

use qoft_scheme::kernels::Fp8Format;

/// The largest E4M3 number of a Gaudi 2.
const GAUDI2_MAX: f32 = 240.0;

/// Numbers of a format, up to the largest one.
#[derive(Debug, Clone, Copy)]
pub struct Numbers {
    /// The format.
    pub format: Fp8Format,
    /// The largest number.
    pub max: f32,
}

impl Numbers {
    /// Those of a device.
    pub fn of(format: Fp8Format, gaudi2: bool) -> Self {
        let max = match format {
            Fp8Format::E4m3 if gaudi2 => GAUDI2_MAX,
            _ => format.max(),
        };
        Self { format, max }
    }
}

//! Scales of small floats.

use qoft_scheme::FloatGrid;
use qoft_scheme::kernels::{FP4, Fp8Format, Matrix, fp4_code, power_above};

use super::groups;
use crate::config::Mode;
use crate::layout::scale_table;

/// The scales of all groups, as bytes.
pub fn scale_bytes(weight: &Matrix, mode: Mode, group_size: usize) -> Vec<u8> {
    let largest = match mode {
        Mode::Mxfp8 => Fp8Format::E4m3.max(),
        _ => FP4[7],
    };
    let scale = |group: &[f32]| {
        let reach = group.iter().fold(0.0f32, |reach, v| reach.max(v.abs()));
        match mode {
            Mode::Nvfp4 => Fp8Format::E4m3.nearest_code(reach / largest),
            // Where nothing is to be scaled, the library takes 1.
            _ if reach == 0.0 => 127,
            _ => power_above(reach / largest),
        }
    };
    groups(weight, group_size).map(scale).collect()
}

/// The numbers of rows of `k` weights, by the scales' bytes.
pub fn float_grid(mode: Mode, group_size: usize, k: usize, bytes: &[u8]) -> FloatGrid {
    let table = scale_table(mode);
    let is_fp8 = mode == Mode::Mxfp8;
    let numbers: Box<[f32]> = match is_fp8 {
        true => Fp8Format::E4m3.table(),
        false => Box::new(FP4),
    };
    let code: fn(f32) -> u8 = match is_fp8 {
        true => |value| Fp8Format::E4m3.nearest_code(value),
        false => code,
    };
    FloatGrid::new(numbers, code).with_coded_scales(bytes, &table, k, group_size)
}

/// The code of the nearest number. Other than elsewhere, numbers in the middle go to the smaller one,
/// and there is no negative zero.
fn code(value: f32) -> u8 {
    let smaller = f32::from_bits(value.to_bits().saturating_sub(u32::from(value != 0.0)));
    match fp4_code(smaller) {
        8 => 0,
        code => code,
    }
}

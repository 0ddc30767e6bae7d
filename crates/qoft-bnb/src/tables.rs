//! The numbers of the library's formats, exactly as it stores them.

use crate::config::QuantType;

/// 1/127 as the reference spells it: `w = (q · SCB) · this`, rounded after each step.
pub const ONE_127TH: f32 = 7.874_016e-3;

/// nf4: quantiles of the normal distribution.
const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// The magnitudes of fp4 in twelfths, in the order of their bit patterns.
const FP4_TWELFTHS: [f32; 8] = [0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0];

/// The numbers of the codes of 4 bits.
pub fn four_bit(quant_type: QuantType) -> [f32; 16] {
    match quant_type {
        QuantType::Nf4 => NF4,
        QuantType::Fp4 => std::array::from_fn(|code| {
            let magnitude = FP4_TWELFTHS[code % 8] / 12.0;
            // The second zero has no sign.
            if code > 8 { -magnitude } else { magnitude }
        }),
    }
}

/// The map for absmax values that are quantized themselves: an exponent of 0 to 6 and a linear
/// fraction with as many steps as that leaves bits for.
pub fn dynamic_map() -> [f32; 256] {
    let mut values = vec![0.0, 1.0];
    for exponent in 0..7 {
        let points = linspace((1 << exponent) + 1);
        let power = 10f64.powi(exponent - 6) as f32;
        for pair in points.windows(2) {
            let middle = (pair[0] + pair[1]) / 2.0 * power;
            values.extend([middle, -middle]);
        }
    }
    values.sort_by(f32::total_cmp);
    std::array::from_fn(|at| values[at])
}

/// torch's `linspace(0.1, 1, count)` in `f32` on a CPU with vectors: from both ends to the middle, each
/// rounded once.
fn linspace(count: usize) -> Vec<f32> {
    let (start, end) = (0.1f32, 1.0f32);
    let step = (end - start) / (count - 1) as f32;
    let point = |at: usize| {
        if at < count / 2 {
            step.mul_add(at as f32, start)
        } else {
            (-step).mul_add((count - at - 1) as f32, end)
        }
    };
    (0..count).map(point).collect()
}

//! LLM.int8's quantization of activations.

use half::f16;
use qoft_scheme::kernels::ops::InputQuantizer;

use crate::tables::ONE_127TH;

/// 1/127² as the reference's CPU code spells it; a digit is missing there.
const ONE_127TH_SQUARED: f32 = 6.200_124e-5;

/// Rounds each row to 8-bit integers; columns with an outlier in any row stay as they are.
///
/// This is the forward of `Linear8bitLt` in evaluation, with the integer product replaced by the
/// product of the dequantized factors. Which columns are outliers depends on the whole batch.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct OutlierInt8 {
    /// Activations of this magnitude are outliers; 0: none is.
    pub threshold: f32,
}

impl InputQuantizer for OutlierInt8 {
    fn quantize(&self, x: &mut [f32], in_features: usize) {
        let half = |v: f32| f16::from_f32(v).to_f32();
        let is_outlier = |v: f32| self.threshold > 0.0 && half(v).abs() >= self.threshold;
        let mut outlier_columns = vec![false; in_features];
        for row in x.chunks_exact(in_features) {
            for (column, &v) in outlier_columns.iter_mut().zip(row) {
                *column |= is_outlier(v);
            }
        }
        for row in x.chunks_exact_mut(in_features) {
            let small = row.iter().map(|&v| half(v)).filter(|&v| !is_outlier(v));
            let max = small.fold(0.0f32, |max, v| max.max(v.abs()));
            if max == 0.0 {
                row.iter_mut()
                    .zip(&outlier_columns)
                    .filter(|(_, o)| !**o)
                    .for_each(|(v, _)| *v = 0.0);
                continue;
            }
            // The weight brings one factor of 1/127 of its own.
            let (up, down) = (127.0 / max, max * (ONE_127TH_SQUARED / ONE_127TH));
            for (v, &outlier) in row.iter_mut().zip(&outlier_columns) {
                if !outlier {
                    *v = (half(*v) * up).round_ties_even() * down;
                }
            }
        }
    }
}

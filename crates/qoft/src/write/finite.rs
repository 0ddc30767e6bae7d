//! Nothing that is written is infinite or not a number.

use qoft_core::{Dtype, Error, Result};
use rayon::prelude::*;

/// Values that a thread looks at at once.
const PIECE: usize = 1 << 16;

/// Fails if one of the numbers of a tensor is not finite.
///
/// # Errors
/// Names the tensor, and what to do where its dtype has too small a range.
pub fn check_finite(name: &str, dtype: Dtype, bytes: &[u8]) -> Result<()> {
    let (range, finite) = match dtype {
        Dtype::F16 => (Some("65504"), all(bytes, |x| exponent(x, 0x7c00))),
        Dtype::BF16 => (Some("3.39e38"), all(bytes, |x| exponent(x, 0x7f80))),
        Dtype::F32 => (None, all(bytes, |x| f32::from_le_bytes(x).is_finite())),
        Dtype::F64 => (None, all(bytes, |x| f64::from_le_bytes(x).is_finite())),
        _ => return Ok(()),
    };
    if finite {
        return Ok(());
    }
    let mut reason = "it would have values that are infinite or not a number".to_owned();
    if let Some(range) = range {
        reason += &format!(
            ": {dtype:?} holds numbers up to {range}; if the model's are larger, another dtype \
             holds them (--dtype, --quantize-dtype)"
        );
    }
    Err(Error::file(format!("tensor `{name}`"), reason))
}

/// Whether the exponent of a number of 16 bits is not that of infinities.
fn exponent(bytes: [u8; 2], mask: u16) -> bool {
    u16::from_le_bytes(bytes) & mask != mask
}

fn all<const N: usize>(bytes: &[u8], finite: impl Fn([u8; N]) -> bool + Sync) -> bool {
    let (numbers, _) = bytes.as_chunks::<N>();
    let pieces = numbers.par_chunks(PIECE);
    pieces.into_par_iter().all(|piece| {
        // Without an early end, so that it becomes vectors.
        piece.iter().fold(true, |all, &number| all & finite(number))
    })
}

#[cfg(test)]
mod tests {
    use qoft_core::kernels::FloatFormat;

    use super::*;

    #[test]
    fn numbers_of_every_kind_are_looked_at() {
        let formats = [
            (Dtype::F16, FloatFormat::F16),
            (Dtype::BF16, FloatFormat::Bf16),
            (Dtype::F32, FloatFormat::F32),
        ];
        for (dtype, format) in formats {
            let check = |values: &[f32]| check_finite("a", dtype, &format.to_bytes(values));
            let mut values = vec![1.5; PIECE + 3];
            values[2] = -65504.0;
            check(&values).unwrap();
            for wrong in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
                values[PIECE + 1] = wrong;
                let error = check(&values).unwrap_err().to_string();
                assert!(error.contains("`a`"), "{error}");
            }
        }
        let error = check_finite("a", Dtype::F16, &FloatFormat::F16.to_bytes(&[1e5]));
        assert!(error.unwrap_err().to_string().contains("65504"));
        check_finite("a", Dtype::U16, &[0xff; 4]).unwrap();
        let nan = f64::NAN.to_le_bytes();
        check_finite("a", Dtype::F64, &nan).unwrap_err();
    }
}

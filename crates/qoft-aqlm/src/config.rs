//! What a checkpoint says of its quantization.

use qoft_scheme::{Keys, Result};

/// The sizes that all layers of a checkpoint have in common. Which layers are quantized is seen by
/// their tensors, so `linear_weights_not_to_quantize` is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct AqlmConfig {
    /// Consecutive inputs that a code covers.
    pub in_group_size: usize,
    /// Consecutive outputs that a code covers.
    pub out_group_size: usize,
    /// Vectors that are added up.
    pub num_codebooks: usize,
    /// A codebook has 2 to this power vectors.
    pub nbits_per_codebook: u32,
}

impl AqlmConfig {
    /// Reads the configuration; `None` if there is none or it is of another method.
    ///
    /// # Errors
    /// If a value is no number that is possible.
    pub fn read(keys: &Keys) -> Result<Option<Self>> {
        if keys.method().as_deref() != Some("aqlm") {
            return Ok(None);
        }
        let entries = keys.all();
        let number = |key: &str, default: u64, most: u64| {
            // Null is no number here, as it is not for the library.
            let Some(value) = entries.and_then(|all| all.get(key)) else {
                return Ok(default);
            };
            let number = value.as_u64().filter(|n| (1..=most).contains(n));
            number.ok_or_else(|| {
                let reason = format!("expected a number from 1 to {most}, found {value}");
                keys.error(key, reason)
            })
        };
        const MOST: u64 = u32::MAX as u64;
        Ok(Some(Self {
            in_group_size: number("in_group_size", 8, MOST)? as usize,
            out_group_size: number("out_group_size", 1, MOST)? as usize,
            num_codebooks: number("num_codebooks", 1, MOST)? as usize,
            nbits_per_codebook: number("nbits_per_codebook", 16, 24)? as u32,
        }))
    }

    /// `[num_codebooks, entries, out_group_size, in_group_size]`, the shape of a layer's codebooks.
    pub fn codebooks_shape(&self) -> [usize; 4] {
        [
            self.num_codebooks,
            1 << self.nbits_per_codebook,
            self.out_group_size,
            self.in_group_size,
        ]
    }
}

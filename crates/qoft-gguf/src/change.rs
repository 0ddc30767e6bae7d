//! Values that files have in another way than transformers: rows of queries and keys in the order of
//! interleaved rotary positions, and norms with 1 added.

use std::sync::Arc;

use qoft_scheme::{Dtype, ReadAs};

use crate::file::TensorType;
use crate::model::Kind;

/// What is done to the bytes of a tensor on the way in and back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Rows change places within each of so many heads.
    Rows { heads: usize, rows: usize },
    /// 1 is subtracted from each number of single precision.
    Norm,
}

impl Change {
    /// That of a tensor by its name in the file.
    ///
    /// # Errors
    /// If its rows are not those of the heads, or a norm has other numbers.
    pub fn of(
        kind: &Kind,
        name: &str,
        shape: &[usize],
        stored: TensorType,
        [heads, kv_heads]: [usize; 2],
    ) -> Result<Option<Self>, String> {
        let module = name.rsplit_once('.').map_or(name, |(module, _)| module);
        let module = module.rsplit('.').next().unwrap_or(module);
        let heads = match module {
            "attn_q" if kind.permuted => heads,
            "attn_k" if kind.permuted => kv_heads,
            _ if kind.gemma && module.ends_with("norm") => {
                return match stored {
                    TensorType::Float(Dtype::F32) => Ok(Some(Self::Norm)),
                    other => Err(format!("a norm of {}, expected F32", other.name())),
                };
            }
            _ => return Ok(None),
        };
        let rows = shape.first().copied().unwrap_or_default();
        match heads > 0 && rows > 0 && rows.is_multiple_of(2 * heads) {
            true => Ok(Some(Self::Rows { heads, rows })),
            false => Err(format!(
                "{rows} rows for {heads} heads, expected a multiple of twice as many"
            )),
        }
    }

    /// What files have → what transformers has.
    pub fn read_as(self) -> ReadAs {
        Arc::new(move |bytes| self.read(bytes))
    }

    /// What files have → what transformers has.
    pub fn read(self, bytes: &[u8]) -> Vec<u8> {
        self.apply(bytes, false)
    }

    /// What transformers has → what files have.
    pub fn write_as(self, bytes: &[u8]) -> Vec<u8> {
        self.apply(bytes, true)
    }

    fn apply(self, bytes: &[u8], back: bool) -> Vec<u8> {
        let (heads, rows) = match self {
            Self::Rows { heads, rows } => (heads, rows),
            Self::Norm => {
                let one = if back { 1.0 } else { -1.0 };
                let values = bytes.as_chunks::<4>().0.iter();
                let values = values.map(|value| f32::from_le_bytes(*value) + one);
                return values.flat_map(f32::to_le_bytes).collect();
            }
        };
        let (row, head) = (bytes.len() / rows, rows / heads);
        let half = head / 2;
        let mut out = vec![0; bytes.len()];
        for (number, row_bytes) in out.chunks_exact_mut(row).enumerate() {
            // File row 2i + s of a head is the model's row s · half + i.
            let (h, r) = (number / head, number % head);
            let from = match back {
                false => 2 * (r % half) + r / half,
                true => r % 2 * half + r / 2,
            };
            row_bytes.copy_from_slice(&bytes[(h * head + from) * row..][..row]);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_change_places_within_heads() {
        let rows = Change::Rows { heads: 2, rows: 12 };
        let file: Vec<u8> = (0..24).collect();
        let model = rows.read(&file);
        assert_eq!(
            model,
            [
                0, 1, 4, 5, 8, 9, 2, 3, 6, 7, 10, 11, 12, 13, 16, 17, 20, 21, 14, 15, 18, 19, 22,
                23
            ]
        );
        assert_eq!(rows.write_as(&model), file);
    }

    #[test]
    fn norms_lose_their_one() {
        let bytes = [1.5f32, 0.25].map(f32::to_le_bytes).concat();
        let read = Change::Norm.read(&bytes);
        assert_eq!(read, [0.5f32, -0.75].map(f32::to_le_bytes).concat());
        assert_eq!(Change::Norm.write_as(&read), bytes);
    }
}

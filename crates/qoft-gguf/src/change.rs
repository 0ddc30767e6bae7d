//! Values that files have in another way than transformers: rows of queries and keys in the order of
//! interleaved rotary positions, and norms with 1 added.

use std::sync::Arc;

use qoft_scheme::ReadAs;

use crate::file::TensorType;
use crate::model::Kind;
use qoft_scheme::Dtype;

/// What is done to the bytes of a tensor on the way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Rows change places within each of so many heads.
    Rows { heads: usize, rows: usize },
    /// 1 is subtracted from each `f32`.
    Norm,
}

impl Change {
    /// That of a tensor by its name in the file.
    ///
    /// # Errors
    /// If its rows are not those of the heads.
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
            _ if kind.norms_plus_one && module.ends_with("norm") => {
                return match stored {
                    TensorType::Float(Dtype::F32) => Ok(Some(Self::Norm)),
                    other => Err(format!("a norm of {other:?}, expected F32")),
                };
            }
            _ => return Ok(None),
        };
        let rows = shape[0];
        match heads > 0 && rows.is_multiple_of(2 * heads) {
            true => Ok(Some(Self::Rows { heads, rows })),
            false => Err(format!(
                "{rows} rows for {heads} heads, expected a multiple of twice as many"
            )),
        }
    }

    /// What files have → what transformers has.
    pub fn read_as(self) -> ReadAs {
        Arc::new(move |bytes| self.apply(bytes))
    }

    fn apply(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Norm => {
                let values = bytes.as_chunks::<4>().0.iter();
                let values = values.map(|value| f32::from_le_bytes(*value) - 1.0);
                values.flat_map(f32::to_le_bytes).collect()
            }
            Self::Rows { heads, rows } => {
                let (row, head) = (bytes.len() / rows, rows / heads);
                let half = head / 2;
                let mut out = vec![0; bytes.len()];
                for (number, row_bytes) in out.chunks_exact_mut(row).enumerate() {
                    // File row 2i + s of a head is the model's row s · half + i.
                    let (h, r) = (number / head, number % head);
                    let from = 2 * (r % half) + r / half;
                    row_bytes.copy_from_slice(&bytes[(h * head + from) * row..][..row]);
                }
                out
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_change_places_within_heads() {
        let rows = Change::Rows { heads: 2, rows: 12 };
        let file: Vec<u8> = (0..24).collect();
        let model = rows.apply(&file);
        assert_eq!(
            model,
            [
                0, 1, 4, 5, 8, 9, 2, 3, 6, 7, 10, 11, 12, 13, 16, 17, 20, 21, 14, 15, 18, 19, 22,
                23
            ]
        );
    }

    #[test]
    fn norms_lose_their_one() {
        let bytes = [1.5f32, 0.25].map(f32::to_le_bytes).concat();
        let read = Change::Norm.apply(&bytes);
        assert_eq!(read, [0.5f32, -0.75].map(f32::to_le_bytes).concat());
    }
}

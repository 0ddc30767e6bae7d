//! Values that files have in another way than transformers: rows of queries and keys in the order of
//! interleaved rotary positions.

use std::sync::Arc;

use qoft_scheme::ReadAs;

use crate::model::Kind;

/// Rows that change places within each of so many heads, on the way in and back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    heads: usize,
    rows: usize,
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
        [heads, kv_heads]: [usize; 2],
    ) -> Result<Option<Self>, String> {
        let module = name.rsplit_once('.').map_or(name, |(module, _)| module);
        let module = module.rsplit('.').next().unwrap_or(module);
        let heads = match module {
            "attn_q" if kind.permuted => heads,
            "attn_k" if kind.permuted => kv_heads,
            _ => return Ok(None),
        };
        let rows = shape.first().copied().unwrap_or_default();
        match heads > 0 && rows > 0 && rows.is_multiple_of(2 * heads) {
            true => Ok(Some(Self { heads, rows })),
            false => Err(format!(
                "{rows} rows for {heads} heads, expected a multiple of twice as many"
            )),
        }
    }

    /// What files have → what transformers has.
    pub fn read_as(self) -> ReadAs {
        Arc::new(move |bytes| self.apply(bytes, false))
    }

    /// What transformers has → what files have.
    pub fn write_as(self, bytes: &[u8]) -> Vec<u8> {
        self.apply(bytes, true)
    }

    fn apply(self, bytes: &[u8], back: bool) -> Vec<u8> {
        let Self { heads, rows } = self;
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
        let rows = Change { heads: 2, rows: 12 };
        let file: Vec<u8> = (0..24).collect();
        let model = rows.apply(&file, false);
        assert_eq!(
            model,
            [
                0, 1, 4, 5, 8, 9, 2, 3, 6, 7, 10, 11, 12, 13, 16, 17, 20, 21, 14, 15, 18, 19, 22,
                23
            ]
        );
        assert_eq!(rows.write_as(&model), file);
    }
}

//! Rows of a table by index.

use rayon::prelude::*;

use crate::weight::PackedWeight;

/// The rows `ids` of `table`, one after another.
///
/// # Panics
/// If an id is not a row of the table; callers check their input before.
pub fn embed(table: &dyn PackedWeight, ids: &[usize]) -> Vec<f32> {
    let [rows, width] = table.shape();
    let mut out = vec![0.0; ids.len() * width];
    out.par_chunks_mut(width).zip(ids).for_each(|(out, &id)| {
        assert!(id < rows, "token id {id} in a table of {rows} rows");
        table.decode_tile(id..id + 1, 0..width, out);
    });
    out
}

//! Keys and values of the tokens so far, of one layer.

use std::sync::Arc;

use burn::tensor::Tensor;

use crate::cache::Caches;
use crate::positions::Positions;

/// Keys and values that attention has seen.
///
/// Keys are kept as rotated. Where the frequencies depend on the length of the sequence
/// (`dynamic` and `longrope`), those of earlier tokens stay as they were.
#[derive(Debug, Clone)]
pub struct KeyValues {
    kept: Option<Buffers>,
    window: Option<usize>,
}

/// Tensors of `[batch, room, kv_heads, head_dim]`, filled from `start` to `end`.
#[derive(Debug, Clone)]
struct Buffers {
    k: Tensor<4>,
    v: Tensor<4>,
    start: usize,
    end: usize,
}

/// Positions that are added to a full cache at least; otherwise a quarter of what it holds.
const ROOM: usize = 64;

impl KeyValues {
    /// An empty cache, for queries that see `window` keys at most, themselves included; `None`: all
    /// before them.
    pub fn new(window: Option<usize>) -> Self {
        Self { kept: None, window }
    }

    /// Adds keys and values of new tokens, `[batch, time, kv_heads, head_dim]`; returns all that
    /// these tokens can see.
    pub fn append(&mut self, k: Tensor<4>, v: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let mut kept = match self.kept.take() {
            Some(kept) => kept.extended(k, v),
            None => Buffers {
                end: k.dims()[1],
                start: 0,
                k,
                v,
            },
        };
        let (start, length) = (kept.start, kept.end - kept.start);
        let seen = |x: &Tensor<4>| x.clone().narrow(1, start, length);
        let seen = (seen(&kept.k), seen(&kept.v));
        // A window of one sees no earlier token, but empty tensors are best avoided.
        let reach = self.window.map_or(length, |window| window.max(2) - 1);
        kept.start = kept.end - reach.min(length);
        self.kept = Some(kept);
        seen
    }
}

/// What `attend` makes of queries, keys and values of new tokens, `[batch, time, heads, head_dim]`, and of
/// what is kept of the tokens before them. Without caches, or with one, it is called once; with
/// several, for the tokens of each sequence in `positions`. It is told the lengths of whole sequences that stand one after another, if
/// there are several.
pub fn attend_each(
    [q, k, v]: [Tensor<4>; 3],
    positions: &Positions,
    caches: Caches<KeyValues>,
    attend: &dyn Fn([Tensor<4>; 3], Option<Arc<[usize]>>) -> Tensor<4>,
) -> Tensor<4> {
    match caches {
        None => attend([q, k, v], positions.lengths()),
        Some([cache]) => {
            let (k, v) = cache.append(k, v);
            attend([q, k, v], None)
        }
        Some(caches) => {
            let mut end = 0;
            let sequences = positions.sequences().iter().zip(caches);
            let parts = sequences.map(|(range, cache)| {
                let start = end;
                end += range.len();
                let part = |x: &Tensor<4>| x.clone().narrow(1, start, range.len());
                let (k, v) = cache.append(part(&k), part(&v));
                attend([part(&q), k, v], None)
            });
            Tensor::cat(parts.collect(), 1)
        }
    }
}

impl Buffers {
    /// With keys and values behind the others: in place, or in larger tensors.
    fn extended(self, k: Tensor<4>, v: Tensor<4>) -> Self {
        let time = k.dims()[1];
        let (start, end) = (self.start, self.end);
        if end + time <= self.k.dims()[1] {
            let put = |old: Tensor<4>, new: Tensor<4>| {
                let [batch, time, heads, width] = new.dims();
                old.slice_assign([0..batch, end..end + time, 0..heads, 0..width], new)
            };
            return Self {
                k: put(self.k, k),
                v: put(self.v, v),
                start,
                end: end + time,
            };
        }
        let length = end - start;
        let room = ROOM.max((length + time) / 4);
        let join = |old: Tensor<4>, new: Tensor<4>| {
            let [batch, _, heads, width] = new.dims();
            let room = Tensor::zeros([batch, room, heads, width], &new.device());
            Tensor::cat(vec![old.narrow(1, start, length), new, room], 1)
        };
        Self {
            k: join(self.k, k),
            v: join(self.v, v),
            start: 0,
            end: length + time,
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn tokens_see_what_came_before_them() {
        let device = Device::flex();
        let tokens = |from: usize, time: usize| -> Tensor<4> {
            let ids = (0..2).flat_map(|row| (from..from + time).map(move |at| (row, at)));
            let values: Vec<f32> = ids
                .flat_map(|(row, at)| [(1000 * row + at) as f32; 6])
                .collect();
            Tensor::<1>::from_data(values.as_slice(), &device).reshape([2, time, 3, 2])
        };
        for window in [None, Some(1), Some(2), Some(5), Some(90)] {
            let mut cache = KeyValues::new(window);
            let mut count = 0;
            for time in [7, 1, 1, 3, 100].into_iter().chain([1; 200]) {
                let reach = window.map_or(count, |window: usize| window.max(2) - 1);
                let first = count - reach.min(count);
                let (k, v) = cache.append(tokens(count, time), tokens(count, time) * 2.0);
                count += time;
                let expected = tokens(first, count - first);
                assert_eq!(k.into_data(), expected.clone().into_data());
                assert_eq!(v.into_data(), (expected * 2.0).into_data());
            }
        }
    }
}

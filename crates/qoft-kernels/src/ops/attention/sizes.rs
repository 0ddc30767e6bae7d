//! Sizes of attention, and where its heads lie.

use crate::op::HostView;

/// Scores that a thread has at once, roughly: 1 MiB of them, in the backward twice.
const SCORES: usize = 1 << 18;

/// Sizes of one call.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub batch: usize,
    pub queries: usize,
    pub keys: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub d: usize,
}

impl Sizes {
    pub fn of(inputs: &[HostView]) -> Self {
        let (&[batch, queries, heads, d], &[_, keys, kv_heads, _]) =
            (inputs[0].shape, inputs[1].shape)
        else {
            panic!("attention needs [batch, time, heads, head_dim]");
        };
        assert!(
            heads % kv_heads == 0 && keys >= queries,
            "attention: heads or lengths"
        );
        Self {
            batch,
            queries,
            keys,
            heads,
            kv_heads,
            d,
        }
    }

    /// Where a head's first query lies, and the distance between two of its queries.
    pub fn query(&self, batch: usize, head: usize) -> (usize, usize) {
        (
            (batch * self.queries * self.heads + head) * self.d,
            self.heads * self.d,
        )
    }

    /// As [`Self::query`], for keys and values.
    pub fn key(&self, batch: usize, kv_head: usize) -> (usize, usize) {
        (
            (batch * self.keys * self.kv_heads + kv_head) * self.d,
            self.kv_heads * self.d,
        )
    }

    /// Query heads that share a kv head.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Queries of a block: as many as [`SCORES`] allows, but fewer where threads would have
    /// nothing to share.
    pub fn block_rows(&self) -> usize {
        let shared = (self.batch * self.queries).div_ceil(16);
        (SCORES / self.keys.max(1)).min(shared).clamp(16, 128)
    }
}

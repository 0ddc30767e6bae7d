//! Keys and values of the tokens so far.

use burn::tensor::Tensor;

use crate::model::CausalLm;

/// The cache of one generation; of a batch, all rows are equally long.
///
/// Keys are kept as rotated. Where the frequencies depend on the length of the sequence
/// (`dynamic` and `longrope`), those of earlier tokens stay as they were.
#[derive(Debug, Clone)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    len: usize,
}

impl KvCache {
    /// An empty cache.
    pub fn new(model: &CausalLm) -> Self {
        let windows = model.config().windows().into_iter();
        let layers = windows.map(|window| LayerCache { kept: None, window });
        Self {
            layers: layers.collect(),
            len: 0,
        }
    }

    /// Tokens so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token was seen.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The cache of one layer.
    pub(crate) fn layer(&mut self, index: usize) -> &mut LayerCache {
        &mut self.layers[index]
    }

    /// Counts tokens that all layers have seen.
    pub(crate) fn advance(&mut self, tokens: usize) {
        self.len += tokens;
    }
}

/// Keys and values of one layer, `[batch, time, kv_heads, head_dim]`.
#[derive(Debug, Clone)]
pub struct LayerCache {
    kept: Option<(Tensor<4>, Tensor<4>)>,
    window: Option<usize>,
}

impl LayerCache {
    /// Adds keys and values of new tokens; returns all that these tokens can see.
    pub fn append(&mut self, k: Tensor<4>, v: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let (k, v) = match self.kept.take() {
            Some((old_k, old_v)) => (
                Tensor::cat(vec![old_k, k], 1),
                Tensor::cat(vec![old_v, v], 1),
            ),
            None => (k, v),
        };
        self.kept = Some((self.in_reach(k.clone()), self.in_reach(v.clone())));
        (k, v)
    }

    /// What the next token can still see besides itself.
    fn in_reach(&self, x: Tensor<4>) -> Tensor<4> {
        let time = x.dims()[1];
        match self.window {
            // A window of one sees no earlier token, but empty tensors are best avoided.
            Some(window) if time >= window.max(2) => {
                let reach = window.max(2) - 1;
                x.narrow(1, time - reach, reach)
            }
            _ => x,
        }
    }
}

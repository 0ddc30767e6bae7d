//! What a model keeps of the tokens so far.

use std::any::Any;
use std::fmt::Debug;

/// What one block keeps: keys and values, the state of a recurrence, or anything else.
pub trait LayerCache: Clone + Debug + Send + Sync + 'static {}

impl<C: Clone + Debug + Send + Sync + 'static> LayerCache for C {}

/// What a block keeps of the sequences that it continues: one cache for each. `None` where nothing is kept.
pub type Caches<'a, 'b, C> = Option<&'a mut [&'b mut C]>;

/// The cache of the one sequence that a block continues.
///
/// # Panics
/// If there are several, see [`Body::continues_several`](crate::Body::continues_several).
pub fn only<'a, C>(caches: Caches<'a, '_, C>) -> Option<&'a mut C> {
    match caches {
        None => None,
        Some([cache]) => Some(cache),
        Some(caches) => panic!("{} sequences in a block that continues one", caches.len()),
    }
}

/// The cache of one generation; of a batch, all rows are equally long.
#[derive(Debug)]
pub struct Cache {
    layers: Box<dyn Layers>,
    len: usize,
}

/// A list of caches whose type only their blocks know.
trait Layers: Debug + Send + Sync {
    fn boxed_clone(&self) -> Box<dyn Layers>;
    fn as_any(&mut self) -> &mut dyn Any;
}

impl<C: LayerCache> Layers for Vec<C> {
    fn boxed_clone(&self) -> Box<dyn Layers> {
        Box::new(self.clone())
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

impl Clone for Cache {
    fn clone(&self) -> Self {
        Self {
            layers: self.layers.boxed_clone(),
            len: self.len,
        }
    }
}

impl Cache {
    /// An empty cache, from an empty one for each block.
    pub(crate) fn new<C: LayerCache>(layers: Vec<C>) -> Self {
        Self {
            layers: Box::new(layers),
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

    /// The caches of all blocks.
    ///
    /// # Panics
    /// If the cache was made by a model of another architecture.
    pub(crate) fn layers<C: LayerCache>(&mut self) -> &mut [C] {
        let layers = self.layers.as_any().downcast_mut::<Vec<C>>();
        layers.expect("a cache of a model of the same architecture")
    }

    /// Counts tokens that all blocks have seen.
    pub(crate) fn advance(&mut self, tokens: usize) {
        self.len += tokens;
    }
}

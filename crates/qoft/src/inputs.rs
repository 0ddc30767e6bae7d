//! Sums over the inputs of layers, of which those with the same inputs share one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::tensor::Tensor;
use qoft_calibrate::Hessian;
use qoft_core::InputObserver;

/// Sums of the inputs of several layers. Layers that see the same rows one after another, as q, k
/// and v do, have one sum, until they see different ones.
#[derive(Debug, Default)]
pub(crate) struct Collected(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    sums: Vec<Sum>,
    layers: Vec<Seen>,
    /// The sum that rows were last added to.
    last: usize,
}

/// What one sum is made of.
#[derive(Debug)]
struct Sum {
    /// Of all rows but the last ones.
    hessian: Hessian,
    /// Rows of the layer's last call, not yet in the sum: others may see them too.
    waiting: Vec<f32>,
    /// The layer that it was made for.
    owner: usize,
    /// Calls of this layer.
    calls: usize,
}

/// What one layer has seen.
#[derive(Debug, Default)]
struct Seen {
    sum: Option<usize>,
    calls: usize,
}

/// The observer of one layer.
#[derive(Debug)]
pub(crate) struct Observed {
    state: Arc<Mutex<State>>,
    layer: usize,
    width: usize,
}

impl Collected {
    /// The observer for one more layer.
    pub fn observer(&self, width: usize) -> Observed {
        let mut state = lock(&self.0);
        state.layers.push(Seen::default());
        Observed {
            state: self.0.clone(),
            layer: state.layers.len() - 1,
            width,
        }
    }

    /// All sums, complete. A layer that was never called has that of no rows.
    pub fn sums(&self) -> Vec<Hessian> {
        let mut state = lock(&self.0);
        let sums = state.sums.iter_mut().map(|sum| {
            sum.hessian.add(&std::mem::take(&mut sum.waiting));
            sum.hessian.clone()
        });
        sums.collect()
    }
}

impl Observed {
    /// The number of the layer's sum among [`Collected::sums`], which a layer without inputs gets
    /// now.
    pub fn sum(&self) -> usize {
        let mut state = lock(&self.state);
        match state.layers[self.layer].sum {
            Some(sum) => sum,
            None => state.begin(self.layer, Hessian::new(self.width), Vec::new()),
        }
    }

    /// Input features.
    pub fn width(&self) -> usize {
        self.width
    }

    /// As layers take it.
    pub fn to_arc(&self) -> Arc<dyn InputObserver> {
        Arc::new(Self {
            state: self.state.clone(),
            ..*self
        })
    }
}

impl InputObserver for Observed {
    fn observe(&self, rows: &Tensor<2>) {
        let values: Vec<f32> = rows.to_data().iter().collect();
        lock(&self.state).see(self.layer, self.width, values);
    }
}

impl State {
    fn see(&mut self, layer: usize, width: usize, values: Vec<f32>) {
        let calls = self.layers[layer].calls;
        match self.layers[layer].sum {
            None => {
                let shared = self.sums.get(self.last).filter(|sum| {
                    sum.calls == 1 && sum.hessian.width() == width && sum.waiting == values
                });
                if shared.is_some() {
                    self.layers[layer].sum = Some(self.last);
                } else {
                    self.last = self.begin(layer, Hessian::new(width), values);
                }
            }
            Some(number) => {
                let sum = &mut self.sums[number];
                if sum.owner == layer {
                    sum.hessian
                        .add(&std::mem::replace(&mut sum.waiting, values));
                    sum.calls += 1;
                    self.last = number;
                } else if sum.waiting != values {
                    // The rows that both have seen until now.
                    let mut hessian = sum.hessian.clone();
                    if sum.calls == calls {
                        hessian.add(&sum.waiting);
                    }
                    self.last = self.begin(layer, hessian, values);
                }
            }
        }
        self.layers[layer].calls += 1;
    }

    /// A sum of a layer's own.
    fn begin(&mut self, layer: usize, hessian: Hessian, waiting: Vec<f32>) -> usize {
        self.sums.push(Sum {
            hessian,
            waiting,
            owner: layer,
            calls: self.layers[layer].calls + 1,
        });
        let number = self.sums.len() - 1;
        self.layers[layer].sum = Some(number);
        number
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What three layers with two inputs each get for the calls `(layer, values)`.
    fn sums(calls: &[(usize, [f32; 2])]) -> (usize, [f32; 3]) {
        let collected = Collected::default();
        let layers = [2, 2, 2].map(|width| collected.observer(width));
        for &(layer, values) in calls {
            lock(&collected.0).see(layer, 2, values.to_vec());
        }
        let numbers = layers.each_ref().map(Observed::sum);
        let sums = collected.sums();
        (sums.len(), numbers.map(|number| sums[number].get(0, 0)))
    }

    #[test]
    fn layers_with_the_same_inputs_share_their_sum_as_long_as_they_have_them() {
        let (a, b, c) = ([1.0, 2.0], [3.0, 4.0], [5.0, 6.0]);
        let same = [(0, a), (1, a), (2, b), (0, b), (1, b), (2, c)];
        assert_eq!(sums(&same), (2, [10.0, 10.0, 34.0]));
        let apart = [(0, a), (1, a), (2, b), (0, b), (1, c), (2, c)];
        assert_eq!(sums(&apart), (3, [10.0, 26.0, 34.0]));
        // One of them is called more often than the other one.
        assert_eq!(sums(&[(0, a), (1, a), (1, b)]), (3, [1.0, 10.0, 0.0]));
    }
}

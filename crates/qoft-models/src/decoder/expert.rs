//! One of the experts of a mixture, and all of them at once.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Tensor;
use qoft_core::kernels::ops::{Activation, GroupedMatmul};
use qoft_core::{Layer, Linear, Result, Walk, ops, walk};

use crate::loader::Loader;

/// What files call the layers of an expert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the usual names")]
#[non_exhaustive]
pub struct ExpertNames {
    pub gate_proj: &'static str,
    pub up_proj: &'static str,
    pub down_proj: &'static str,
}

impl ExpertNames {
    /// The usual ones.
    pub const USUAL: Self = Self {
        gate_proj: "gate_proj",
        up_proj: "up_proj",
        down_proj: "down_proj",
    };
}

/// `down(f(gate(x)) · up(x))` with an activation `f`.
#[derive(Module, Debug)]
pub struct Expert {
    gate: Linear,
    up: Linear,
    down: Linear,
    #[module(skip)]
    names: ExpertNames,
}

impl Expert {
    /// Makes `count` experts of `[inner, hidden]` in the list `experts`. transformers has the weights of
    /// all of them as two parameters below `parameters`, and files may have them so: `gate_up_proj`, `[experts, 2 · inner,
    /// hidden]`, and `down_proj`, `[experts, hidden, inner]`.
    ///
    /// # Errors
    /// If a tensor is missing or does not fit.
    pub fn load_all(
        loader: &Loader,
        count: usize,
        [inner, hidden]: [usize; 2],
        names: &ExpertNames,
        parameters: &str,
    ) -> Result<Vec<Self>> {
        let (both, down) = ("gate_up_proj", "down_proj");
        let [both, down] = [both, down].map(|name| Arc::<str>::from(walk::join(parameters, name)));
        let list = loader.below("experts");
        list.gathered(&both, &[names.gate_proj, names.up_proj]);
        list.gathered(&down, &[names.down_proj]);
        let mut experts = Vec::new();
        for index in 0..count {
            let loader = list.below(index);
            let expert = Self {
                gate: loader.part(names.gate_proj, [inner, hidden], &both)?,
                up: loader.part(names.up_proj, [inner, hidden], &both)?,
                down: loader.part(names.down_proj, [hidden, inner], &down)?,
                names: *names,
            };
            loader.feeds(names.up_proj, 0, &[names.down_proj]);
            experts.push(expert);
        }
        Ok(experts)
    }

    /// Experts on rows that are sorted by them: each on as many of `x`, `[rows, hidden]`, as it is given.
    /// `weights`, `[rows, 1]`, multiply what comes out.
    pub fn forward_all(
        hits: &[(&Self, usize)],
        x: Tensor<2>,
        weights: Tensor<2>,
        activation: Activation,
    ) -> Tensor<2> {
        let plain = hits.iter().all(|(expert, _)| expert.is_plain());
        match hits {
            [] => x,
            [(first, _), ..] if plain => {
                let times = |x, layer: fn(&Self) -> &Linear| {
                    let weight =
                        |&(expert, rows): &(&Self, usize)| (layer(expert).weight().clone(), rows);
                    let groups = hits.iter().map(weight);
                    ops::grouped_matmul(x, GroupedMatmul::new(groups.collect()))
                };
                let gate = times(x.clone(), |expert| &expert.gate);
                let up = times(x, |expert| &expert.up);
                let (gate, weights) = ops::lifted(gate, weights);
                let (up, _) = ops::lifted(up, weights.clone());
                let [gate, up, weights] = [gate, up, weights].map(|x| first.down.keep(x));
                // The same as weights behind the last product, of which nothing has to be kept so.
                let inner = ops::weighted_gated(gate, up, weights, activation);
                times(inner.into_tensor(), |expert| &expert.down)
            }
            _ => one_by_one(hits, x, weights, activation),
        }
    }

    /// Whether nothing but packed products happens in its layers.
    fn is_plain(&self) -> bool {
        let layers = [&self.gate, &self.up, &self.down];
        let plain = |layer: &&Linear| layer.only_multiplies() && layer.bias().is_none();
        layers.iter().all(plain)
    }

    fn forward(&self, x: Tensor<2>, activation: Activation) -> Tensor<2> {
        let [gate, up] = Linear::forward_each([&self.gate, &self.up], x);
        let (gate, up) = ops::lifted(gate, up);
        let [gate, up] = [gate, up].map(|x| self.down.keep(x));
        self.down.forward(ops::gated(gate, up, activation))
    }
}

/// Each expert on its rows.
fn one_by_one(
    hits: &[(&Expert, usize)],
    x: Tensor<2>,
    weights: Tensor<2>,
    activation: Activation,
) -> Tensor<2> {
    let lengths: Vec<usize> = hits.iter().map(|(_, rows)| *rows).collect();
    let parts = hits.iter().zip(split(x, &lengths));
    let mut parts: Vec<Tensor<2>> = parts
        .map(|((expert, _), x)| expert.forward(x, activation))
        .collect();
    // Burn's own operations want all of them on the same device.
    if parts.iter().any(|part| part.device().is_autodiff()) {
        parts = parts.into_iter().map(Tensor::autodiff).collect();
    }
    let (y, weights) = ops::lifted(Tensor::cat(parts, 0), weights);
    y * weights
}

/// Consecutive rows of `x`, of these numbers. By halves: the gradient of a part is as large as what it was
/// taken from, so taking each part from the whole would cost the square of their number.
fn split(x: Tensor<2>, lengths: &[usize]) -> Vec<Tensor<2>> {
    if lengths.len() < 2 {
        return vec![x];
    }
    let (left, right) = lengths.split_at(lengths.len() / 2);
    let [first, second] = [left, right].map(|part| part.iter().sum::<usize>());
    let mut parts = split(x.clone().narrow(0, 0, first), left);
    parts.extend(split(x.narrow(0, first, second), right));
    parts
}

// The paths are those of the files, not the names of fields.
impl Walk for Expert {
    fn walk<'a>(&'a self, path: &str, visit: &mut dyn FnMut(&str, &'a dyn Layer)) {
        let names = self.names;
        self.gate.walk(&walk::join(path, names.gate_proj), visit);
        self.up.walk(&walk::join(path, names.up_proj), visit);
        self.down.walk(&walk::join(path, names.down_proj), visit);
    }

    fn walk_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut dyn Layer)) {
        let names = self.names;
        self.gate
            .walk_mut(&walk::join(path, names.gate_proj), visit);
        self.up.walk_mut(&walk::join(path, names.up_proj), visit);
        self.down
            .walk_mut(&walk::join(path, names.down_proj), visit);
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn parts_are_consecutive_rows() {
        let x = Tensor::<2>::from_data([[1.0], [2.0], [3.0], [4.0], [5.0]], &Device::flex());
        let parts = split(x, &[1, 3, 1]);
        let values = parts
            .into_iter()
            .map(|part| part.into_data().try_into_vec::<f32>().unwrap());
        let values: Vec<Vec<f32>> = values.collect();
        assert_eq!(values, [vec![1.0], vec![2.0, 3.0, 4.0], vec![5.0]]);
    }
}

//! One of the experts of a mixture, and all of them at once.

use burn::module::Module;
use burn::tensor::{Int, Tensor};
use qoft_core::kernels::ops::{Activation, ClampedSwiglu, GroupedMatmul};
use qoft_core::{Layer, Linear, Result, Walk, ops, walk};

use super::mlp::MlpNames;
use crate::loader::{Loader, Part};

/// What experts are like.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ExpertConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width inside an expert.
    pub inner: usize,
    /// What comes before the last layer.
    pub input: ExpertInput,
    /// What files call the layers.
    pub names: MlpNames,
    /// Whether all layers have biases.
    pub bias: bool,
    /// Whether no file has experts one by one.
    pub together: bool,
}

/// The layers of an expert that its input meets.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum ExpertInput {
    /// `f(gate(x)) · up(x)`, two layers.
    Gated(Activation),
    /// One layer, whose outputs are a gate and what it lets through by turns. Files have the weights of all
    /// experts in one tensor, dense ones as `[in_features, out_features]`.
    Alternating(ClampedSwiglu),
}

/// `down(f(gate(x)) · up(x))` with an activation `f`.
#[derive(Module, Debug)]
pub struct Expert {
    gate: Option<Linear>,
    up: Option<Linear>,
    gate_up: Option<Linear>,
    down: Linear,
    #[module(skip)]
    names: MlpNames,
    #[module(skip)]
    input: ExpertInput,
}

/// What transformers calls the parameter of gates and what they let through, of all experts.
const BOTH: &str = "gate_up_proj";
/// What it calls that of the last layers.
const DOWN: &str = "down_proj";

impl Expert {
    /// Makes `count` experts in the list `experts`. transformers has the weights of all of them as two
    /// parameters below `parameters`, and files may have them so: `gate_up_proj`, `[experts, 2 · inner,
    /// hidden]`, and `down_proj`, `[experts, hidden, inner]`.
    ///
    /// # Errors
    /// If a tensor is missing or does not fit.
    pub fn load_all(
        loader: &Loader,
        count: usize,
        config: &ExpertConfig,
        parameters: &str,
    ) -> Result<Vec<Self>> {
        let (names, [inner, hidden]) = (&config.names, [config.inner, config.hidden]);
        let alternates = matches!(config.input, ExpertInput::Alternating(_));
        let [both, down] = [BOTH, DOWN].map(|name| {
            let part = Part::of(walk::join(parameters, name)).with_bias(config.bias);
            match alternates {
                true => part.fan_in_fan_out(),
                false => part,
            }
        });
        let list = loader.below("experts");
        let inputs: &[&str] = match alternates {
            true => &[BOTH],
            false => &[names.gate_proj, names.up_proj],
        };
        list.gathered(both.name(), inputs, config.together);
        list.gathered(down.name(), &[names.down_proj], config.together);
        let mut experts = Vec::new();
        for index in 0..count {
            let loader = list.below(index);
            let input = |wanted: bool, name: &str, out: usize| {
                let load = || loader.part(name, [out, hidden], &both);
                wanted.then(load).transpose()
            };
            let expert = Self {
                gate: input(!alternates, names.gate_proj, inner)?,
                up: input(!alternates, names.up_proj, inner)?,
                gate_up: input(alternates, BOTH, 2 * inner)?,
                down: loader.part(names.down_proj, [hidden, inner], &down)?,
                names: *names,
                input: config.input,
            };
            if !alternates {
                loader.feeds(names.up_proj, 0, &[names.down_proj]);
            }
            experts.push(expert);
        }
        Ok(experts)
    }

    /// Experts on rows that are sorted by them: each on as many of `x`, `[rows, hidden]`, as it is given.
    /// `weights`, `[rows, 1]`, multiply what comes out.
    pub fn forward_all(hits: &[(&Self, usize)], x: Tensor<2>, weights: Tensor<2>) -> Tensor<2> {
        let plain = hits.iter().all(|(expert, _)| expert.is_plain());
        match hits {
            [] => x,
            [(first, _), ..] if plain => {
                let keep = |x| first.down.keep(x);
                match first.input {
                    ExpertInput::Gated(activation) if first.down.bias().is_none() => {
                        let gate = times(hits, x.clone(), Self::gate);
                        let up = times(hits, x, Self::up);
                        let (gate, weights) = ops::lifted(gate, weights);
                        let (up, _) = ops::lifted(up, weights.clone());
                        let [gate, up, weights] = [gate, up, weights].map(keep);
                        // The same as weights behind the last product, of which nothing has to be
                        // kept so.
                        let inner = ops::weighted_gated(gate, up, weights, activation);
                        times(hits, inner.into_tensor(), Self::down)
                    }
                    ExpertInput::Gated(activation) => {
                        let gate = times(hits, x.clone(), Self::gate);
                        let (gate, up) = ops::lifted(gate, times(hits, x, Self::up));
                        let [gate, up] = [gate, up].map(keep);
                        weighted(
                            times(
                                hits,
                                ops::gated(gate, up, activation).into_tensor(),
                                Self::down,
                            ),
                            weights,
                        )
                    }
                    ExpertInput::Alternating(op) => {
                        let inner = ops::clamped_swiglu(keep(times(hits, x, Self::gate_up)), op);
                        weighted(times(hits, inner.into_tensor(), Self::down), weights)
                    }
                }
            }
            _ => one_by_one(hits, x, weights),
        }
    }

    fn gate(&self) -> &Linear {
        self.gate.as_ref().expect("a layer of gates")
    }

    fn up(&self) -> &Linear {
        self.up.as_ref().expect("a layer beside that of gates")
    }

    fn gate_up(&self) -> &Linear {
        self.gate_up.as_ref().expect("one layer for both")
    }

    fn down(&self) -> &Linear {
        &self.down
    }

    /// Whether nothing but packed products happens in its layers, and perhaps biases are added.
    fn is_plain(&self) -> bool {
        let inputs = [&self.gate, &self.up, &self.gate_up].into_iter().flatten();
        inputs
            .chain([&self.down])
            .all(|layer| layer.only_multiplies())
    }

    /// Whether there are adapters in its layers, active or not.
    pub fn has_adapters(&self) -> bool {
        let inputs = [&self.gate, &self.up, &self.gate_up].into_iter().flatten();
        inputs
            .chain([&self.down])
            .any(|layer| !layer.adapters().slots().is_empty())
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let inner = match self.input {
            ExpertInput::Gated(activation) => {
                let [gate, up] = Linear::forward_each([self.gate(), self.up()], x);
                let (gate, up) = ops::lifted(gate, up);
                let [gate, up] = [gate, up].map(|x| self.down.keep(x));
                ops::gated(gate, up, activation)
            }
            ExpertInput::Alternating(op) => {
                let both = self.gate_up().forward(x);
                ops::clamped_swiglu(self.down.keep(both), op)
            }
        };
        self.down.forward(inner)
    }
}

/// Each group of rows by the weight that a layer of its expert has, with the bias, if it has one.
fn times(hits: &[(&Expert, usize)], x: Tensor<2>, layer: fn(&Expert) -> &Linear) -> Tensor<2> {
    let weight = |&(expert, rows): &(&Expert, usize)| (layer(expert).weight().clone(), rows);
    let groups = hits.iter().map(weight);
    let y = ops::grouped_matmul(x, GroupedMatmul::new(groups.collect()));
    let biases = hits
        .iter()
        .map(|(expert, _)| layer(expert).computing_bias());
    let Some(biases) = biases.collect::<Option<Vec<Tensor<1>>>>() else {
        return y;
    };
    let of_rows = (0..).zip(hits);
    let of_rows = of_rows.flat_map(|(index, (_, rows))| std::iter::repeat_n(index, *rows));
    let of_rows: Vec<i32> = of_rows.collect();
    let biases = biases.into_iter().map(Tensor::unsqueeze::<2>).collect();
    let biases = Tensor::cat(alike(biases), 0);
    let device = y.device().without_autodiff();
    let of_rows = Tensor::<1, Int>::from_data(of_rows.as_slice(), &device);
    let (y, biases) = ops::lifted(y, biases.select(0, of_rows));
    y + biases
}

fn weighted(y: Tensor<2>, weights: Tensor<2>) -> Tensor<2> {
    let (y, weights) = ops::lifted(y, weights);
    y * weights
}

/// All of them on an autodiff device if one of them is: Burn's own operations want them alike.
fn alike(tensors: Vec<Tensor<2>>) -> Vec<Tensor<2>> {
    match tensors.iter().any(|tensor| tensor.device().is_autodiff()) {
        true => tensors.into_iter().map(Tensor::autodiff).collect(),
        false => tensors,
    }
}

/// Each expert on its rows.
fn one_by_one(hits: &[(&Expert, usize)], x: Tensor<2>, weights: Tensor<2>) -> Tensor<2> {
    let lengths: Vec<usize> = hits.iter().map(|(_, rows)| *rows).collect();
    let parts = hits.iter().zip(split(x, &lengths));
    let parts = parts.map(|((expert, _), x)| expert.forward(x)).collect();
    weighted(Tensor::cat(alike(parts), 0), weights)
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
        self.gate_up.walk(&walk::join(path, BOTH), visit);
        self.down.walk(&walk::join(path, names.down_proj), visit);
    }

    fn walk_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut dyn Layer)) {
        let names = self.names;
        self.gate
            .walk_mut(&walk::join(path, names.gate_proj), visit);
        self.up.walk_mut(&walk::join(path, names.up_proj), visit);
        self.gate_up.walk_mut(&walk::join(path, BOTH), visit);
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

//! Queries that grow with their position.

use burn::tensor::{Tensor, TensorData};

use crate::positions::Positions;

/// At position `p` queries are multiplied by `1 + beta · ln(1 + floor(p / length))`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct QueryGrowth {
    /// How fast they grow.
    pub beta: f64,
    /// Before this position they do not.
    pub length: usize,
}

impl QueryGrowth {
    /// From a position on, which is not 0.
    pub fn new(beta: f64, length: usize) -> Self {
        Self { beta, length }
    }

    /// Queries, `[batch, time, heads, head_dim]`, at their positions.
    pub fn apply(&self, x: Tensor<4>, positions: &Positions) -> Tensor<4> {
        if positions
            .sequences()
            .iter()
            .all(|range| range.end <= self.length)
        {
            return x;
        }
        let factor = |position| {
            let times = (position / self.length) as f64;
            (1.0 + self.beta * times.ln_1p()) as f32
        };
        let factors: Vec<f32> = positions.iter().map(factor).collect();
        let shape = [1, factors.len(), 1, 1];
        let factors = TensorData::new(factors, shape);
        let factors = Tensor::from_data(factors, &x.device());
        x * factors
    }
}

//! A product of Householder reflections.

use burn::tensor::Tensor;
use qoft_core::ops::{self, Traced};
use qoft_core::{AdapterParam, Composition, OftAdapter, Pass};

/// The weight `W` becomes `W · H₁ · H₂ …` with `H = I − 2·u·uᵀ` for each column `u` of `hra_u`,
/// scaled to length 1. With `apply_gs` the columns are made orthogonal to each other before.
///
/// Reflections are their own inverses, so the input is turned by `… H₂ · H₁`.
#[derive(Debug, Clone)]
pub struct HraRotation {
    vectors: AdapterParam,
    apply_gs: bool,
}

impl HraRotation {
    /// Name of the parameters below a layer, as PEFT saves them.
    pub const PARAM: &'static str = "hra_u";

    /// Reflections along the columns of `vectors`, `[features, r]`.
    pub fn new(vectors: AdapterParam, apply_gs: bool) -> Self {
        Self { vectors, apply_gs }
    }

    /// The unit vectors, each `[features]`.
    fn units(&self) -> Vec<Tensor<1>> {
        let vectors = self.vectors.tensor::<2>();
        let [features, count] = vectors.dims();
        let column = |at| vectors.clone().narrow(1, at, 1).reshape([features]);
        let mut units: Vec<Tensor<1>> = Vec::new();
        for mut column in (0..count).map(column) {
            let before = if self.apply_gs { units.as_slice() } else { &[] };
            for unit in before {
                let along = (unit.clone() * column.clone()).sum();
                column = column - unit.clone() * along;
            }
            let length = column.clone().square().sum().sqrt();
            units.push(column / length);
        }
        units
    }
}

/// `rows` reflected along the units, one after another.
///
/// Both shapes of a unit are views of the same vector, so that its gradients come in one layout,
/// whichever comes first: sums of floats depend on it.
fn reflect(rows: Tensor<2>, units: impl Iterator<Item = Tensor<1>>) -> Tensor<2> {
    units.fold(rows, |rows, unit| {
        let (rows, unit) = ops::lifted(rows, unit);
        let features = rows.dims()[1];
        let along = rows.clone().matmul(unit.clone().reshape([features, 1]));
        rows - along.matmul(unit.reshape([1, features])) * 2.0
    })
}

impl OftAdapter for HraRotation {
    fn forward(&self, x: Traced<2>, _: Pass) -> Tensor<2> {
        reflect(x.into_tensor(), self.units().into_iter().rev())
    }

    fn rotate_weight(&self, weight: Tensor<2>, _: Pass) -> Tensor<2> {
        reflect(weight, self.units().into_iter())
    }

    /// `W · D₁ · D₂` for the product of reflections of each adapter: the last one meets the input
    /// first.
    fn composition(&self) -> Composition {
        Composition::NextToInput
    }

    fn params(&self) -> Vec<&AdapterParam> {
        vec![&self.vectors]
    }

    fn params_mut(&mut self) -> Vec<&mut AdapterParam> {
        vec![&mut self.vectors]
    }

    fn boxed_clone(&self) -> Box<dyn OftAdapter> {
        Box::new(self.clone())
    }
}

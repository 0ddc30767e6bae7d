//! The rotation of BOFT, and its scales of the output.

use burn::tensor::{Int, Tensor, TensorData};
use qoft_core::kernels::ops::{Cayley, CayleyMap};
use qoft_core::ops::{self, Traced};
use qoft_core::{AdapterParam, Composition, OftAdapter, OutputSide, Pass, Random};

use crate::butterfly::Butterfly;

/// `y = scales ∘ (x · B₍ₙ₋₁₎ · … · B₀ · Wᵀ)`, see [`Butterfly`]. Each block is the Cayley map of the
/// skew-symmetric half of its parameters: `(I − S)(I + S)⁻¹` with `S = (Q − Qᵀ) / 2`.
#[derive(Debug, Clone)]
pub struct BoftRotation {
    butterfly: Butterfly,
    /// `[factors, blocks, size, size]`
    blocks: AdapterParam,
    /// One for each feature of the output.
    scales: AdapterParam,
    /// Share of the blocks of a factor that training replaces by the identity.
    dropout: f64,
    strength: f64,
}

impl BoftRotation {
    /// Name of the blocks below a layer, as PEFT saves them.
    pub const BLOCKS: &'static str = "boft_R";
    /// Name of the scales.
    pub const SCALES: &'static str = "boft_s";

    /// The rotation with these blocks, `[factors, blocks, size, size]`, and scales of the output.
    pub fn new(butterfly: Butterfly, blocks: AdapterParam, scales: AdapterParam) -> Self {
        Self {
            butterfly,
            blocks,
            scales,
            dropout: 0.0,
            strength: 1.0,
        }
    }

    /// The same with multiplicative dropout: in each pass of training one of the factors, chosen at
    /// random, has this share of its blocks replaced by the identity.
    #[must_use]
    pub fn with_dropout(self, share: f64) -> Self {
        Self {
            dropout: share,
            ..self
        }
    }

    /// The same of so many times the parameters, and with scales so many times as far from 1.
    #[must_use]
    pub fn with_strength(self, strength: f64) -> Self {
        Self { strength, ..self }
    }

    /// The blocks of each factor, `[blocks, size, size]`.
    fn factors(&self, pass: Pass) -> Vec<Tensor<3>> {
        let Butterfly {
            factors,
            blocks,
            size,
        } = self.butterfly;
        let orthogonal = self.orthogonal();
        let dropped = (self.dropout * blocks as f64).floor() as usize;
        let mut random = match dropped {
            0 => None,
            _ => pass.draw().map(|draw| draw.random(self.blocks.id())),
        };
        let chosen = random.as_mut().map(|random| random.below(factors));
        (0..factors)
            .map(|factor| {
                let part = orthogonal.clone().narrow(0, factor * blocks, blocks);
                match &mut random {
                    Some(random) if chosen == Some(factor) => {
                        drop_blocks(part, dropped, size, random)
                    }
                    _ => part,
                }
            })
            .collect()
    }

    /// All blocks after the Cayley map, `[factors · blocks, size, size]`.
    fn orthogonal(&self) -> Tensor<3> {
        let Butterfly {
            factors,
            blocks,
            size,
        } = self.butterfly;
        let all = factors * blocks;
        let parameters = self.blocks.tensor::<4>().reshape([all, size, size]);
        if size == 1 {
            // A skew-symmetric matrix of one value is 0.
            return parameters.zeros_like() + 1.0;
        }
        let skew = parameters.clone() - parameters.swap_dims(1, 2);
        let skew = skew * (0.5 * self.strength);
        let above: Vec<i32> = (0..size * size)
            .filter(|at| at % size > at / size)
            .map(|at| at as i32)
            .collect();
        let device = skew.device().without_autodiff();
        let above = Tensor::<1, Int>::from_data(above.as_slice(), &device);
        let pairs = skew.reshape([all, size * size]).select(1, above);
        ops::cayley(pairs, Cayley::new(CayleyMap::Exact, size))
    }

    /// `rows · B₍ₙ₋₁₎ · … · B₀`.
    fn turn(&self, rows: Traced<2>, factors: Vec<Tensor<3>>) -> Tensor<2> {
        if let [blocks] = &factors[..] {
            // The product sees what others know of the rows, which are in their order.
            return ops::rotate(rows, blocks.clone());
        }
        let (format, factors) = (rows.format(), factors.into_iter().enumerate().rev());
        factors.fold(rows.into_tensor(), |rows, (factor, blocks)| {
            let rows = Traced::from(self.butterfly.gather(rows, factor)).kept_in(format);
            self.butterfly.scatter(ops::rotate(rows, blocks), factor)
        })
    }

    /// `[out_features]`
    fn scales(&self) -> Tensor<1> {
        let scales = self.scales.tensor::<2>().flatten(0, 1);
        match self.strength {
            1.0 => scales,
            strength => (scales - 1.0) * strength + 1.0,
        }
    }
}

/// Replaces so many blocks by the identity.
fn drop_blocks(blocks: Tensor<3>, dropped: usize, size: usize, random: &mut Random) -> Tensor<3> {
    let (count, device) = (blocks.dims()[0], blocks.device());
    let mut kept = vec![1.0f32; count];
    kept[..dropped].fill(0.0);
    random.shuffle(&mut kept);
    let kept = Tensor::<3>::from_data(TensorData::new(kept, [count, 1, 1]), &device);
    let identity = Tensor::<2>::eye(size, &device).unsqueeze::<3>();
    (blocks - identity.clone()) * kept + identity
}

impl OftAdapter for BoftRotation {
    fn forward(&self, x: Traced<2>, pass: Pass) -> Tensor<2> {
        self.turn(x, self.factors(pass))
    }

    fn output_side(&self) -> Option<&dyn OutputSide> {
        Some(self)
    }

    fn rotate_weight(&self, weight: Tensor<2>, pass: Pass) -> Tensor<2> {
        let factors = self.factors(pass).into_iter().enumerate();
        let weight = factors.fold(weight, |rows, (factor, blocks)| {
            let rows = self.butterfly.gather(rows, factor);
            let rows = ops::rotate(rows, blocks.swap_dims(1, 2));
            self.butterfly.scatter(rows, factor)
        });
        let (weight, scales) = ops::lifted(weight, self.scales());
        weight * scales.unsqueeze_dim(1)
    }

    fn unrotate_weight(&self, weight: Tensor<2>) -> Option<Tensor<2>> {
        let scales = self.scales();
        if scales.to_data().iter::<f32>().any(|scale| scale == 0.0) {
            return None;
        }
        let (weight, scales) = ops::lifted(weight, scales);
        let rows = weight / scales.unsqueeze_dim(1);
        Some(self.turn(rows.into(), self.factors(Pass::EVALUATION)))
    }

    /// PEFT multiplies the butterfly of a later adapter to the left of the others.
    fn composition(&self) -> Composition {
        Composition::NextToInput
    }

    fn params(&self) -> Vec<&AdapterParam> {
        vec![&self.blocks, &self.scales]
    }

    fn params_mut(&mut self) -> Vec<&mut AdapterParam> {
        vec![&mut self.blocks, &mut self.scales]
    }

    fn boxed_clone(&self) -> Box<dyn OftAdapter> {
        Box::new(self.clone())
    }
}

impl OutputSide for BoftRotation {
    fn output(&self, y: Tensor<2>) -> Tensor<2> {
        let (y, scales) = ops::lifted(y, self.scales());
        y * scales.unsqueeze()
    }
}

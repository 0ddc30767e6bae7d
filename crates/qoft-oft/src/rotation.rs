//! The block-diagonal rotation of OFT.

use std::sync::OnceLock;

use burn::module::ParamId;
use burn::tensor::{Device, Tensor, TensorData};
use qoft_core::kernels::ops::{Cayley, CayleyMap, coft_project, pairs};

use super::config::OftConfig;
use super::inverse::inverse_of;
use qoft_core::ops::{self, Traced};
use qoft_core::{AdapterParam, Composition, LayerKind, OftAdapter, Pass, Random};

/// Sizes and options of one layer's rotation.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct RotationSettings {
    /// Number of blocks that are stored: all, or 1 when they share one.
    pub stored: usize,
    /// Size of a block.
    pub size: usize,
    /// Map from parameters to rotations.
    pub map: CayleyMap,
    /// `eps` of constrained OFT.
    pub coft_eps: Option<f64>,
    /// Share of blocks that a training step replaces by the identity.
    pub dropout: f64,
    /// The rotation is that of so many times the parameters.
    pub strength: f64,
}

impl RotationSettings {
    /// The settings for a layer with so many input features.
    pub fn new(config: &OftConfig, in_features: usize) -> Self {
        let (blocks, size) = if config.r == 0 {
            let size = nearest_divisor(in_features, config.oft_block_size);
            (in_features / size, size)
        } else {
            let blocks = nearest_divisor(in_features, config.r);
            (blocks, in_features / blocks)
        };
        Self {
            stored: if config.block_share { 1 } else { blocks },
            size,
            map: config.cayley_map(),
            coft_eps: config.coft.then_some(config.eps),
            dropout: config.module_dropout,
            strength: 1.0,
        }
    }

    /// Shape of the stored parameters.
    pub fn shape(&self) -> [usize; 2] {
        [self.stored, pairs(self.size)]
    }

    fn cayley(&self) -> Cayley {
        Cayley::new(self.map, self.size)
            .with_coft_eps(self.coft_eps.map(|eps| eps * self.strength.abs()))
    }
}

/// The divisor of `n` next to `wanted`; of two equally near ones the smaller, and `n` itself for
/// anything larger.
pub fn nearest_divisor(n: usize, wanted: usize) -> usize {
    if wanted >= n {
        return n;
    }
    let wanted = wanted.max(1);
    let up = (wanted..=n).find(|d| n.is_multiple_of(*d)).unwrap_or(n);
    let down = (1..=wanted)
        .rev()
        .find(|d| n.is_multiple_of(*d))
        .unwrap_or(1);
    if wanted - down <= up - wanted {
        down
    } else {
        up
    }
}

/// `x · blockdiag(R₁, …, R_r)`, each R made from the strict upper triangle of a skew-symmetric
/// matrix.
#[derive(Debug, Clone)]
pub struct OftRotation {
    weight: AdapterParam,
    settings: RotationSettings,
    /// The blocks of parameters that do not train: text is written token by token, all with the same ones.
    made: OnceLock<Tensor<3>>,
}

impl OftRotation {
    /// Name of the parameters below a layer, as PEFT saves them.
    pub const PARAM: &'static str = "oft_R.weight";
    /// As [`Self::PARAM`], below an embedding.
    pub const EMBEDDING_PARAM: &'static str = "oft_embedding_R.weight";

    /// Name of the parameters below a layer of this kind.
    pub fn param_name(kind: LayerKind) -> &'static str {
        match kind {
            LayerKind::Embedding => Self::EMBEDDING_PARAM,
            _ => Self::PARAM,
        }
    }

    /// A rotation of a linear layer with the given values, `settings.shape()` of them.
    ///
    /// `id` identifies the parameters to optimizers and their saved states.
    pub fn new(settings: RotationSettings, values: Vec<f32>, id: ParamId, device: &Device) -> Self {
        let shape = settings.shape();
        let weight = AdapterParam::new(Self::PARAM, shape, values, id, device);
        Self::with_param(settings, weight)
    }

    /// As [`Self::new`], from parameters of the shape `settings.shape()`.
    pub fn with_param(settings: RotationSettings, weight: AdapterParam) -> Self {
        Self {
            weight,
            settings,
            made: OnceLock::new(),
        }
    }

    /// Sizes and options.
    pub fn settings(&self) -> &RotationSettings {
        &self.settings
    }

    /// The rotations, `[stored, size, size]`, without dropout.
    pub fn blocks(&self) -> Tensor<3> {
        match self.weight.device().is_autodiff() {
            true => self.make_blocks(),
            false => self.made.get_or_init(|| self.make_blocks()).clone(),
        }
    }

    fn make_blocks(&self) -> Tensor<3> {
        let weight = self.weight.tensor();
        let weight = match self.settings.strength {
            1.0 => weight,
            strength => weight * strength,
        };
        ops::cayley(weight, self.settings.cayley())
    }

    /// As [`Self::blocks`], with dropout in training.
    fn blocks_in(&self, pass: Pass) -> Tensor<3> {
        let blocks = self.blocks();
        let dropped = (self.settings.dropout * self.settings.stored as f64).floor() as usize;
        if dropped == 0 || self.settings.stored == 1 {
            return blocks;
        }
        match pass.draw() {
            Some(draw) => self.drop_blocks(blocks, dropped, draw.random(self.weight.id())),
            None => blocks,
        }
    }

    /// The inverses of [`Self::blocks`], which the series of the Cayley map makes only nearly
    /// orthogonal.
    fn inverse_blocks(&self) -> Option<Tensor<3>> {
        let blocks = self.blocks().inner();
        let ([stored, size, _], device) = (blocks.dims(), blocks.device());
        let values = blocks.into_data().try_into_vec::<f32>().ok()?;
        let inverses = values.chunks_exact(size * size);
        let inverses: Option<Vec<Vec<f32>>> =
            inverses.map(|block| inverse_of(block, size)).collect();
        let data = TensorData::new(inverses?.concat(), [stored, size, size]);
        Some(Tensor::from_data(data, &device))
    }

    /// Replaces so many blocks by the identity.
    fn drop_blocks(&self, blocks: Tensor<3>, dropped: usize, mut random: Random) -> Tensor<3> {
        let RotationSettings { stored, size, .. } = self.settings;
        let mut mask = vec![1.0f32; stored];
        mask[..dropped].fill(0.0);
        random.shuffle(&mut mask);
        let device = blocks.device();
        let mask = Tensor::<3>::from_data(TensorData::new(mask, [stored, 1, 1]), &device);
        let identity = Tensor::<2>::eye(size, &device).unsqueeze::<3>();
        (blocks - identity.clone()) * mask + identity
    }
}

/// Random parameters for `init_weights: false`: normal, with standard deviation 0.1.
pub(super) fn random_values(count: usize, mut random: Random) -> Vec<f32> {
    (0..count).map(|_| (0.1 * random.normal()) as f32).collect()
}

impl OftAdapter for OftRotation {
    fn forward(&self, x: Traced<2>, pass: Pass) -> Tensor<2> {
        ops::rotate(x, self.blocks_in(pass))
    }

    fn rotate_weight(&self, weight: Tensor<2>, pass: Pass) -> Tensor<2> {
        ops::rotate(weight, self.blocks_in(pass).swap_dims(1, 2))
    }

    fn composition(&self) -> Composition {
        Composition::NextToWeight
    }

    fn unrotate(&self, rows: Tensor<2>) -> Option<Tensor<2>> {
        Some(ops::rotate(rows, self.inverse_blocks()?))
    }

    fn unrotate_weight(&self, rows: Tensor<2>) -> Option<Tensor<2>> {
        let blocks = self.inverse_blocks()?.swap_dims(1, 2);
        Some(ops::rotate(rows, blocks))
    }

    fn orthogonality_error(&self) -> f64 {
        let blocks = self.blocks().inner();
        let [count, size, _] = blocks.dims();
        let identity = Tensor::<2>::eye(size, &blocks.device()).unsqueeze::<3>();
        let off = blocks.clone().swap_dims(1, 2).matmul(blocks) - identity;
        let squares = off.square().reshape([count, size * size]).sum_dim(1);
        let worst = squares.max().into_data().iter::<f64>().next();
        worst.unwrap_or(0.0).sqrt()
    }

    fn params(&self) -> Vec<&AdapterParam> {
        vec![&self.weight]
    }

    fn params_mut(&mut self) -> Vec<&mut AdapterParam> {
        self.made = OnceLock::new();
        vec![&mut self.weight]
    }

    fn constrain(&mut self) {
        if let Some(eps) = self.settings.coft_eps {
            let mut values = self.weight.to_vec();
            coft_project(&mut values, self.settings.stored, eps);
            self.weight.set(values);
            self.made = OnceLock::new();
        }
    }

    fn boxed_clone(&self) -> Box<dyn OftAdapter> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qoft_core::Draw;

    fn rotation(dropout: f64, device: &Device) -> OftRotation {
        let config = OftConfig {
            oft_block_size: 4,
            module_dropout: dropout,
            ..OftConfig::default()
        };
        let settings = RotationSettings::new(&config, 32);
        let values = random_values(8 * pairs(4), Random::new(1));
        OftRotation::new(settings, values, ParamId::from(7), device)
    }

    #[test]
    fn sizes_are_adjusted_to_the_nearest_divisor() {
        assert_eq!(nearest_divisor(576, 32), 32);
        assert_eq!(nearest_divisor(100, 32), 25);
        assert_eq!(nearest_divisor(12, 5), 4);
        assert_eq!(nearest_divisor(7, 4), 1);
        assert_eq!(nearest_divisor(7, 5), 7);
        assert_eq!(nearest_divisor(10, 64), 10);
    }

    #[test]
    fn dropout_drops_exactly_its_share_in_training_and_nothing_in_evaluation() {
        let x = Tensor::<2>::ones([1, 32], &Device::flex());
        let kept = |device: &Device, pass| {
            let y = rotation(0.5, device)
                .forward(x.clone().into(), pass)
                .into_data();
            let y = y.try_into_vec::<f32>().unwrap();
            y.chunks(4)
                .filter(|block| block.iter().all(|v| *v == 1.0))
                .count()
        };
        let training = Pass::training(Draw::new(1, 2, 3));
        assert_eq!(kept(&Device::flex().autodiff(), training), 4);
        assert_eq!(kept(&Device::flex(), Pass::EVALUATION), 0);
    }

    #[test]
    fn blocks_are_those_of_the_parameters_that_there_are() {
        let mut rotation = rotation(0.0, &Device::flex());
        let before = rotation.blocks().into_data();
        assert_eq!(rotation.blocks().into_data(), before);
        let copy = rotation.clone();
        rotation.params_mut()[0].set(vec![0.0; 8 * pairs(4)]);
        let identity = Tensor::<2>::eye(4, &Device::flex()).unsqueeze::<3>();
        let identity = identity.repeat_dim(0, 8).into_data();
        assert_eq!(rotation.blocks().into_data(), identity);
        assert_eq!(copy.blocks().into_data(), before);
    }

    #[test]
    fn gradients_reach_the_parameters() {
        let rotation = rotation(0.0, &Device::flex().autodiff());
        let x = Tensor::<2>::ones([3, 32], &Device::flex());
        let grads = rotation
            .forward(x.clone().into(), Pass::EVALUATION)
            .mul(x.cumsum(1))
            .sum()
            .backward();
        let grad = rotation.weight.gradient(&grads).expect("a gradient");
        assert!(grad.abs().sum().into_scalar::<f32>() > 0.1);
    }
}

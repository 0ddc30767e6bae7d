//! Muon for matrices that optimizers see as lists.

use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{
    AdjustLrFn, LearningRate, Muon, MuonConfig, MuonState, Optimizer, RecordState, StateSink,
    StateSource,
};
use burn::tensor::{Device, Tensor};

/// Muon for the matrices of one shape.
///
/// A step is an orthogonal matrix times `0.2 · sqrt(max(rows, columns))`, so that its numbers are about as
/// large as AdamW's (`match_rms_adamw` of `torch.optim.Muon`): both take the same learning rates.
#[derive(Clone)]
pub(super) struct MatrixMuon {
    muon: Muon,
    shape: [usize; 2],
}

impl MatrixMuon {
    /// With the momentum of torch.
    pub(super) fn new(shape: [usize; 2], weight_decay: f32) -> Self {
        let momentum = MomentumConfig {
            momentum: 0.95,
            dampening: 0.0,
            nesterov: true,
        };
        let decay = (weight_decay > 0.0).then(|| WeightDecayConfig::new(weight_decay));
        let muon = MuonConfig::new()
            .with_momentum(momentum)
            .with_weight_decay(decay)
            .with_adjust_lr_fn(AdjustLrFn::MatchRmsAdamW);
        Self {
            muon: muon.build(),
            shape,
        }
    }
}

/// What Muon remembers of the gradients of a matrix, as a list.
#[derive(Clone)]
pub(super) struct Velocity<const D: usize>(Option<MuonState<2>>);

impl Optimizer for MatrixMuon {
    type State<const D: usize> = Velocity<D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<D>, Option<Self::State<D>>) {
        let dims = tensor.dims();
        let matrix = tensor.reshape(self.shape);
        let state = state.and_then(|state| state.0);
        let (matrix, state) = self.muon.step(lr, matrix, grad.reshape(self.shape), state);
        (matrix.reshape(dims), Some(Velocity(state)))
    }

    fn to_device<const D: usize>(state: Self::State<D>, device: &Device) -> Self::State<D> {
        Velocity(state.0.map(|state| Muon::to_device(state, device)))
    }
}

impl<const D: usize> RecordState for Velocity<D> {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        if let Some(state) = &self.0 {
            state.state_flatten(prefix, out);
        }
    }

    fn state_unflatten(prefix: &str, src: &mut StateSource, device: &Device) -> Option<Self> {
        MuonState::state_unflatten(prefix, src, device).map(|state| Self(Some(state)))
    }
}

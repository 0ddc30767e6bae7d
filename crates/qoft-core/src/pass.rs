//! What an adapter has to know of the pass that it computes in.

use burn::module::ParamId;

use crate::random::Random;

/// A place in a training run, from which everything follows that is random in a pass: whoever
/// comes to this place again draws the same, in a second pass of gradient checkpointing as in a run
/// that goes on from a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Draw {
    /// The seed of the run.
    pub seed: u64,
    /// The step, from 0 on.
    pub step: u64,
    /// The micro-batch of the step, from 0 on.
    pub batch: u64,
}

impl Draw {
    /// The micro-batch `batch` of the step `step`, both from 0 on, in a run with `seed`.
    pub fn new(seed: u64, step: usize, batch: usize) -> Self {
        let [step, batch] = [step, batch].map(|count| count as u64);
        Self { seed, step, batch }
    }

    /// The random numbers of a parameter at this place.
    pub fn random(self, param: ParamId) -> Random {
        Random::keyed(&[self.seed, self.step, self.batch, param.val()])
    }
}

/// A pass through a layer: of training, or any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass(State);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Evaluation,
    Training(Draw),
    /// Of training, but nobody said where in the run.
    Unknown,
}

impl Pass {
    /// A pass in which an adapter computes with all that it has.
    pub const EVALUATION: Self = Self(State::Evaluation);

    /// A pass of training, in which an adapter may leave out parts at random.
    pub fn training(draw: Draw) -> Self {
        Self(State::Training(draw))
    }

    pub(crate) fn training_at(draw: Option<Draw>) -> Self {
        Self(draw.map_or(State::Unknown, State::Training))
    }

    /// Where in the run the pass is, if it is one of training: for adapters that draw something.
    ///
    /// # Panics
    /// If the model was not told, by [`adapters::begin`](crate::adapters::begin): parts that are left
    /// out would be the same in each step.
    pub fn draw(self) -> Option<Draw> {
        match self.0 {
            State::Evaluation => None,
            State::Training(draw) => Some(draw),
            State::Unknown => panic!(
                "an adapter with dropout trains, but does not know the step: call \
                 `adapters::begin(&mut model, Draw::new(seed, step, batch))` before each pass"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_of_a_run_always_draws_the_same() {
        let first = |draw: Draw, param| draw.random(ParamId::from(param)).next_u64();
        let here = first(Draw::new(1, 2, 3), 4);
        assert_eq!(first(Draw::new(1, 2, 3), 4), here);
        let others = [
            (Draw::new(0, 2, 3), 4),
            (Draw::new(1, 0, 3), 4),
            (Draw::new(1, 2, 0), 4),
            (Draw::new(1, 2, 3), 0),
        ];
        for (draw, param) in others {
            assert_ne!(first(draw, param), here);
        }
    }

    #[test]
    #[should_panic(expected = "adapters::begin")]
    fn dropout_without_a_place_is_refused() {
        assert_eq!(Pass::EVALUATION.draw(), None);
        let draw = Draw::new(1, 2, 3);
        assert_eq!(Pass::training(draw).draw(), Some(draw));
        Pass::training_at(None).draw();
    }
}

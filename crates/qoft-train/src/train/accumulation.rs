//! The losses and gradients of a step, from micro-batches that are dealt out to processes.

use burn::module::ParamId;
use burn::tensor::Device;
use qoft_core::Walk;

use super::gradients::StepGradients;
use crate::error::TrainError;
use crate::group::{Group, GroupError, OrderedSum, Reader, Words};
use crate::metrics::{BatchLoss, Metrics};

/// What a micro-batch came to.
pub(super) type Found = (BatchLoss<f64>, StepGradients);

/// The sum of the gradients of a step. Micro-batches are added in their order, whoever computes them, so
/// that the sum has the same bits with any number of processes.
pub(super) enum Accumulation<'a> {
    /// One process has all of them.
    Here(StepGradients),
    /// Each process has some.
    Among(Box<Shared<'a>>),
}

/// The gradients of several processes.
pub(super) struct Shared<'a> {
    group: &'a dyn Group,
    /// The parameters that train, and how many values each has.
    params: Vec<(ParamId, usize)>,
    sum: OrderedSum<'a>,
    device: Device,
    /// The step before, and the norm of its gradients, if there was one.
    before: (usize, f64),
}

impl<'a> Accumulation<'a> {
    /// Nothing yet. `before` is the number of the last step and the norm of its gradients, by which it is
    /// seen whether all processes compute the same.
    pub(super) fn new(
        group: &'a dyn Group,
        model: &impl Walk,
        device: &Device,
        before: (usize, f64),
    ) -> Self {
        if group.size() == 1 {
            return Self::Here(StepGradients::default());
        }
        let mut params = Vec::new();
        for (_, layer) in model.layers() {
            let slots = layer.adapters().slots().iter();
            let all = slots.flat_map(|slot| slot.params());
            let trained = all.filter(|param| param.trains());
            params.extend(trained.map(|param| (param.id(), param.len())));
        }
        let lengths = params.iter().map(|(_, length)| *length).collect();
        Self::Among(Box::new(Shared {
            group,
            sum: OrderedSum::new(group, lengths),
            params,
            device: device.clone(),
            before,
        }))
    }

    /// Adds a round: the micro-batch of each rank, of which `own` is this one's, if it has one in which
    /// something is learned. Returns what all of them came to, in their order.
    pub(super) fn round(&mut self, own: Option<Found>) -> Result<Vec<BatchLoss<f64>>, TrainError> {
        match self {
            Self::Here(sum) => Ok(own
                .into_iter()
                .map(|(loss, gradients)| {
                    sum.merge(gradients);
                    loss
                })
                .collect()),
            Self::Among(shared) => shared.round(own),
        }
    }

    /// The sum of all gradients.
    pub(super) fn finish(self) -> Result<StepGradients, TrainError> {
        match self {
            Self::Here(sum) => Ok(sum),
            Self::Among(shared) => {
                let Shared {
                    sum,
                    params,
                    device,
                    ..
                } = *shared;
                Ok(StepGradients::from_host(&params, sum.finish()?, &device))
            }
        }
    }
}

impl Shared<'_> {
    fn round(&mut self, own: Option<Found>) -> Result<Vec<BatchLoss<f64>>, TrainError> {
        let (loss, gradients) = own.unzip();
        let (values, present) = gradients.unwrap_or_default().to_host(&self.params);
        let said = Said {
            norm: self.before.1,
            loss,
            present,
        };
        let all = self.group.gather(&said.to_bytes())?;
        let mut ranks = Vec::with_capacity(all.len());
        for (rank, bytes) in all.iter().enumerate() {
            let read = Said::read(bytes).filter(|said| said.present.len() == self.params.len());
            let expected = "the loss of a micro-batch";
            ranks.push(read.ok_or_else(|| GroupError::unreadable(rank, bytes, expected))?);
        }
        self.check(&ranks)?;
        let present: Vec<Vec<bool>> = ranks
            .iter_mut()
            .map(|said| std::mem::take(&mut said.present))
            .collect();
        self.sum.add(&values, &present)?;
        Ok(ranks.into_iter().filter_map(|said| said.loss).collect())
    }

    /// Fails if one of them had another gradient in the step before: from then on its parameters are
    /// others, and nobody would notice.
    fn check(&self, ranks: &[Said]) -> Result<(), GroupError> {
        let (step, _) = self.before;
        let bits = |said: &Said| said.norm.to_bits();
        let other = ranks.iter().position(|said| bits(said) != bits(&ranks[0]));
        let Some(rank) = other else {
            return Ok(());
        };
        let differences = vec![format!(
            "the norm of the gradients of step {step} is {} there, and {} on rank 0, so that it computes in \
             another way: ranks need processors of one kind",
            ranks[rank].norm, ranks[0].norm
        )];
        Err(GroupError::Different { rank, differences })
    }
}

/// What a process says of its micro-batch.
struct Said {
    /// Of the gradients of the step before.
    norm: f64,
    loss: Option<BatchLoss<f64>>,
    /// The parameters that have a gradient.
    present: Vec<bool>,
}

impl Said {
    fn to_bytes(&self) -> Vec<u8> {
        let mut words = Words::default();
        words.float(self.norm);
        words.flags(&[self.loss.is_some()]);
        if let Some(found) = &self.loss {
            words.float(found.loss);
            found.metrics.write(&mut words);
        }
        words.flags(&self.present);
        words.into_bytes()
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let norm = reader.float()?;
        let loss = match reader.flags()?[..] {
            [true] => Some(BatchLoss::new(reader.float()?, Metrics::read(&mut reader)?)),
            _ => None,
        };
        let present = reader.flags()?;
        reader.is_at_end().then_some(Self {
            norm,
            loss,
            present,
        })
    }
}

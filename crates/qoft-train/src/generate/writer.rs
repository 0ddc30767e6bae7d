//! Sequences that are written together: they join and leave while others go on.

use burn::tensor::Device;

use super::sequence::{Sequence, WriteRequest, Written};
use crate::error::GenerateError;
use crate::model::GenerateModel;
use crate::tokenizer::Tokenizer;

/// Tokens of a step, behind which prompts wait for the next one: those who are writing should not wait long.
const STEP_TOKENS: usize = 2048;

/// Which of the sequences of a [`Writer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceKey(u64);

/// Sequences that are written together. In each step every one of them gets a token; all of them pass through
/// the model at once, each with its own cache, its own adapters and its own way to choose.
///
/// The model is given to each call, so that adapters can be added to it in between.
pub struct Writer<'t, M: GenerateModel> {
    tokenizer: &'t Tokenizer,
    device: Device,
    /// In the order in which they joined.
    sequences: Vec<Sequence<'t, M::Cache>>,
    next: u64,
}

impl<'t, M: GenerateModel> Writer<'t, M> {
    /// No sequences yet; `device` is that of the model's weights.
    pub fn new(tokenizer: &'t Tokenizer, device: &Device) -> Self {
        Self {
            tokenizer,
            device: device.clone().without_autodiff(),
            sequences: Vec::new(),
            next: 0,
        }
    }

    /// Adds a sequence; its prompt is read in the next step that has room for it. `None` if there is nothing to
    /// write.
    ///
    /// # Errors
    /// [`GenerateError`], for options or a prompt that cannot be used.
    pub fn join(
        &mut self,
        model: &M,
        request: WriteRequest,
    ) -> Result<Option<SequenceKey>, GenerateError> {
        let sequence = Sequence::new(self.next, request, model, self.tokenizer)?;
        if sequence.is_over() {
            return Ok(None);
        }
        self.sequences.push(sequence);
        self.next += 1;
        Ok(Some(SequenceKey(self.next - 1)))
    }

    /// Lets a sequence go before its end.
    pub fn leave(&mut self, key: SequenceKey) {
        self.sequences.retain(|sequence| sequence.key != key.0);
    }

    /// How many sequences there are.
    pub fn len(&self) -> usize {
        self.sequences.len()
    }

    /// Whether there is no sequence.
    pub fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }

    /// Writes the next token of each sequence, but of those whose prompts have to wait. Sequences that end
    /// are let go. An error is that of one sequence, which ends by it.
    ///
    /// The model should be [valid](burn::module::Module::valid).
    pub fn step(
        &mut self,
        model: &M,
        on_token: &mut dyn FnMut(SequenceKey, Result<Written, GenerateError>),
    ) {
        let tokenizer = self.tokenizer;
        let mut turn = turn(&mut self.sequences);
        if turn.is_empty() {
            return;
        }
        let continued = turn.iter_mut().map(|sequence| sequence.next()).collect();
        let logits = model.continued_logits(continued, &self.device);
        let vocabulary = logits.dims()[1];
        let logits: Vec<f32> = logits.into_data().iter::<f32>().collect();
        let mut over = Vec::new();
        for (sequence, logits) in turn.into_iter().zip(logits.chunks_exact(vocabulary)) {
            let written = sequence.choose(logits, tokenizer);
            if written
                .as_ref()
                .map_or(true, |written| written.end.is_some())
            {
                over.push(sequence.key);
            }
            on_token(SequenceKey(sequence.key), written);
        }
        self.sequences
            .retain(|sequence| !over.contains(&sequence.key));
    }
}

/// The sequences of the next step, those with the same adapters one after another.
fn turn<'a, 't, C>(sequences: &'a mut [Sequence<'t, C>]) -> Vec<&'a mut Sequence<'t, C>> {
    let (mut writing, reading): (Vec<_>, Vec<_>) = sequences
        .iter_mut()
        .partition(|sequence| sequence.unseen() == 1);
    let mut tokens = writing.len();
    for (index, sequence) in reading.into_iter().enumerate() {
        tokens += sequence.unseen();
        if index > 0 && tokens > STEP_TOKENS {
            break;
        }
        writing.push(sequence);
    }
    writing.sort_by(|a, b| (&a.adapters, a.key).cmp(&(&b.adapters, b.key)));
    writing
}

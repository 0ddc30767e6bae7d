//! Prompts and their answers as token ids and labels.

use super::encode::{EncodedRow, Encoder};
use super::error::RowError;
use super::example::{Example, IGNORED};
use super::options::AnswerTokens;
use super::preference::Preference;
use super::row::{Answers, Preferred, common_start};

/// The tokens of a text, and the bytes at its end that became none.
struct Read {
    ids: Vec<u32>,
    unread: usize,
}

impl Encoder<'_> {
    /// The examples of one row.
    pub(super) fn encode_preferred(
        &self,
        row: Preferred,
    ) -> Result<EncodedRow<Preference>, RowError> {
        let (examples, unread) = match row.answers {
            Answers::Texts { prompt, answers } => self.texts(&prompt, &answers)?,
            Answers::Messages {
                prompt,
                answers,
                variables,
            } => {
                let template = self.template()?;
                let (prompt, answers) = template.render_answers(&prompt, &answers, &variables)?;
                match self.answer_tokens {
                    AnswerTokens::AsTexts => self.by_tokens(&prompt, &answers, false)?,
                    AnswerTokens::WithEnds => {
                        let ends = answers.iter().map(|text| common_start(&prompt, text));
                        let end = ends.min().unwrap_or(0);
                        self.with_ends(&prompt[..end], &answers)?
                    }
                }
            }
        };
        let mut examples = examples.into_iter();
        let row = match (row.desirable, examples.next(), examples.next()) {
            (Some(desirable), Some(example), _) => Preference::Judged { example, desirable },
            (None, Some(chosen), Some(rejected)) => Preference::Pair { chosen, rejected },
            _ => return Err(RowError::NoTokens),
        };
        Ok(EncodedRow::new(row, unread))
    }

    fn texts(&self, prompt: &str, answers: &[String]) -> Result<(Vec<Example>, usize), RowError> {
        let whole = |answer: &String| format!("{prompt}{answer}");
        match self.answer_tokens {
            AnswerTokens::WithEnds => {
                let answers: Vec<String> = answers.iter().map(whole).collect();
                self.with_ends(prompt, &answers)
            }
            AnswerTokens::AsTexts => {
                let end = self.tokenizer.eos_token();
                let ended = |answer: &String| match end {
                    Some(end) if !answer.ends_with(end) => format!("{prompt}{answer}{end}"),
                    _ => whole(answer),
                };
                let answers: Vec<String> = answers.iter().map(ended).collect();
                self.by_tokens(prompt, &answers, true)
            }
        }
    }

    /// An answer begins where its tokens and those of the prompt part, which is at the same place of all
    /// answers.
    fn by_tokens(
        &self,
        prompt: &str,
        answers: &[String],
        special: bool,
    ) -> Result<(Vec<Example>, usize), RowError> {
        let prompt = self.read(prompt, special)?;
        let answers = answers.iter().map(|answer| self.read(answer, special));
        let answers = answers.collect::<Result<Vec<Read>, RowError>>()?;
        let starts = answers
            .iter()
            .map(|answer| shared(&prompt.ids, &answer.ids));
        let start = starts.min().unwrap_or(0);
        let unread = answers.iter().map(|answer| answer.unread).sum();
        let examples = answers.into_iter();
        let examples = examples.map(|answer| self.labeled(answer.ids, start));
        Ok((examples.collect::<Result<_, _>>()?, unread))
    }

    /// An answer begins behind the prompt, and each row has both of its ends.
    fn with_ends(
        &self,
        prompt: &str,
        answers: &[String],
    ) -> Result<(Vec<Example>, usize), RowError> {
        let prompt = self.read(prompt, false)?;
        let (bos, eos) = (self.tokenizer.bos_id(), self.tokenizer.eos_id());
        let (mut examples, mut unread) = (Vec::new(), 0);
        for answer in answers {
            let Read {
                mut ids,
                unread: more,
            } = self.read(answer, false)?;
            let mut start = shared(&prompt.ids, &ids);
            if let Some(bos) = bos.filter(|bos| ids.first() != Some(bos) || start == 0) {
                ids.insert(0, bos);
                start += 1;
            }
            // The end of a text that is not read is cut off anyway.
            if let Some(eos) = eos.filter(|_| more == 0) {
                let has_end = ids.len() > start && ids.last() == Some(&eos);
                ids.extend((!has_end).then_some(eos));
            }
            examples.push(self.labeled(ids, start)?);
            unread += more;
        }
        Ok((examples, unread))
    }

    fn read(&self, text: &str, special: bool) -> Result<Read, RowError> {
        let read = self
            .tokenizer
            .encode_start(text, special, self.max_length)?;
        Ok(Read {
            ids: read.encoded.ids,
            unread: read.unread,
        })
    }

    /// An example that is learned from the token `start` on.
    fn labeled(&self, ids: Vec<u32>, start: usize) -> Result<Example, RowError> {
        if ids.is_empty() {
            return Err(RowError::NoTokens);
        }
        let mut labels = Vec::with_capacity(ids.len());
        for (position, &id) in ids.iter().enumerate() {
            let (_, label) = self.checked_id(id.into(), position)?;
            labels.push(if position < start { IGNORED } else { label });
        }
        Ok(Example::new(ids, labels))
    }
}

/// How many tokens both begin with.
fn shared(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

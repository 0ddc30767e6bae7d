//! How the tokens of a text are chosen: transformers' options.

use std::path::Path;

use anyhow::Result;
use clap::Args;
use qoft::train::{GenerateOptions, GenerationConfig};

use crate::print::warnln;

/// What is not given is as generation_config.json of the model says, or else transformers' default.
#[derive(Debug, Args)]
pub struct ChoiceArgs {
    /// Draw tokens; otherwise each is the likeliest one [default: as --temperature says, or the model's
    /// generation_config.json, or else false].
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub do_sample: Option<bool>,
    /// Tokens to generate at most [default: the model's, or else 128].
    #[arg(long)]
    pub max_new_tokens: Option<usize>,
    /// Randomness of draws; 0 always takes the likeliest token, as --do-sample false does [default: the
    /// model's, or else 1].
    #[arg(long, allow_negative_numbers = true)]
    pub temperature: Option<f64>,
    /// Draw from so many of the likeliest tokens; 0, or -1 as in vLLM: from all [default: the model's, or else
    /// 50].
    #[arg(long, allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(-1..))]
    pub top_k: Option<i64>,
    /// Of these draw from the likeliest that have this probability together [default: the model's, or else
    /// 1].
    #[arg(long, allow_negative_numbers = true)]
    pub top_p: Option<f64>,
    /// Of these draw from those that have this part of the likeliest one's probability [default: the model's,
    /// or else 0].
    #[arg(long, allow_negative_numbers = true)]
    pub min_p: Option<f64>,
    /// Above 1: tokens that are in the text already become less likely [default: the model's, or else 1].
    #[arg(long, allow_negative_numbers = true)]
    pub repetition_penalty: Option<f64>,
    /// Above 0: tokens that were written already become less likely, those of the prompt do not; from -2 to 2.
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    pub presence_penalty: f64,
    /// The same for each time that a token was written; from -2 to 2.
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    pub frequency_penalty: f64,
    /// What is added to the logit of a token, from -100 to 100; several times, or with commas.
    #[arg(long, value_delimiter = ',', value_name = "ID=BIAS", value_parser = bias)]
    pub logit_bias: Vec<(u32, f64)>,
    /// Ids of tokens that end the text, in place of the model's: several times, or with commas.
    #[arg(long, value_delimiter = ',', value_name = "ID")]
    pub eos_token_id: Vec<u32>,
    /// A string that ends the text; may be given several times [default: the model's].
    #[arg(long, value_name = "TEXT")]
    pub stop_strings: Vec<String>,
}

impl ChoiceArgs {
    /// The options for the model in `folder`.
    pub fn options(&self, folder: &Path) -> Result<GenerateOptions> {
        let file = GenerationConfig::read(folder)?;
        let ignored: Vec<&str> = file.not_implemented().collect();
        if !ignored.is_empty() {
            warnln!(
                "generation_config.json: {} not implemented and ignored: {}",
                if ignored.len() == 1 {
                    "one key is"
                } else {
                    "some keys are"
                },
                ignored.join(", ")
            );
        }
        let mut own = GenerationConfig::default();
        own.do_sample = self.do_sample.or(self.temperature.map(|heat| heat != 0.0));
        own.max_new_tokens = self.max_new_tokens;
        own.temperature = self.temperature;
        // In vLLM -1 stands for all tokens.
        own.top_k = self.top_k.map(|count| usize::try_from(count).unwrap_or(0));
        own.top_p = self.top_p;
        own.min_p = self.min_p;
        own.repetition_penalty = self.repetition_penalty;
        own.stop_strings = (!self.stop_strings.is_empty()).then(|| self.stop_strings.clone());
        let mut options = own.or(file).options();
        options.eos_token_id = (!self.eos_token_id.is_empty()).then(|| self.eos_token_id.clone());
        options.presence_penalty = self.presence_penalty;
        options.frequency_penalty = self.frequency_penalty;
        options.logit_bias = self.logit_bias.iter().copied().collect();
        options.validate()?;
        self.tell_of_unused(&options);
        Ok(options)
    }

    /// Warns of options that are given and have no effect without draws.
    fn tell_of_unused(&self, options: &GenerateOptions) {
        if options.do_sample {
            return;
        }
        let given = [
            ("--top-k", self.top_k.is_some()),
            ("--top-p", self.top_p.is_some()),
            ("--min-p", self.min_p.is_some()),
        ];
        for (name, _) in given.iter().filter(|(_, given)| *given) {
            warnln!("{name} has no effect without --do-sample");
        }
    }
}

/// A token's id, and what is added to its logit.
fn bias(argument: &str) -> Result<(u32, f64), String> {
    let parts = argument.split_once('=');
    let parts = parts.and_then(|(id, bias)| Some((id.parse().ok()?, bias.parse().ok()?)));
    parts.ok_or_else(|| "a token id and a number are wanted, such as 13=-100".to_owned())
}

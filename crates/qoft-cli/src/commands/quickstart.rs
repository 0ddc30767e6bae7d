//! `qoft quickstart`: the whole path on a small model that is part of the program.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use burn::tensor::Device;
use qoft::Registries;
use qoft::core::{Error, StagedDir, write_file};
use qoft::models::CausalLm;
use qoft::oft::OftConfig;
use qoft::peft::{self, CommonConfig};
use qoft::train::data::{AnswerTokens, Split};
use qoft::train::tokenizer::Tokenizer;
use qoft::train::train::{ADAPTER, Digest, RunFolder, Start, TrainConfig, Trainer};
use qoft::train::{Evaluation, GenerateOptions, model_facts};

use super::train::{follow, trainable_line};
use crate::args::QuickstartArgs;
use crate::print::{errln, outln};
use crate::stop::Stopped;
use crate::{data, files};

/// What the model's weights are packed by.
const SCHEME: &str = "bnb-4bit";
/// A small language model, quantized to nf4 by bitsandbytes, and rows in another voice.
const MODEL: &[(&str, &[u8])] = &[
    (
        "config.json",
        include_bytes!("../../quickstart/config.json"),
    ),
    (
        "generation_config.json",
        include_bytes!("../../quickstart/generation_config.json"),
    ),
    (
        "model.safetensors",
        include_bytes!("../../quickstart/model.safetensors"),
    ),
    (
        "tokenizer.json",
        include_bytes!("../../quickstart/tokenizer.json"),
    ),
    (
        "tokenizer_config.json",
        include_bytes!("../../quickstart/tokenizer_config.json"),
    ),
];
const DATA: &[(&str, &[u8])] = &[
    ("data.jsonl", include_bytes!("../../quickstart/data.jsonl")),
    ("eval.jsonl", TEXT),
];
/// A little English text, as a data file.
pub const TEXT: &[u8] = include_bytes!("../../quickstart/eval.jsonl");
const PROMPTS: [&str; 3] = [
    "In the evening he",
    "He said unto them,",
    "And when the day",
];
const MAX_LENGTH: Option<usize> = Some(64);

/// Fine-tunes the embedded model and shows what changes.
pub fn run(args: &QuickstartArgs, registries: &Registries) -> Result<()> {
    // Before anything is written.
    registries.schemes.backend(SCHEME)?;
    let root = &args.output.clone().unwrap_or_else(free_folder);
    unpack(root)?;
    let (model_dir, adapter) = (root.join("model"), root.join("adapter"));
    errln!("A language model of 5 million parameters, trained on Jane Austen's novels and");
    errln!("quantized to 4 bits (nf4), is in {}.", model_dir.display());
    errln!("It now learns the voice of the King James Bible, by rotations of its layers' inputs.");
    errln!();

    let device = files::device(None)?;
    let tokenizer = Tokenizer::from_dir(&model_dir)?;
    let mut model = files::model(registries, &model_dir, &[], &device)?;
    let reading = data::For {
        tokenizer: &tokenizer,
        model: model.config(),
        max_length: MAX_LENGTH,
        answer_tokens: AnswerTokens::default(),
        split: Split::Train,
    };
    let data = |name| data::plain(&root.join(name), reading);
    let (dataset, held_out) = (data("data.jsonl")?, data("eval.jsonl")?);
    let measure = |model: &CausalLm| files::evaluate(model, &held_out, 8, &device);
    let before = measure(&model)?;
    let texts_before = samples(&model, &tokenizer, &device)?;

    let (config, oft_config) = (train_config(args.max_steps), oft_config(&model_dir));
    let autodiff = device.clone().autodiff();
    let spec = model.spec().clone();
    peft::attach(
        &mut model,
        &oft_config,
        model_facts(&spec),
        ADAPTER,
        config.seed,
        &autodiff,
    )?;
    errln!("{}", trainable_line(&model));
    let base = Digest::of_checkpoint(&files::checkpoint(registries, &model_dir)?)?;
    let folder = RunFolder::open(&adapter)?;
    if folder.has_adapter() && !folder.was_killed() {
        bail!(
            "{}: an earlier quickstart is done here; choose another folder",
            root.display()
        );
    }
    let last = folder.last_checkpoint()?;
    let mut trainer = Trainer::new(&config, &oft_config, &dataset, &folder);
    if let Some(last) = &last {
        errln!("going on from {}", last.display());
        trainer.start = Start::Checkpoint(last);
    }
    trainer.base = Some(&base);
    trainer.eval_dataset = Some(&held_out);
    let (model, summary) = follow(&trainer, model, None, false)?;
    if summary.interrupted {
        errln!("stopped after step {}", summary.steps);
        return Err(Stopped.into());
    }
    let after = measure(&model)?;
    let texts_after = samples(&model, &tokenizer, &device)?;
    report(
        root,
        &before,
        &after,
        summary.seconds,
        &texts_before,
        &texts_after,
    );
    Ok(())
}

/// `qoft-quickstart`, or with a number behind it if that exists.
fn free_folder() -> PathBuf {
    let numbered = (2..).map(|number| format!("qoft-quickstart-{number}").into());
    let mut names = std::iter::once(PathBuf::from("qoft-quickstart")).chain(numbered);
    names
        .find(|name| name.symlink_metadata().is_err())
        .unwrap_or_default()
}

/// Writes the model and the data, unless an earlier quickstart did, which did not come to its end.
fn unpack(root: &Path) -> Result<()> {
    let model = MODEL
        .iter()
        .map(|(name, content)| (root.join("model").join(name), content));
    let data = DATA
        .iter()
        .map(|(name, content)| (root.join(name), content));
    let is_there =
        |(path, content): (PathBuf, &&[u8])| std::fs::read(path).is_ok_and(|c| c == **content);
    if model.chain(data).all(is_there) {
        return Ok(());
    }
    let staged = StagedDir::new(root)?;
    let model = staged.path().join("model");
    std::fs::create_dir(&model).map_err(Error::io(&model))?;
    for (name, content) in MODEL {
        write_file(&model.join(name), content)?;
    }
    for (name, content) in DATA {
        write_file(&staged.path().join(name), content)?;
    }
    Ok(staged.commit()?)
}

/// Evaluation loss 5.51 → 3.64.
fn train_config(max_steps: usize) -> TrainConfig {
    let mut config = TrainConfig::default();
    config.learning_rate = 4e-3;
    config.batch_size = 8;
    config.max_steps = Some(max_steps);
    config.warmup_steps = 10.into();
    config.save_steps = None;
    config.eval_steps = Some(50.into());
    config
}

fn oft_config(model: &Path) -> OftConfig {
    let mut common = CommonConfig::targeting("all-linear");
    common.task_type = Some("CAUSAL_LM".into());
    common.base_model_name_or_path = Some(model.display().to_string());
    let mut config = OftConfig::default();
    config.common = common;
    config
}

/// How the model goes on after each of [`PROMPTS`].
fn samples(model: &CausalLm, tokenizer: &Tokenizer, device: &Device) -> Result<Vec<String>> {
    let mut options = GenerateOptions::default();
    options.max_new_tokens = 40;
    options.temperature = 0.5;
    options.top_p = 0.9;
    options.seed = 7;
    let sample = |text: &str| {
        let prompt = tokenizer.encode(text, true)?;
        let generated =
            qoft::train::generate(model, tokenizer, &prompt, &options, device, &mut |_| ())?;
        Ok(format!("{text}{}", generated.text).replace('\n', " "))
    };
    PROMPTS.into_iter().map(sample).collect()
}

fn report(
    root: &Path,
    before: &Evaluation,
    after: &Evaluation,
    seconds: f64,
    texts_before: &[String],
    texts_after: &[String],
) {
    outln!();
    outln!(
        "loss on unseen verses: {:.3} before, {:.3} after",
        before.loss,
        after.loss
    );
    outln!("training time:         {seconds:.1} s");
    outln!();
    for (before, after) in texts_before.iter().zip(texts_after) {
        outln!("before: {before}");
        outln!("after:  {after}");
        outln!();
    }
    let adapter = root.join("adapter");
    outln!("adapter (PEFT's format): {}", adapter.display());
    outln!(
        "loss curve:              {}",
        adapter.join("loss.svg").display()
    );
    outln!();
    outln!("Use it:");
    outln!(
        "  qoft generate --model {} --adapter {} --prompt \"She said,\" --temperature 0.5",
        root.join("model").display(),
        adapter.display()
    );
}

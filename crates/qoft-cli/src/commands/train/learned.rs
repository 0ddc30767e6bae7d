//! What a training learns from, and the model that does.

use anyhow::{Result, ensure};
use burn::tensor::Device;
use qoft::models::CausalLm;
use qoft::train::data::{Dataset, Example, Preference};
use qoft::train::preference::{PreferenceConfig, PreferenceData, PreferenceModel};
use qoft::train::train::{ADAPTER, TrainConfig};
use qoft::train::{MeasuredData, TrainModel};

use super::rows::TrainingData;
use crate::args::{DataArg, TrainArgs};
use crate::data::For;
use crate::print::errln;
use crate::{progress, stop};

/// Data that a training of the program learns from.
pub trait Learned: MeasuredData {
    /// The model that does.
    type Model: TrainModel<Data = Self>;

    /// Reads what the options name.
    fn read(
        args: &TrainArgs,
        sources: &[DataArg],
        reading: For,
        config: &TrainConfig,
    ) -> Result<TrainingData<Self>>;

    /// The model with its adapter as one that learns from the data.
    fn begin(
        model: CausalLm,
        data: &mut TrainingData<Self>,
        config: &TrainConfig,
        device: &Device,
    ) -> Result<Self::Model>;

    /// The rows that are learned, also where several are computed as one.
    fn count(&self) -> usize;
}

impl Learned for Dataset {
    type Model = CausalLm;

    fn read(
        args: &TrainArgs,
        sources: &[DataArg],
        reading: For,
        config: &TrainConfig,
    ) -> Result<TrainingData<Self>> {
        let read = TrainingData::of_rows::<Example>(args, sources, reading, config.seed)?;
        if !args.packing.unwrap_or(false) {
            return Ok(read);
        }
        let capacity = reading.longest()?;
        let examples = read.dataset.report.rows;
        let read = read.map(|dataset| Ok(dataset.packed(capacity)))?;
        let (rows, tokens) = (read.dataset.rows(), read.dataset.report.tokens);
        errln!(
            "packed: {} rows hold {} examples, {:.1} % of {} tokens each are filled",
            progress::grouped(rows),
            progress::grouped(examples),
            100.0 * tokens as f64 / (rows * capacity) as f64,
            progress::grouped(capacity)
        );
        Ok(read)
    }

    fn begin(
        model: CausalLm,
        _data: &mut TrainingData<Self>,
        _config: &TrainConfig,
        _device: &Device,
    ) -> Result<CausalLm> {
        Ok(model)
    }

    fn count(&self) -> usize {
        self.report.rows
    }
}

impl Learned for PreferenceData {
    type Model = PreferenceModel;

    fn read(
        args: &TrainArgs,
        sources: &[DataArg],
        reading: For,
        config: &TrainConfig,
    ) -> Result<TrainingData<Self>> {
        ensure!(
            !args.packing.unwrap_or(false),
            "--packing: answers of preferences are compared row by row; leave it out"
        );
        ensure!(
            args.reading.train_on.is_none(),
            "--train-on: of preferences the answers are learned; leave it out"
        );
        let read = TrainingData::of_rows::<Preference>(args, sources, reading, config.seed)?;
        let settings = preference(config);
        read.map(|rows| Ok(PreferenceData::new(rows, &settings)?))
    }

    fn begin(
        model: CausalLm,
        data: &mut TrainingData<Self>,
        config: &TrainConfig,
        device: &Device,
    ) -> Result<PreferenceModel> {
        let settings = preference(config);
        let ahead = settings.precompute_ref_log_probs;
        let model = PreferenceModel::new(model, ADAPTER, settings)?;
        let data = std::iter::once(&mut data.dataset).chain(&mut data.eval_dataset);
        for data in data.filter(|_| ahead) {
            let batches = data.count().div_ceil(config.batch_size);
            let bar = progress::bar("reference", batches);
            let mut done = |batches: usize, _| bar.set_position(batches as u64);
            let (size, stop) = (config.batch_size, stop::requested());
            let computed = model.compute_reference(data, size, device, stop, &mut done);
            bar.finish_and_clear();
            computed?;
        }
        Ok(model)
    }

    fn count(&self) -> usize {
        self.rows.examples.len()
    }
}

/// The settings of a training that learns from preferences.
fn preference(config: &TrainConfig) -> PreferenceConfig {
    config.preference.clone().unwrap_or_default()
}

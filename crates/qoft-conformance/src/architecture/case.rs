//! A model with what transformers computed.

use std::path::Path;

use burn::tensor::{Int, Tensor, TensorData};
use qoft_core::{Result, Schemes, default_device};
use qoft_models::{Architectures, CausalLm, ModelFolder};
use serde_json::Value;

/// A model folder and its reference.
pub struct Case<'a> {
    pub folder: &'a Path,
    pub architectures: &'a Architectures,
    pub rows: Vec<Vec<i32>>,
    pub loss: f64,
}

impl<'a> Case<'a> {
    pub fn open(folder: &'a Path, architectures: &'a Architectures, reference: &str) -> Self {
        let file = folder.join(reference);
        let fail = |reason: &str| -> ! { panic!("{}: {reason}", file.display()) };
        let Ok(text) = std::fs::read(&file) else {
            fail("cannot be read");
        };
        let Ok(json) = serde_json::from_slice::<Value>(&text) else {
            fail("is no JSON");
        };
        let Ok(rows) = serde_json::from_value::<Vec<Vec<i32>>>(json["rows"].clone()) else {
            fail("`rows` are no lists of ids");
        };
        let Some(loss) = json["loss"].as_f64() else {
            fail("`loss` is no number");
        };
        if rows.iter().all(|row| row.len() < 2) {
            fail("`rows` have nothing to predict");
        }
        Self {
            folder,
            architectures,
            rows,
            loss,
        }
    }

    /// The model of this folder.
    #[track_caller]
    pub fn model(&self) -> CausalLm {
        self.load(self.folder)
            .unwrap_or_else(|error| panic!("{}: {error}", self.folder.display()))
    }

    /// A model in a folder, which may be damaged.
    pub fn load(&self, folder: &Path) -> Result<CausalLm> {
        let folder = ModelFolder::open(folder, self.architectures)?;
        let schemes = Schemes::linked(folder.checkpoint())?;
        CausalLm::load(&folder, &schemes, &default_device()?, &mut |_, _| ())
    }

    /// The longest row.
    pub fn longest(&self) -> &[i32] {
        let longest = self.rows.iter().max_by_key(|row| row.len());
        longest.expect("rows")
    }

    /// Mean loss over all predicted tokens, by a model that may have adapters.
    pub fn loss_of(&self, model: &CausalLm) -> f64 {
        let (mut sum, mut count) = (0.0, 0);
        for row in self.rows.iter().filter(|row| row.len() > 1) {
            let loss = model.loss(ids(row), targets(row), 1.0);
            sum += f64::from(loss.into_scalar::<f32>());
            count += row.len() - 1;
        }
        sum / count as f64
    }
}

/// Token ids as a batch of one row.
pub fn ids(row: &[i32]) -> Tensor<2, Int> {
    let data = TensorData::new(row.to_vec(), [1, row.len()]);
    Tensor::from_data(data, &default_device().expect("a device"))
}

/// What follows each token of a row.
pub fn targets(row: &[i32]) -> Vec<Option<u32>> {
    let next = row[1..].iter().map(|&id| u32::try_from(id).ok());
    next.chain([None]).collect()
}

//! Models with more tokens than their checkpoint has.

use std::path::Path;

use qoft_core::kernels::FloatFormat;
use qoft_core::{
    Checkpoint, Dense, Error, NewTensor, Result, SmallFiles, WEIGHT, WaitingFile, write_file,
};
use qoft_models::ModelFolder;

use crate::write::copy_others;

/// Where `config.json` says how many tokens there are: of a model that does more than text, in its part.
const PLACES: [&str; 2] = ["/vocab_size", "/text_config/vocab_size"];
/// The file of the configuration.
const CONFIG: &str = "config.json";

/// The small files of a model in a folder of their own, to be changed: tokenizer, templates, settings.
///
/// # Errors
/// If the file system refuses.
pub fn copy_small_files(folder: &ModelFolder) -> Result<SmallFiles> {
    let copy = SmallFiles::new()?;
    let checkpoint = folder.checkpoint();
    copy_others(checkpoint.dir(), copy.path(), &[])?;
    write_config(checkpoint, copy.path())?;
    Ok(copy)
}

/// The same model with `tokens` rows in its table of tokens and its output head, and with the small files of
/// another folder. New rows are the mean of those before, as in transformers' `resize_token_embeddings`, but
/// for the noise of 1e-9 that is on them there. A head that is the table stays so. Nothing changes in the
/// rows of a model that has as many already.
///
/// # Errors
/// If the table or the head is quantized, the model is a file and no folder, or its architecture is not known or
/// has more that depends on the number of tokens.
pub fn with_tokens(
    folder: &ModelFolder,
    tokens: usize,
    small_files: SmallFiles,
) -> Result<ModelFolder> {
    let spec = folder.spec()?;
    let (before, path) = (spec.config().vocab_size, folder.checkpoint().path());
    let checkpoint = folder.checkpoint().clone();
    if tokens <= before {
        return Ok(folder.with_checkpoint(checkpoint.with_small_files(small_files)));
    }
    if checkpoint.container().is_some() {
        let reason = "new tokens need a folder of safetensors, and this is a file of another format; \
                      `qoft dequantize` makes a folder of it";
        return Err(Error::file(path, reason));
    }
    let names = spec.names();
    let mut layers = vec![names.token_table()];
    if spec.tied_table().is_none() {
        layers.push(names.head.to_owned());
    }
    let mut grown = checkpoint;
    for layer in &layers {
        if !Dense::is_dense(&folder.source(layer)) {
            let reason = format!(
                "`{layer}` is quantized, and new tokens need rows in it that can train; take a model in \
                 which it is dense: `qoft dequantize` makes one"
            );
            return Err(Error::file(path, reason));
        }
        grow(&mut grown, layer, tokens, small_files.path())?;
    }
    let mut config = grown.config().clone();
    for place in PLACES {
        if let Some(count) = config.pointer_mut(place) {
            *count = tokens.into();
        }
    }
    let grown = grown.with_config(config);
    write_config(&grown, small_files.path())?;
    let grown = folder.resized(grown.with_small_files(small_files))?;
    // An architecture may call it otherwise.
    if grown.spec()?.config().vocab_size != tokens {
        let reason = "config.json does not say by `vocab_size` how many tokens this model has";
        return Err(Error::file(path, reason));
    }
    Ok(grown)
}

/// Gives the matrix of a layer `tokens` rows.
fn grow(checkpoint: &mut Checkpoint, layer: &str, tokens: usize, scratch: &Path) -> Result<()> {
    let tensor = checkpoint.tensor(&format!("{layer}.{WEIGHT}"))?;
    let [rows, width] = tensor.matrix()?;
    let format = tensor.float_format()?;
    let mut bytes = tensor.bytes().to_vec();
    let mean = mean_row(&bytes, [rows, width], format);
    for _ in rows..tokens {
        bytes.extend_from_slice(&mean);
    }
    let shape = [tokens, width];
    let tensor = NewTensor::new(layer, WEIGHT, tensor.dtype(), &shape, bytes);
    let mut file = WaitingFile::new(scratch)?;
    checkpoint.replace(layer, &[tensor], &mut file)
}

/// The mean of the rows of a matrix.
fn mean_row(bytes: &[u8], [rows, width]: [usize; 2], format: FloatFormat) -> Vec<u8> {
    let (mut sums, mut row) = (vec![0.0f64; width], vec![0.0f32; width]);
    for stored in bytes.chunks_exact((bytes.len() / rows.max(1)).max(1)) {
        format.decode(stored, &mut row);
        sums.iter_mut()
            .zip(&row)
            .for_each(|(s, v)| *s += f64::from(*v));
    }
    let mean: Vec<f32> = sums.iter().map(|sum| (sum / rows as f64) as f32).collect();
    format.to_bytes(&mean)
}

fn write_config(checkpoint: &Checkpoint, folder: &Path) -> Result<()> {
    let file = folder.join(CONFIG);
    let text = serde_json::to_vec_pretty(checkpoint.config()).map_err(|e| Error::file(&file, e))?;
    write_file(&file, &text)
}

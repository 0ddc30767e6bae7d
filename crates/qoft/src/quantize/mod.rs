//! Quantizing a dense checkpoint while it is loaded.

mod cache;
mod checksum;
mod folder;
mod layer;
mod plan;

use std::collections::BTreeSet;
use std::path::PathBuf;

use qoft_core::kernels::FloatFormat;
use qoft_core::{
    ClaimedLayer, Matrix, NewTensor, Purpose, Quantization, Result, Schemes, WaitingFile,
    float_dtype,
};
use qoft_models::ModelFolder;

use crate::ahead::one_ahead;
use crate::layers::is_foreign;
use crate::model_dtype::with_dtype;
use crate::search::LayerSearch;
use crate::write::{MaxShardSize, check_finite};

pub use folder::{
    QuantizeLosses, QuantizeReport, QuantizedLayer, StagedQuantization, quantize_staged,
};
pub use layer::quantize_layer;
pub(crate) use plan::{Plan, Together};

/// How a dense checkpoint is quantized, beside the settings of the scheme.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct QuantizeOptions {
    /// Modules that stay dense, in place of the settings' own list, see
    /// [`ModulePatterns`](qoft_core::ModulePatterns). Without any list the output head does.
    pub skips: Option<Vec<String>>,
    /// The dtype that weights are rounded to before; that of the model unless given.
    pub format: Option<FloatFormat>,
    /// A folder that keeps the packed weights for the next time.
    pub cache: Option<PathBuf>,
    /// How large the files become where the model is written.
    pub max_shard_size: MaxShardSize,
}

impl QuantizeOptions {
    /// What is done to a dense model by these options and the settings `quantization`.
    pub(crate) fn plan<'a>(
        &self,
        folder: &'a ModelFolder,
        schemes: &'a Schemes,
        quantization: &Quantization,
    ) -> Result<Plan<'a>> {
        let skips = self.skips.as_deref();
        Plan::of_dense(folder, schemes, quantization, skips, self.format)
    }
}

/// Module paths of the layers of a dense model that [`quantize()`] quantizes.
///
/// # Errors
/// If a layer is quantized already, none is left to quantize, or a pattern is wrong.
pub fn layers_to_quantize(
    folder: &ModelFolder,
    schemes: &Schemes,
    quantization: &Quantization,
    options: &QuantizeOptions,
) -> Result<Vec<String>> {
    let plan = options.plan(folder, schemes, quantization)?;
    Ok(plan.paths().map(str::to_owned).collect())
}

/// The model with its dense layers quantized, as the scheme's library does it on load. Their tensors
/// wait in a file without a name in the system's folder for temporary files, or in the cache; all
/// others are those of `folder`, rounded to the model's dtype where the files have a finer one.
///
/// `schemes` are those of the folder's checkpoint; `search` gives each layer its codes once the
/// scheme has chosen scales. One layer after another is read, rounded and let go. `progress` is told
/// how many of how many layers are done.
///
/// # Errors
/// If a layer is quantized already or damaged, the settings do not fit one, none is left to quantize,
/// or a file cannot be written.
pub fn quantize(
    folder: &ModelFolder,
    schemes: &Schemes,
    quantization: &Quantization,
    options: &QuantizeOptions,
    search: &dyn LayerSearch,
    progress: &mut (dyn FnMut(usize, usize) + Send),
) -> Result<ModelFolder> {
    let plan = options.plan(folder, schemes, quantization)?;
    carry_out(&plan, folder, quantization, options, search, progress)
}

/// Does to the model what the plan says.
fn carry_out(
    plan: &Plan,
    folder: &ModelFolder,
    quantization: &Quantization,
    options: &QuantizeOptions,
    search: &dyn LayerSearch,
    progress: &mut (dyn FnMut(usize, usize) + Send),
) -> Result<ModelFolder> {
    plan.tell_of_left_out();
    let dense = folder.checkpoint();
    let config = with_dtype(dense.config().clone(), plan.format);
    let current = dense.clone().with_config(config);
    let mut current = plan.describe(current, quantization)?;
    let cached = options.cache.as_deref();
    let cached = cached.map(|dir| cache::file(dir, &current, quantization, plan.format));
    let cached = cached.transpose()?;
    let total = plan.layers.len();
    if let Some(file) = &cached
        && cache::read(file, &mut current, plan)
    {
        progress(total, total);
        return Ok(folder.with_checkpoint(current));
    }
    let mut waiting = WaitingFile::new(&std::env::temp_dir())?;
    for tensors in plan.rounded_others(folder) {
        current.insert(&tensors?, &mut waiting)?;
    }
    let mut done = 0;
    let make = |layer: &ClaimedLayer| quantized(layer, quantization, plan.format, search);
    one_ahead(&plan.layers, make, |layer, tensors| {
        current.replace(layer.path(), &tensors, &mut waiting)?;
        // What was read. New tensors are not read here, and there are as many maps of them as layers.
        dense.release();
        done += 1;
        progress(done, total);
        Ok(())
    })?;
    if let Some(file) = &cached {
        cache::write(file, dense, &current, plan);
    }
    Ok(folder.with_checkpoint(current))
}

/// The new tensors of a layer.
fn quantized(
    layer: &ClaimedLayer,
    quantization: &Quantization,
    format: FloatFormat,
    search: &dyn LayerSearch,
) -> Result<Vec<NewTensor>> {
    let weight = layer.load(Purpose::Dequantize)?.weight;
    let weight = Matrix::decode(&*weight);
    let search = search.search(layer.path(), None)?;
    quantization.quantize(layer.path(), weight, format, &*search)
}

impl Plan<'_> {
    /// The floats beside the layers that are quantized, in the model's dtype, where rounding to it
    /// changes them: embeddings, norms, biases and the layers that stay dense.
    fn rounded_others(&self, folder: &ModelFolder) -> impl Iterator<Item = Result<[NewTensor; 1]>> {
        let dense = folder.checkpoint();
        let quantized: BTreeSet<&str> = self.paths().collect();
        let format = self.format;
        dense.names().filter_map(move |name| {
            let (layer, suffix) = name.rsplit_once('.')?;
            if suffix == "weight" && quantized.contains(layer) || is_foreign(folder, name) {
                return None;
            }
            let tensor = dense.get(name)?;
            // Every number of 16 bits is one of 32.
            let stored = tensor.float_format().ok()?;
            let coarser = stored != format && format != FloatFormat::F32;
            coarser.then(|| {
                let bytes = format.to_bytes(&tensor.to_finite_f32()?);
                let dtype = float_dtype(format);
                check_finite(name, dtype, &bytes)?;
                Ok([NewTensor::new(layer, suffix, dtype, tensor.shape(), bytes)])
            })
        })
    }
}

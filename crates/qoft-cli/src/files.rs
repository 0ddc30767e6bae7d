//! Opening what the commands need: checkpoint, model, tokenizer, data.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use burn::tensor::Device;
use qoft::core::kernels::ComputeDtype;
use qoft::core::{BackendOptions, Checkpoint, Container, Nearest, Schemes};
use qoft::models::{CausalLm, ModelFolder};
use qoft::peft::{self, AdapterFolder, CONFIG as ADAPTER_CONFIG};
use qoft::train::data::Dataset;
use qoft::train::group::{Alone, Group};
use qoft::train::tokenizer::Tokenizer;
use qoft::train::train::Below;
use qoft::train::{Evaluation, model_facts};
use qoft::{Registries, ScaledAdapter};

use crate::args::{AdapterArg, LoadArgs, ModelArgs};
use crate::print::{errln, warnln};
use crate::{progress, stop, trained_on};

/// The device of this name, or the default one.
pub fn device(name: Option<&str>) -> Result<Device> {
    Ok(name.map_or_else(qoft::default_device, qoft::device)?)
}

/// The dtype of this name in which a device computes products, or the default one. What `auto` means here is told.
pub fn compute_dtype(name: Option<&str>, device: &Device) -> Result<ComputeDtype> {
    let Some(name) = name else {
        return Ok(ComputeDtype::default());
    };
    let dtype =
        qoft::compute_dtype(name, device).with_context(|| format!("--compute-dtype {name}"))?;
    if name == "auto" {
        errln!("--compute-dtype auto: products are computed in {dtype} here");
    }
    Ok(dtype)
}

/// The schemes of a checkpoint, all of those that are linked.
pub fn schemes(
    registries: &Registries,
    checkpoint: &Checkpoint,
    backend_options: &[String],
) -> Result<Schemes> {
    let options = BackendOptions::parse(backend_options)?;
    Ok(registries.schemes.open(checkpoint, &options)?)
}

/// Whether a path has the ending of a file format.
pub fn is_called(path: &Path, container: &dyn Container) -> bool {
    let extension = path.extension().unwrap_or_default();
    extension.eq_ignore_ascii_case(container.name())
}

/// Opens a model's folder, or a file of a format that is linked.
pub fn open(registries: &Registries, path: &Path) -> Result<ModelFolder> {
    described(registries, checkpoint(registries, path)?)
}

/// Opens the files of a model.
pub fn checkpoint(registries: &Registries, path: &Path) -> Result<Checkpoint> {
    Ok(registries.containers.open(path)?)
}

/// A model's folder whose checkpoint is opened already.
pub fn described(registries: &Registries, checkpoint: Checkpoint) -> Result<ModelFolder> {
    let dir = checkpoint.dir();
    if dir.join(ADAPTER_CONFIG).exists() {
        warnln!(
            "{}: an adapter lies beside the model; transformers would put it on, here it is used where it \
             is named: --adapter {0}",
            dir.display()
        );
    }
    Ok(ModelFolder::new(checkpoint, &registries.architectures))
}

/// Warns of adapters that were trained on a dense model that was quantized in another way than this one, or is
/// not here.
pub fn warn_of_others(
    registries: &Registries,
    folder: &ModelFolder,
    scheme: Option<&str>,
    load: &LoadArgs,
    adapters: &[AdapterArg],
) {
    if folder.checkpoint().quantization_config().is_none() {
        trained_on::warn_of_others(adapters, scheme, load, &registries.schemes);
    }
}

/// The model of a folder, quantized if the options say so: `scheme` is the value of `--load-in`. Warns
/// of adapters that were trained on another one.
pub fn quantized(
    registries: &Registries,
    folder: ModelFolder,
    scheme: Option<&str>,
    load: &LoadArgs,
    adapters: &[AdapterArg],
) -> Result<ModelFolder> {
    let registry = &registries.schemes;
    warn_of_others(registries, &folder, scheme, load, adapters);
    let Some(quantization) = load.quantization(scheme, registry)? else {
        return Ok(folder);
    };
    let options = load.options()?;
    let schemes = registry.open(folder.checkpoint(), &BackendOptions::default())?;
    let bar = progress::bar("quantizing", 0);
    let quantized = qoft::quantize(
        &folder,
        &schemes,
        &quantization,
        &options,
        &Nearest,
        &mut progress::follow(&bar),
    );
    bar.finish_and_clear();
    Ok(quantized?)
}

/// Loads a frozen model.
pub fn model(
    registries: &Registries,
    path: &Path,
    backend_options: &[String],
    device: &Device,
) -> Result<CausalLm> {
    opened_model(
        registries,
        &open(registries, path)?,
        backend_options,
        device,
    )
}

/// Loads the frozen model of an opened folder.
pub fn opened_model(
    registries: &Registries,
    folder: &ModelFolder,
    backend_options: &[String],
    device: &Device,
) -> Result<CausalLm> {
    let schemes = schemes(registries, folder.checkpoint(), backend_options)?;
    load(folder, &schemes, device)
}

/// Loads the frozen model of an opened folder with its schemes.
pub fn load(folder: &ModelFolder, schemes: &Schemes, device: &Device) -> Result<CausalLm> {
    let bar = progress::bar("loading", 0);
    let model = CausalLm::load(folder, schemes, device, &mut progress::follow(&bar));
    bar.finish_and_clear();
    Ok(model?)
}

/// Reads adapter folders.
pub fn adapters(registries: &Registries, args: &[AdapterArg]) -> Result<Vec<ScaledAdapter>> {
    warn_of_missing(args)?;
    let open = |arg: &AdapterArg| {
        Ok(ScaledAdapter::new(
            AdapterFolder::open(&arg.folder, &registries.families)?,
            arg.strength,
        ))
    };
    args.iter().map(open).collect()
}

/// Warns of adapters that were trained on top of others which are not there.
fn warn_of_missing(args: &[AdapterArg]) -> Result<()> {
    for (index, adapter) in args.iter().enumerate() {
        let needed = Below::of_adapter(&adapter.folder)?;
        if needed.is_empty() {
            continue;
        }
        let before = args[..index].iter();
        let before = before.map(|before| Below::new(&before.folder, before.strength));
        let before: Vec<Below> = before.collect::<Result<_, _>>()?;
        if before.ends_with(&needed) {
            continue;
        }
        let flags: Vec<String> = needed.iter().map(|b| format!("--adapter {b}")).collect();
        warnln!(
            "{} was trained on top of other adapters, and changes something else without them; \
             give before it: {}",
            adapter.folder.display(),
            flags.join(" ")
        );
    }
    Ok(())
}

/// Loads the model of a folder with its adapters, to compute with and not to train.
pub fn adapted_model(
    registries: &Registries,
    folder: ModelFolder,
    args: &ModelArgs,
) -> Result<CausalLm> {
    let device = device(args.device.as_deref())?;
    let compute_dtype = compute_dtype(args.compute_dtype.as_deref(), &device)?;
    let adapters = adapters(registries, &args.adapter)?;
    let folder = quantized(
        registries,
        folder,
        args.quantize.as_deref(),
        &args.load,
        &args.adapter,
    )?;
    let mut model = opened_model(registries, &folder, &args.backend_option, &device)?;
    model.set_compute_dtype(compute_dtype);
    attach(&mut model, &adapters, &args.model, &device)?;
    Ok(model)
}

/// The name on a model of the adapter that was given at this place.
pub fn slot(index: usize) -> String {
    format!("adapter_{index}")
}

/// Puts adapters on the model of a folder, one after another.
pub fn attach(
    model: &mut CausalLm,
    adapters: &[ScaledAdapter],
    dir: &Path,
    device: &Device,
) -> Result<()> {
    let spec = model.spec().clone();
    for (index, adapter) in adapters.iter().enumerate() {
        let name = slot(index);
        let attached = peft::attach_folder(
            model,
            &adapter.folder,
            adapter.strength,
            model_facts(&spec),
            &name,
            device,
        );
        attached.map_err(|error| trained_on::with_models(error.into(), dir))?;
    }
    Ok(())
}

/// The loss of a model on data.
pub fn evaluate(
    model: &CausalLm,
    dataset: &Dataset,
    batch_size: usize,
    device: &Device,
) -> Result<Evaluation> {
    evaluate_among(&Alone, model, dataset, batch_size, device)
}

/// The loss of a model on data that processes share.
pub fn evaluate_among(
    group: &dyn Group,
    model: &CausalLm,
    dataset: &Dataset,
    batch_size: usize,
    device: &Device,
) -> Result<Evaluation> {
    let bar = progress::bar("evaluating", 0);
    let evaluation = qoft::train::evaluate_among(
        group,
        model,
        dataset,
        batch_size,
        device,
        stop::requested(),
        &mut progress::follow(&bar),
    );
    bar.finish_and_clear();
    Ok(evaluation?)
}

/// The tokenizer of a model; its absence matters only to text.
pub fn tokenizer(model: &ModelFolder) -> Result<Tokenizer> {
    Ok(Tokenizer::from_dir(model.checkpoint().dir())?)
}

/// Fails before anything is computed if the picture cannot be written.
pub fn check_picture(plot: &Path) -> Result<()> {
    let folder = plot.parent().unwrap_or(Path::new(""));
    ensure!(
        folder.as_os_str().is_empty() || folder.is_dir(),
        "--plot {}: there is no folder {}; make it first, or choose another file",
        plot.display(),
        folder.display()
    );
    ensure!(
        !plot.is_dir() && plot.file_name().is_some(),
        "--plot {}: this is a folder, expected a file such as picture.svg",
        plot.display()
    );
    let ending = plot.extension().unwrap_or_default();
    ensure!(
        ending.is_empty() || ending.eq_ignore_ascii_case("svg"),
        "--plot {}: pictures are written as SVG; call it {}",
        plot.display(),
        plot.with_extension("svg").display()
    );
    Ok(())
}

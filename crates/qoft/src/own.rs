//! Tensors that adapters have instead of a checkpoint's: trained biases and whole modules.

use std::collections::BTreeMap;

use qoft_core::kernels::FloatFormat;
use qoft_core::{Checkpoint, ClaimedLayer, Error, Purpose, Result, WEIGHT, float_dtype};
use qoft_models::ModelFolder;
use qoft_peft::{Selection, quantized};

use crate::adapter::ScaledAdapter;
use crate::layers::is_foreign;
use crate::owners::Owners;
use crate::write::{Data, Output};

/// The tensors that an adapter has values for, by name, with their shapes.
pub(crate) fn expected(
    selection: &Selection,
    folder: &ModelFolder,
    layers: &[ClaimedLayer],
) -> Result<BTreeMap<String, Vec<usize>>> {
    let (mut expected, checkpoint) = (BTreeMap::new(), folder.checkpoint());
    let owners = Owners::new(layers);
    for name in checkpoint.names().filter(|name| !is_foreign(folder, name)) {
        let owner = owners.of(name);
        let path = match owner {
            Some(layer) => layer.path(),
            None => name.rsplit_once('.').map_or("", |(path, _)| path),
        };
        let bias = name.strip_prefix(path) == Some(".bias");
        let tensor = name.rsplit('.').next().unwrap_or_default();
        let whole = selection.is_whole(path) || selection.is_saved(path, tensor);
        if whole && !bias && owner.is_some_and(ClaimedLayer::is_quantized) {
            return Err(quantized(name));
        }
        if whole || (bias && selection.trains_bias(path)) {
            expected.insert(name.to_owned(), checkpoint.tensor(name)?.shape().to_vec());
        }
    }
    for layer in layers {
        if selection.trains_bias(layer.path()) {
            let bias = spread_bias(layer)?;
            let bias = bias.map(|bias| (bias_name(layer.path()), vec![bias.len()]));
            expected.extend(bias);
        }
    }
    let head_path = folder.head();
    let head_is_own = selection.is_whole(head_path) || selection.is_saved(head_path, WEIGHT);
    if let Some(table) = tied_table(folder).filter(|_| head_is_own) {
        let table = checkpoint.tensor(&table)?;
        expected.insert(head(folder), table.shape().to_vec());
    }
    Ok(expected)
}

/// The bias of a layer that has it in several tensors, under other names than its plain one.
pub(crate) fn spread_bias(layer: &ClaimedLayer) -> Result<Option<Vec<f32>>> {
    match has_spread_bias(layer) {
        true => Ok(layer.load(Purpose::Forward)?.bias),
        false => Ok(None),
    }
}

/// Whether a layer has its bias in several tensors.
pub(crate) fn has_spread_bias(layer: &ClaimedLayer) -> bool {
    let source = layer.source();
    let spread = |name: &str| name != "bias" && name.starts_with("bias");
    !source.has("bias") && source.suffixes().any(spread)
}

/// Fails if adapters change a bias that several tensors hold.
pub(crate) fn refuse_spread(layers: &[ClaimedLayer], adapters: &[ScaledAdapter]) -> Result<()> {
    for layer in layers {
        if replaced(adapters, &bias_name(layer.path())) && spread_bias(layer)?.is_some() {
            return Err(Error::Requantize {
                layer: layer.path().to_owned(),
                backend: layer.backend().to_owned(),
                reason: "its bias is spread over several tensors, which a trained bias is not \
                         written to; merge into dense weights (`--dequantize`)"
                    .to_owned(),
            });
        }
    }
    Ok(())
}

/// Name of a layer's bias.
pub(crate) fn bias_name(path: &str) -> String {
    format!("{path}.bias")
}

/// Name of the output head's weight.
pub(crate) fn head(folder: &ModelFolder) -> String {
    format!("{}.weight", folder.head())
}

/// Name of the embedding table that is the output head, too.
pub(crate) fn tied_table(folder: &ModelFolder) -> Option<String> {
    let table = folder.token_table().filter(|_| folder.is_tied());
    table.map(|path| format!("{path}.weight"))
}

/// Whether an adapter has values instead of those of a tensor.
pub(crate) fn replaced(adapters: &[ScaledAdapter], name: &str) -> bool {
    let has = |adapter: &ScaledAdapter| adapter.folder.own().contains_key(name);
    adapters.iter().any(|a| a.strength != 0.0 && has(a))
}

/// Gives a tensor the values that adapters have instead, each with its strength.
pub(crate) fn replace(values: &mut [f32], adapters: &[ScaledAdapter], name: &str) {
    let own = adapters.iter().filter(|adapter| adapter.strength != 0.0);
    let own: Vec<_> = own
        .filter_map(|adapter| Some((adapter.strength, adapter.folder.own().get(name)?)))
        .collect();
    if let [(1.0, own)] = own[..] {
        values.copy_from_slice(&own.values);
        return;
    }
    let base = values.to_vec();
    for (strength, own) in own {
        let changes = own.values.iter().zip(&base).map(|(own, base)| own - base);
        for (value, change) in values.iter_mut().zip(changes) {
            *value += strength as f32 * change;
        }
    }
}

/// A tensor that no rotation touches: as it is or as adapters have it, in the format `dense` or in
/// its own.
pub(crate) fn kept<'a>(
    checkpoint: &'a Checkpoint,
    adapters: &'a [ScaledAdapter],
    name: &str,
    dense: Option<FloatFormat>,
) -> Result<Output<'a>> {
    named(checkpoint, adapters, name, name, dense)
}

/// As [`kept`], for a tensor that starts from another one of the checkpoint.
pub(crate) fn named<'a>(
    checkpoint: &'a Checkpoint,
    adapters: &'a [ScaledAdapter],
    name: &str,
    from: &str,
    dense: Option<FloatFormat>,
) -> Result<Output<'a>> {
    let tensor = checkpoint.tensor(from)?;
    let as_it_is = name == from && !replaced(adapters, name);
    if dense.is_none() && as_it_is {
        return Ok(Output::copy(tensor));
    }
    // Numbers of other kinds are buffers, of which nothing else can be made.
    if as_it_is && tensor.float_format().is_err() {
        return Ok(Output::copy(tensor));
    }
    let stored = tensor.float_format()?;
    let format = dense.unwrap_or(stored);
    if as_it_is && format == stored {
        return Ok(Output::copy(tensor));
    }
    let name = name.to_owned();
    Ok(Output {
        name: name.clone(),
        dtype: float_dtype(format),
        shape: tensor.shape().to_vec(),
        data: Data::Made(Box::new(move || {
            let mut values = tensor.to_f32()?;
            replace(&mut values, adapters, &name);
            Ok(format.to_bytes(&values))
        })),
    })
}

/// The bias of a layer that has it in several tensors, as one: as it is or as adapters have it.
pub(crate) fn gathered(
    layer: &ClaimedLayer,
    adapters: &[ScaledAdapter],
    mut bias: Vec<f32>,
    format: FloatFormat,
) -> Result<Output<'static>> {
    let name = bias_name(layer.path());
    replace(&mut bias, adapters, &name);
    Ok(Output {
        name,
        dtype: float_dtype(format),
        shape: vec![bias.len()],
        data: Data::Made(Box::new(move || Ok(format.to_bytes(&bias)))),
    })
}

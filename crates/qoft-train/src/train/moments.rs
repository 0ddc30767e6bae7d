//! `optimizer.bin`: the moments of each parameter, in Burn's format, under the parameter's path in
//! the model. The same moments give the same bytes.

use std::collections::{BTreeMap, BTreeSet};

use burn::module::ParamId;
use burn::optim::ModuleOptimizer;
use burn_pack::{Bytes, DType, Reader, Scalar, Tensor, Writer};
use qoft_core::{LayerKind, WEIGHT};

use super::ADAPTER;
use super::optimizer_kind::OptimizerKind;
use crate::model::TrainModel;

/// How often a parameter had a gradient: never, if that is why nothing else is said of it.
const TIME: &str = "momentum.time";
const RANK: &str = "__rank";
/// The steps of the run when the file was written: moments count only those that changed something.
const STEP: &str = "step";
/// Of all parameters of adapters, which optimizers see as lists.
const RANK_OF_PARAMETERS: u64 = 1;

/// A parameter that trains.
#[derive(Debug, Clone)]
pub(super) struct Parameter {
    /// The layer and the parameter's name in it.
    pub(super) path: String,
    pub(super) id: ParamId,
    /// Number of its values.
    pub(super) len: usize,
    /// The shape of the weight of a linear layer that trains whole and is not the output head.
    pub(super) matrix: Option<[usize; 2]>,
}

/// The parameters of the adapter that trains.
pub(super) fn parameters(model: &impl TrainModel) -> Vec<Parameter> {
    let mut found = Vec::new();
    let head = model.facts().head;
    for (path, layer) in model.layers() {
        let Some(slot) = layer.adapters().get(ADAPTER) else {
            continue;
        };
        let is_matrix = layer.kind() == LayerKind::Linear && path != head;
        let whole = slot.own_named(WEIGHT).filter(|_| is_matrix);
        let whole = whole.map(|own| own.param());
        found.extend(slot.params().into_iter().map(|param| {
            Parameter {
                path: format!("{path}.{}", param.name()),
                id: param.id(),
                len: param.len(),
                matrix: whole
                    .filter(|whole| whole.id() == param.id())
                    .and_then(|whole| whole.shape().try_into().ok()),
            }
        }));
    }
    found
}

/// The moments after `step` steps as a file.
pub(super) fn to_bytes(
    optimizer: &ModuleOptimizer,
    kind: OptimizerKind,
    parameters: &[Parameter],
    step: usize,
) -> Result<Vec<u8>, String> {
    let paths = parameters.iter();
    let paths: BTreeMap<String, &str> = paths
        .map(|p| (p.id.val().to_string(), p.path.as_str()))
        .collect();
    // Burn names everything by a parameter's number, in no order.
    let renamed = |name: &str| match name.split_once('.') {
        Some((id, field)) => paths.get(id).map(|path| format!("{path}.{field}")),
        None => None,
    };
    let unknown = |name: &str| format!("the optimizer has `{name}` of no parameter that trains");
    let bytes = optimizer.into_bytes().map_err(|e| e.to_string())?;
    let reader = Reader::from_bytes(bytes).map_err(|e| e.to_string())?;
    let scalars = reader.scalars().clone();
    let mut tensors = Vec::new();
    for mut tensor in reader.into_tensors().map_err(|e| e.to_string())? {
        tensor.name = renamed(&tensor.name).ok_or_else(|| unknown(&tensor.name))?;
        tensor.param_id = None;
        tensors.push(tensor);
    }
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    let untouched = untouched(&tensors, kind, parameters);
    let mut writer = Writer::new(tensors).with_scalar(STEP, Scalar::from(step as u64));
    for path in untouched {
        writer = writer.with_scalar(&format!("{path}.{TIME}"), Scalar::from(0_u64));
    }
    for (name, value) in scalars {
        let name = renamed(&name).ok_or_else(|| unknown(&name))?;
        writer = writer.with_scalar(&name, value);
    }
    let bytes = writer.into_bytes().map_err(|e| e.to_string())?;
    Ok(bytes.to_vec())
}

/// Parameters that had no gradient yet, as those of an expert that no token met, where others had some.
fn untouched<'a>(
    tensors: &[Tensor],
    kind: OptimizerKind,
    parameters: &'a [Parameter],
) -> Vec<&'a str> {
    if tensors.is_empty() {
        return Vec::new();
    }
    let found: BTreeSet<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    let untouched = parameters.iter().filter(|parameter| {
        let moments = kind.moments(parameter.matrix.is_some());
        let mut first = moments.tensors.iter().take(1);
        first.any(|first| !found.contains(format!("{}.{first}", parameter.path).as_str()))
    });
    untouched.map(|parameter| parameter.path.as_str()).collect()
}

/// The optimizer with the moments of a file, which has to have those of each parameter after `step`
/// steps, or say that it had no gradient yet; or it has none at all: steps without anything to predict change
/// nothing.
pub(super) fn from_bytes(
    optimizer: ModuleOptimizer,
    kind: OptimizerKind,
    bytes: Vec<u8>,
    parameters: &[Parameter],
    step: usize,
) -> Result<ModuleOptimizer, String> {
    let reader = Reader::from_bytes(Bytes::from_bytes_vec(bytes)).map_err(|e| e.to_string())?;
    let mut scalars = reader.scalars().clone();
    let tensors = reader.into_tensors().map_err(|e| e.to_string())?;
    if let Some(found) = scalars.remove(STEP) {
        let found = u64::try_from(found).map_err(|_| format!("`{STEP}` is no count"))?;
        if found != step as u64 {
            return Err(format!(
                "`{STEP}`: expected {step}, as trainer_state.json says, found {found}"
            ));
        }
    }
    if tensors.is_empty() && scalars.is_empty() {
        return Ok(optimizer);
    }
    let mut tensors: BTreeMap<String, Tensor> =
        tensors.into_iter().map(|t| (t.name.clone(), t)).collect();
    let mut renamed = Vec::new();
    let mut writer_scalars = Vec::new();
    for parameter in parameters {
        let Parameter { path, id, len, .. } = parameter;
        let moments = kind.moments(parameter.matrix.is_some());
        let shape = match parameter.matrix {
            Some(matrix) if kind == OptimizerKind::Muon => matrix.to_vec(),
            _ => vec![*len],
        };
        let time = format!("{path}.{TIME}");
        let is_untouched = scalars.get(&time).cloned().map(u64::try_from);
        let has = |field: &&str| tensors.contains_key(&format!("{path}.{field}"));
        if matches!(is_untouched, Some(Ok(0))) && !moments.tensors.iter().any(has) {
            scalars.remove(&time);
            continue;
        }
        for field in moments.tensors {
            let name = format!("{path}.{field}");
            let tensor = tensors.remove(&name);
            let tensor = tensor.ok_or_else(|| format!("`{name}` is missing"))?;
            renamed.push(moment(tensor, &name, field, &shape, *id)?);
        }
        if let Some(field) = moments.time {
            let (name, time) = count(&mut scalars, &format!("{path}.{field}"))?;
            if time == 0 || time > step as u64 {
                return Err(format!(
                    "`{name}`: expected at most {step}, the steps of the checkpoint, found {time}"
                ));
            }
            writer_scalars.push((format!("{}.{field}", id.val()), Scalar::from(time)));
        }
        for field in moments.numbers {
            let name = format!("{path}.{field}");
            let value = scalars.remove(&name);
            let value = value.ok_or_else(|| format!("`{name}` is missing"))?;
            if !f64::try_from(value).is_ok_and(f64::is_finite) {
                return Err(format!("`{name}` is no finite number"));
            }
            writer_scalars.push((format!("{}.{field}", id.val()), value));
        }
        let (name, rank) = count(&mut scalars, &format!("{path}.{RANK}"))?;
        if rank != RANK_OF_PARAMETERS {
            return Err(format!(
                "`{name}`: expected {RANK_OF_PARAMETERS}, found {rank}"
            ));
        }
        writer_scalars.push((format!("{}.{RANK}", id.val()), Scalar::from(rank)));
    }
    let left = tensors.into_keys().chain(scalars.into_keys()).next();
    if let Some(name) = left {
        return Err(format!("`{name}` belongs to no parameter of this run"));
    }
    let mut writer = Writer::new(renamed);
    for (name, value) in writer_scalars {
        writer = writer.with_scalar(&name, value);
    }
    let bytes = writer.into_bytes().map_err(|e| e.to_string())?;
    optimizer.from_bytes(bytes).map_err(|e| e.to_string())
}

/// Takes a count out of the numbers of a file.
fn count(scalars: &mut BTreeMap<String, Scalar>, name: &str) -> Result<(String, u64), String> {
    let value = scalars.remove(name);
    let value = value.ok_or_else(|| format!("`{name}` is missing"))?;
    match u64::try_from(value) {
        Ok(value) => Ok((name.to_owned(), value)),
        Err(_) => Err(format!("`{name}` is no count")),
    }
}

/// A moment under the name that Burn has for it.
fn moment(
    mut tensor: Tensor,
    name: &str,
    field: &str,
    shape: &[usize],
    id: ParamId,
) -> Result<Tensor, String> {
    if tensor.dtype != DType::F32 || tensor.shape.to_vec() != shape {
        return Err(format!(
            "`{name}`: expected f32 of shape {shape:?}, found {:?} of {:?}",
            tensor.dtype,
            tensor.shape.to_vec()
        ));
    }
    let bytes = tensor.to_bytes().map_err(|e| e.to_string())?;
    let finite = |word: &[u8]| {
        <[u8; 4]>::try_from(word).is_ok_and(|word| f32::from_le_bytes(word).is_finite())
    };
    if !bytes.chunks(4).all(finite) {
        return Err(format!(
            "`{name}` has values that are infinite or not a number"
        ));
    }
    tensor.name = format!("{}.{field}", id.val());
    tensor.param_id = Some(id.val());
    Ok(tensor)
}

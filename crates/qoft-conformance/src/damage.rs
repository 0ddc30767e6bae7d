//! Damaged layers: an error or a weight, never a panic.

use std::panic::{AssertUnwindSafe, catch_unwind};

use qoft_core::{Checkpoint, ClaimedLayer, Dtype, LayerSource, Matrix, Nearest, Purpose, Result};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use crate::layer::Layer;
use crate::layer_file::{FileTensor, LayerFile};

/// Damage that a reader has to notice, unless the tensor says nothing about the weight.
fn visible(tensor: &FileTensor) -> Vec<(&'static str, FileTensor)> {
    let with = |change: &dyn Fn(&mut FileTensor)| {
        let mut damaged = tensor.clone();
        change(&mut damaged);
        damaged
    };
    let mut all = vec![(
        "empty",
        with(&|t| {
            t.shape = vec![0];
            t.bytes.clear();
        }),
    )];
    for dim in 0..tensor.shape.len() {
        if tensor.shape[dim] > 1 {
            all.push((
                "cut",
                with(&|t| {
                    t.shape[dim] -= 1;
                    let bytes = t.bytes.len() / (t.shape[dim] + 1) * t.shape[dim];
                    t.bytes.truncate(bytes);
                }),
            ));
        }
        all.push((
            "doubled",
            with(&|t| {
                t.shape[dim] *= 2;
                t.bytes.extend_from_within(..);
            }),
        ));
    }
    all
}

/// The tensor with its first number spoiled, if its dtype has a NaN.
fn not_a_number(tensor: &FileTensor) -> Option<FileTensor> {
    let nan: &[u8] = match tensor.dtype {
        Dtype::F32 => &[0, 0, 0xc0, 0x7f],
        Dtype::F16 => &[0, 0x7e],
        Dtype::BF16 => &[0xc0, 0x7f],
        Dtype::F8_E4M3 | Dtype::F8_E5M2 => &[0x7f],
        _ => return None,
    };
    let mut damaged = tensor.clone();
    damaged.bytes.get_mut(..nan.len())?.copy_from_slice(nan);
    Some(damaged)
}

/// Damage after which the values may be others, but nothing may break.
fn silent(tensor: &FileTensor) -> Vec<(&'static str, FileTensor)> {
    let with = |change: &dyn Fn(&mut FileTensor)| {
        let mut damaged = tensor.clone();
        change(&mut damaged);
        damaged
    };
    let same_size = [
        Dtype::U8,
        Dtype::I16,
        Dtype::BF16,
        Dtype::I32,
        Dtype::F32,
        Dtype::I64,
    ];
    let other = same_size
        .into_iter()
        .find(|&d| d != tensor.dtype && d.bitsize() == tensor.dtype.bitsize());
    let mut all = vec![
        ("turned", with(&|t| t.shape.reverse())),
        ("flat", with(&|t| t.shape = vec![t.shape.iter().product()])),
        ("all ones", with(&|t| t.bytes.fill(0xff))),
        ("all zeros", with(&|t| t.bytes.fill(0))),
        ("deeper", with(&|t| t.shape.push(1))),
    ];
    if let Some(dtype) = other {
        all.push(("of another dtype", with(&|t| t.dtype = dtype)));
    }
    all
}

/// Tries every kind of damage on every tensor of the layer.
pub(crate) fn check(layer: &Layer) {
    let file = layer_file(layer);
    let intact = attempt(layer, &file, None, "intact")
        .unwrap_or_else(|| panic!("{layer}: not found on its own"))
        .unwrap_or_else(|e| panic!("{layer}: cannot be loaded on its own: {e}"));
    // From here on the reader is told the shape, as a model does.
    let shape = Some(intact.shape);
    let mut errors = 0;
    for at in file.own() {
        let name = file.tensors[at].name.clone();
        let mut missing = file.clone();
        missing.tensors.remove(at);
        let mut noticeable = vec![("missing", missing)];
        noticeable.extend(
            visible(&file.tensors[at])
                .into_iter()
                .map(|(kind, tensor)| {
                    let mut damaged = file.clone();
                    damaged.tensors[at] = tensor;
                    (kind, damaged)
                }),
        );
        for (kind, damaged) in noticeable {
            let what = format!("`{name}` {kind}");
            match attempt(layer, &damaged, shape, &what) {
                None => {}
                Some(Err(_)) => errors += 1,
                Some(Ok(found)) => assert!(
                    found == intact,
                    "{layer}: {what} changes the weight, but is no error"
                ),
            }
        }
        if let Some(tensor) = not_a_number(&file.tensors[at]) {
            let mut damaged = file.clone();
            damaged.tensors[at] = tensor;
            let what = format!("`{name}` not a number");
            if let Some(Ok(found)) = attempt(layer, &damaged, shape, &what) {
                // Codes may be stored as floats, and a dense weight spoils only itself.
                let broken = found.values.iter().filter(|v| !v.is_finite()).count();
                assert!(
                    broken <= 1,
                    "{layer}: {what} spoils {broken} weights, but is no error"
                );
            }
        }
        for (kind, tensor) in silent(&file.tensors[at]) {
            let mut damaged = file.clone();
            damaged.tensors[at] = tensor;
            attempt(layer, &damaged, shape, &format!("`{name}` {kind}"));
        }
    }
    assert!(errors > 0, "{layer}: no damage gives an error");
    for damaged in odd_configs(&file) {
        let what = format!("{} {:?}", damaged.config, damaged.about_it());
        attempt(layer, &damaged, shape, &what);
    }
}

fn layer_file(layer: &Layer) -> LayerFile {
    let opened = layer.opened;
    let config = opened.schemes.quantization_config();
    LayerFile::new(&opened.checkpoint, config, layer.path)
}

/// Loads a damaged layer, and writes it again: `None` if it cannot even be opened or is not claimed
/// any more. The result is that of loading.
///
/// # Panics
/// If the backend panics, or if an error does not say which layer it is about.
fn attempt(
    layer: &Layer,
    file: &LayerFile,
    shape: Option<[usize; 2]>,
    what: &str,
) -> Option<Result<Matrix>> {
    let opened = layer.opened;
    let load = |checkpoint: &Checkpoint| -> Option<Result<Matrix>> {
        let schemes = match opened.registry().open(checkpoint, &opened.options) {
            Ok(schemes) => schemes,
            Err(error) => return Some(Err(error)),
        };
        let claimed = schemes.claim(LayerSource::new(checkpoint, layer.path, shape))?;
        let loaded = claimed.load(Purpose::Forward);
        if claimed.capabilities().requantize
            && let Err(error) = write(&claimed, checkpoint)
        {
            names_it(layer, what, &error.to_string());
        }
        Some(loaded.map(|loaded| Matrix::decode(&*loaded.weight)))
    };
    let outcome = catch_unwind(AssertUnwindSafe(|| file.with(load)));
    let Ok(outcome) = outcome else {
        let kept = tempfile::tempdir().expect("a temporary folder").keep();
        file.write(&kept);
        panic!(
            "{layer}: panics when {what}; the damaged layer is in {}",
            kept.display()
        );
    };
    let outcome = outcome.flatten();
    if let Some(Err(error)) = &outcome {
        names_it(layer, what, &error.to_string());
    }
    outcome
}

/// Writes a damaged layer with the weight that it has, or one of zeros.
fn write(claimed: &ClaimedLayer, checkpoint: &Checkpoint) -> Result<()> {
    let parsed = claimed.parse()?;
    let weight = match parsed.load(Purpose::Dequantize) {
        Ok(loaded) => Matrix::decode(&*loaded.weight),
        Err(_) => {
            let shape = parsed.shape();
            // So many that they would not fit into memory are left to the backend.
            let count = shape[0].saturating_mul(shape[1]);
            if count > 1 << 20 {
                return Ok(());
            }
            let values = vec![0.0; count];
            Matrix::new(values, shape)
        }
    };
    parsed.requantize(&weight, &Nearest, checkpoint).map(drop)
}

fn names_it(layer: &Layer, what: &str, text: &str) {
    let named = text.contains(layer.path) || text.contains("config");
    assert!(
        named,
        "{layer}: {what}: the error does not name the layer: {text}"
    );
}

/// The quantization's configuration, and what the file says of the layer, with each value replaced by
/// impossible ones.
fn odd_configs(file: &LayerFile) -> Vec<LayerFile> {
    let mut all = Vec::new();
    for pointer in leaves(&file.config) {
        for value in odd_values() {
            let mut damaged = file.clone();
            damaged.config = with_value(&file.config, &pointer, value);
            all.push(damaged);
        }
    }
    for (key, text) in file.about_it() {
        let with = |text: Option<String>| {
            let mut damaged = file.clone();
            damaged.metadata.remove(key);
            damaged
                .metadata
                .extend(text.map(|text| (key.to_owned(), text)));
            damaged
        };
        all.extend([with(None), with(Some("{".to_owned()))]);
        let Ok(about) = serde_json::from_str::<Value>(text) else {
            continue;
        };
        for pointer in leaves(&about) {
            let odd = odd_values().into_iter();
            let odd = odd.map(|value| with_value(&about, &pointer, value));
            all.extend(odd.map(|about| with(Some(about.to_string()))));
        }
    }
    all
}

/// Values that next to no key can have.
pub(crate) fn odd_values() -> [Value; 7] {
    [
        json!(null),
        json!(-1),
        json!(0),
        json!(1e30),
        json!("x"),
        json!([1]),
        json!({}),
    ]
}

/// A configuration with another value at a JSON pointer.
pub(crate) fn with_value(config: &Value, pointer: &str, value: Value) -> Value {
    let mut config = config.clone();
    if let Some(place) = config.pointer_mut(pointer) {
        *place = value;
    }
    config
}

/// JSON pointers of all values that hold no others.
pub(crate) fn leaves(value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    add_leaves(value, String::new(), &mut found);
    found
}

fn add_leaves(value: &Value, pointer: String, found: &mut Vec<String>) {
    let escape = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                add_leaves(value, format!("{pointer}/{}", escape(key)), found);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (index, value) in items.iter().enumerate() {
                add_leaves(value, format!("{pointer}/{index}"), found);
            }
        }
        _ => found.push(pointer),
    }
}

/// One to three random changes.
pub(crate) fn fuzz(layer: &Layer, random: &mut StdRng) {
    let mut file = layer_file(layer);
    let mut what = String::from("fuzzed:");
    for _ in 0..random.random_range(1..=3) {
        let own = file.own();
        if own.is_empty() {
            break;
        }
        let at = own[random.random_range(0..own.len())];
        let name = file.tensors[at].name.clone();
        let kind = random.random_range(0..6);
        match kind {
            0 => {
                file.tensors.remove(at);
            }
            1 => file.tensors[at] = pick(random, visible(&file.tensors[at])),
            2 => file.tensors[at] = pick(random, silent(&file.tensors[at])),
            3 => {
                let configs = odd_configs(&file);
                if !configs.is_empty() {
                    file = configs[random.random_range(0..configs.len())].clone();
                }
            }
            4 => reshape(random, &mut file.tensors[at]),
            _ => {
                let bytes = &mut file.tensors[at].bytes;
                for _ in 0..random.random_range(1..=8) {
                    if !bytes.is_empty() {
                        let byte = random.random_range(0..bytes.len());
                        bytes[byte] = random.random();
                    }
                }
            }
        }
        what += &format!(" {name}/{kind}");
    }
    let shape = random
        .random::<bool>()
        .then(|| layer.load(Purpose::Forward).weight.shape());
    attempt(layer, &file, shape, &what);
}

fn pick(random: &mut StdRng, mut all: Vec<(&'static str, FileTensor)>) -> FileTensor {
    all.swap_remove(random.random_range(0..all.len())).1
}

/// Another shape with other bytes, of a size that still fits a test.
fn reshape(random: &mut StdRng, tensor: &mut FileTensor) {
    let rank = random.random_range(0..=4);
    tensor.shape = (0..rank).map(|_| random.random_range(0..=40)).collect();
    let bits = tensor.shape.iter().product::<usize>() * tensor.dtype.bitsize();
    if bits / 8 > 1 << 20 {
        tensor.shape.truncate(2);
    }
    let bits = tensor.shape.iter().product::<usize>() * tensor.dtype.bitsize();
    tensor.bytes = (0..bits.div_ceil(8)).map(|_| random.random()).collect();
}

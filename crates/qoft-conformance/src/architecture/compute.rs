//! What a model computes.

use std::collections::BTreeMap;

use burn::optim::GradientsParams;
use burn::tensor::Gradients;
use qoft_core::{LayerKind, Walk, default_device};
use qoft_models::{CausalLm, ModelFolder};
use qoft_oft::OftConfig;
use qoft_peft::{self as peft, CommonConfig, ConfigFile, Families, ModelFacts};

use super::case::{Case, ids, targets};

const ADAPTER: &str = "default";

/// How far the loss may be from transformers', as a part of it.
const LOSS: f64 = 3e-4;

pub fn check(case: &Case) {
    let model = case.model();
    describe(case, &model);
    let (found, expected) = (case.loss_of(&model), case.loss);
    assert!(
        (found - expected).abs() <= LOSS * expected,
        "{}: loss {found}, transformers has {expected}",
        case.folder.display()
    );
    cache(case, &model);
    gradients(case, &model);
    saved(case, &model);
}

/// What is known before loading is what there is.
fn describe(case: &Case, model: &CausalLm) {
    let folder = ModelFolder::open(case.folder, case.architectures).expect("it was loaded");
    let spec = folder.spec().expect("it was loaded");
    let known = spec.layers().iter();
    let known: Vec<_> = known
        .map(|layer| (layer.path.clone(), layer.kind, layer.shape))
        .collect();
    let found = model.layers().into_iter();
    let found: Vec<_> = found
        .map(|(path, layer)| (path, layer.kind(), layer.base_weight().shape))
        .collect();
    assert_eq!(
        known,
        found,
        "{}: the layers known before loading, and those of the model (do fields have the names and \
         the order in which the loader is asked for them?)",
        case.folder.display()
    );
    let names = spec.names();
    let table = spec.layer(&names.token_table());
    assert!(
        table.is_some_and(|table| table.kind == LayerKind::Embedding),
        "{}: no table of tokens is at `{}`",
        case.folder.display(),
        names.token_table()
    );
}

fn cache(case: &Case, model: &CausalLm) {
    let row = case.longest();
    for pieces in [&[1][..], &[5, 1, 1, 3], &[2, 7]] {
        let (mut cache, mut at) = (model.new_cache(), 0);
        for piece in pieces.iter().cycle() {
            let end = row.len().min(at + piece);
            let cached = model.last_logits(ids(&row[at..end]), Some(&mut cache));
            let whole = model.last_logits(ids(&row[..end]), None);
            let largest = whole.clone().abs().max().into_scalar::<f32>();
            let off = (cached - whole).abs().max().into_scalar::<f32>();
            assert!(
                off <= 1e-4 * largest.max(1.0),
                "{}: after {end} tokens in pieces of {pieces:?} logits with a cache are off by {off}",
                case.folder.display()
            );
            at = end;
            if at == row.len() {
                break;
            }
        }
        assert_eq!(cache.len(), row.len());
    }
}

/// The model with a new adapter of all linear layers, away from the identity.
fn adapted(model: &CausalLm) -> (CausalLm, OftConfig) {
    let mut config = OftConfig::default();
    config.oft_block_size = 4;
    config.init_weights = false;
    config.common = CommonConfig::targeting("all-linear");
    let mut adapted = model.clone();
    let device = default_device().expect("a device").autodiff();
    let facts = ModelFacts::NONE.with_head(model.head());
    peft::attach(&mut adapted, &config, facts, ADAPTER, 1, &device).expect("an adapter fits");
    (adapted, config)
}

/// The gradient of each parameter, by its name.
type ByName = BTreeMap<String, Vec<f32>>;

fn add(sum: &mut ByName, gradients: Gradients, model: &CausalLm) {
    let mut gradients = GradientsParams::from_grads(gradients, model);
    for (path, layer) in model.layers() {
        let slots = layer.adapters().slots().iter();
        for param in slots.flat_map(|slot| slot.params()) {
            if let Some(gradient) = gradients.remove::<1>(param.id()) {
                let name = format!("{path}.{}", param.name());
                let values = gradient.into_data().iter::<f32>().collect();
                assert!(sum.insert(name, values).is_none(), "two gradients");
            }
        }
    }
}

fn gradients(case: &Case, model: &CausalLm) {
    let folder = case.folder.display();
    let ((model, _), row) = (adapted(model), case.longest());
    let (whole, mut expected) = (model.loss(ids(row), targets(row), 1.0), ByName::new());
    add(&mut expected, whole.backward(), &model);
    assert!(!expected.is_empty(), "{folder}: no gradient");

    let mut found = ByName::new();
    let mut sink = |part| add(&mut found, part, &model);
    let loss = model.backward_by_block(ids(row), targets(row), 1.0, &mut sink);
    let whole = whole.into_scalar::<f32>();
    assert!(
        (loss - whole).abs() <= 1e-6 * whole.abs(),
        "{folder}: the loss by block is {loss}, of the whole graph {whole}"
    );
    let largest = |values: &[f32]| values.iter().fold(0.0f32, |most, v| most.max(v.abs()));
    for (name, expected) in &expected {
        let found = found.get(name);
        let found = found.unwrap_or_else(|| panic!("{folder}: by block `{name}` has no gradient"));
        let off: Vec<f32> = found.iter().zip(expected).map(|(a, b)| a - b).collect();
        assert!(
            largest(&off) <= 1e-4 * largest(expected),
            "{folder}: by block the gradient of `{name}` is another one"
        );
    }

    let squares = expected.values().flatten().map(|&g| f64::from(g).powi(2));
    let square: f64 = squares.sum();
    // Where a router chooses other experts within a step, the loss jumps: a smaller step tells more there.
    let slopes = [0.003, 0.001, 0.0003].map(|step| {
        let step = step / square.sqrt();
        let at = |step| {
            let moved = moved(&model, &expected, step);
            f64::from(moved.loss(ids(row), targets(row), 1.0).into_scalar::<f32>())
        };
        (at(step) - at(-step)) / (2.0 * step)
    });
    assert!(
        slopes
            .iter()
            .any(|slope| (slope / square - 1.0).abs() < 0.02),
        "{folder}: the loss changes by {slopes:?}, by the gradients {square}"
    );
}

/// All parameters, moved along their gradients.
fn moved(model: &CausalLm, gradients: &ByName, step: f64) -> CausalLm {
    let mut model = model.clone();
    model.walk_mut("", &mut |path, layer| {
        for slot in layer.adapters_mut().slots_mut() {
            for param in slot.params_mut() {
                if let Some(gradient) = gradients.get(&format!("{path}.{}", param.name())) {
                    let values = param.to_vec().into_iter().zip(gradient);
                    param.set(values.map(|(v, g)| v + g * step as f32).collect());
                }
            }
        }
    });
    model
}

/// An adapter comes back from its folder.
fn saved(case: &Case, model: &CausalLm) {
    let (trained, config) = adapted(model);
    let folder = tempfile::tempdir().expect("a temporary folder");
    peft::save(&trained, &config, ADAPTER, folder.path()).expect("an adapter that can be saved");
    let (mut again, device) = (model.clone(), default_device().expect("a device"));
    let facts = ModelFacts::NONE.with_head(model.head());
    let families = Families::only(config.family());
    peft::load(
        &mut again,
        folder.path(),
        &families,
        facts,
        ADAPTER,
        &device,
    )
    .unwrap_or_else(|error| panic!("{}: {error}", case.folder.display()));
    let (expected, found) = (case.loss_of(&trained), case.loss_of(&again));
    assert!(
        (expected - found).abs() <= 1e-6 * expected,
        "{}: the saved adapter gives the loss {found}, not {expected}",
        case.folder.display()
    );
    assert!(
        (found - case.loss).abs() > 1e-6 * found,
        "{}: the adapter changes nothing",
        case.folder.display()
    );
}

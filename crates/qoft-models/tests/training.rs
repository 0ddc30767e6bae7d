//! Gradients through whole models reach the rotations of all layers.

use burn::module::{Param, ParamId};
use burn::tensor::{Device, Gradients, Int, Tensor};
use qoft_core::oft::{OftConfig, OftRotation, RotationSettings};
use qoft_core::{Checkpoint, Layer, LoadOptions, Registry, Walk};
use qoft_models::CausalLm;

fn load(case: &str) -> CausalLm {
    let checkpoint = Checkpoint::open(qoft_fixtures::path(&format!("models/{case}"))).unwrap();
    let (registry, options) = (Registry::linked().unwrap(), LoadOptions::default());
    let device = Device::flex();
    CausalLm::load(&checkpoint, &registry, &options, &device, &mut |_, _| {}).unwrap()
}

/// Adds a rotation to each layer, all with small parameters that differ from each other.
fn rotate(model: &mut CausalLm) {
    let device = Device::flex().autodiff();
    let mut id = 0;
    model.walk_mut("", &mut |_, layer| {
        let config = OftConfig {
            oft_block_size: 4,
            ..OftConfig::default()
        };
        let settings = RotationSettings::new(&config, layer.in_features());
        let [rows, cols] = settings.shape();
        id += 1;
        let value = |i: usize| 0.05 * ((i * 7 + id * 3) as f32).sin();
        let values = (0..rows * cols).map(value).collect();
        let id = ParamId::from(id as u64);
        let rotation = OftRotation::new(settings, values, id, &device);
        layer.adapters_mut().push("default", rotation).unwrap();
    });
}

/// Two rows of token ids, and what is to be predicted.
fn batch() -> (Tensor<2, Int>, Vec<Option<u32>>) {
    let ids = [
        [4, 9, 14, 19, 24, 29, 34, 39],
        [63, 51, 40, 30, 21, 13, 6, 0],
    ];
    let targets = ids.iter().flat_map(|row| {
        let next = row[1..].iter().map(|&id: &i64| u32::try_from(id).ok());
        next.chain([None])
    });
    let targets = targets.collect();
    (Tensor::from_data(ids, &Device::flex()), targets)
}

fn loss(model: &CausalLm) -> Tensor<1> {
    let (ids, targets) = batch();
    model.loss(ids, targets, 14.0)
}

/// The gradients of all layers' parameters; those of a part of the model may have none.
fn gradients(model: &CausalLm, all: &Gradients) -> Vec<Option<Tensor<2>>> {
    let layers = model.layers().into_iter();
    let grad = |(_, layer): (String, &dyn Layer)| {
        let params = layer.adapters().slots()[0].adapter().params();
        params[0].param.val().grad(all)
    };
    layers.map(grad).collect()
}

fn value(loss: Tensor<1>) -> f64 {
    f64::from(loss.into_scalar::<f32>())
}

/// Moves all parameters along `direction`, one tensor for each layer.
fn moved(model: &CausalLm, direction: &[Tensor<2>], step: f64) -> CausalLm {
    let (mut model, mut direction) = (model.clone(), direction.iter());
    model.walk_mut("", &mut |_, layer| {
        let adapter = layer.adapters_mut().slots_mut()[0].adapter_mut();
        let param = adapter.params()[0].param.clone();
        let value = param.val().inner() + direction.next().unwrap().clone() * step;
        adapter.set_params(vec![Param::initialized(param.id, value)]);
    });
    model
}

#[test]
fn the_loss_falls_as_fast_as_the_gradients_say() {
    for case in [
        "gpt2",
        "gpt2_options",
        "granite",
        "llama_bias",
        "mistral",
        "olmo2",
        "phi3_partial",
        "qwen2_sliding",
        "qwen3",
        "smollm3",
    ] {
        let mut model = load(case);
        rotate(&mut model);
        let directions = gradients(&model, &loss(&model).backward()).into_iter();
        let directions: Vec<_> = directions.map(|g| g.expect("a gradient")).collect();
        let squares = directions
            .iter()
            .map(|g| value(g.clone().powf_scalar(2.0).sum()));
        let square: f64 = squares.sum();
        let step = 0.003 / square.sqrt();
        let change = value(loss(&moved(&model, &directions, step)))
            - value(loss(&moved(&model, &directions, -step)));
        let slope = change / (2.0 * step);
        assert!(
            (slope / square - 1.0).abs() < 0.01,
            "{case}: {slope}, by the gradients {square}"
        );
    }
}

#[test]
fn block_by_block_the_gradients_are_the_same() {
    for case in ["gpt2", "gpt2_options", "granite", "llama"] {
        let mut model = load(case);
        rotate(&mut model);
        let whole = loss(&model);
        let expected = gradients(&model, &whole.backward());
        let mut found = vec![None; expected.len()];
        let (ids, targets) = batch();
        let value_by_block = model.backward_by_block(ids, targets, 14.0, &mut |part| {
            for (found, new) in found.iter_mut().zip(gradients(&model, &part)) {
                if let Some(new) = new {
                    assert!(
                        found.replace(new).is_none(),
                        "{case}: a gradient in two parts"
                    );
                }
            }
        });
        assert_eq!(f64::from(value_by_block), value(whole), "{case}");
        for (found, expected) in found.into_iter().zip(expected) {
            let (found, expected) = (found.unwrap(), expected.unwrap());
            assert_eq!(found.into_data(), expected.into_data(), "{case}");
        }
    }
}

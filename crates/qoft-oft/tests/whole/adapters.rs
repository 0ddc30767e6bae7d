//! Several adapters in one model.

use crate::common::{difference, linear, rotation, tensor};
use burn::module::Module;
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::{Device, Tensor};
use qoft_core::{AdapterSlot, Error, Layer, Linear, Pass, Walk, adapters, trainable_parameters};
use qoft_oft::OftConfig;
use qoft_peft::{self as peft, CommonConfig, Families, ModelFacts};

const FACTS: ModelFacts = ModelFacts::NONE;

#[derive(Module, Debug, Walk)]
struct Model {
    first: Linear,
    second: Linear,
}

impl Model {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.second.forward(self.first.forward(x).tanh())
    }
}

/// Adapters `a` on both layers and `b` on the first, on the devices given.
fn model(devices: [&Device; 2]) -> Model {
    let (mut first, mut second) = (linear([6, 8], 1), linear([3, 6], 3));
    let a = rotation(&first, 4, 11, devices[0]);
    first.push_adapter("a", a).unwrap();
    let b = rotation(&first, 8, 12, devices[1]);
    first.push_adapter("b", b).unwrap();
    let a = rotation(&second, 6, 13, devices[0]);
    second.push_adapter("a", a).unwrap();
    Model { first, second }
}

fn plain() -> Model {
    model([&Device::flex(), &Device::flex()])
}

#[test]
fn only_active_adapters_compute_in_the_order_given() {
    let x = tensor([5, 8], 20);
    let mut model = plain();
    assert_eq!(adapters::names(&model), ["a", "b"]);
    assert_eq!(adapters::active(&model), ["a", "b"]);
    let turned = |model: &Model, names: &[&str]| {
        let slots = names
            .iter()
            .filter_map(|name| model.first.adapters().get(name));
        let x = slots.fold(x.clone(), |x, slot| {
            slot.rotation().unwrap().forward(x.into(), Pass::EVALUATION)
        });
        let hidden = linear([6, 8], 1).forward(x).tanh();
        let slot = model.second.adapters().get("a");
        let slot = slot.filter(|_| names.contains(&"a"));
        let hidden = slot.iter().fold(hidden, |x, slot| {
            slot.rotation().unwrap().forward(x.into(), Pass::EVALUATION)
        });
        linear([3, 6], 3).forward(hidden)
    };
    let orders: [&[&str]; 5] = [&["a", "b"], &["b", "a"], &["a"], &["b"], &[]];
    let mut outputs: Vec<Tensor<2>> = Vec::new();
    for order in orders {
        adapters::activate(&mut model, order).unwrap();
        assert_eq!(adapters::active(&model), order);
        let y = model.forward(x.clone());
        assert!(
            difference(y.clone(), turned(&model, order)) < 1e-6,
            "{order:?}"
        );
        assert!(
            outputs
                .iter()
                .all(|other| difference(other.clone(), y.clone()) > 1e-2)
        );
        outputs.push(y);
    }
    adapters::activate(&mut model, &["b"]).unwrap();
    adapters::disable_all(&mut model);
    assert_eq!(difference(model.forward(x), outputs.remove(4)), 0.0);
    assert_eq!(adapters::names(&model), ["a", "b"]);
}

#[test]
fn unknown_and_double_names_are_errors_that_list_what_exists() {
    let mut model = plain();
    let unknown = |error: Error| {
        assert!(matches!(error, Error::UnknownAdapter { .. }));
        assert!(error.to_string().ends_with("adapters: a, b"), "{error}");
    };
    unknown(adapters::activate(&mut model, &["b", "c"]).unwrap_err());
    unknown(adapters::delete(&mut model, "c").unwrap_err());
    unknown(adapters::rename(&mut model, "c", "d").unwrap_err());
    unknown(peft::save(&model, &OftConfig::default(), "c", "".as_ref()).unwrap_err());
    let double = |error: Error| {
        assert!(matches!(error, Error::DuplicateAdapter { .. }));
        assert!(error.to_string().ends_with("adapters: a, b"), "{error}");
    };
    double(adapters::activate(&mut model, &["b", "b"]).unwrap_err());
    double(adapters::rename(&mut model, "a", "b").unwrap_err());
    let mut config = OftConfig::default();
    config.common = CommonConfig::targeting("all-linear");
    double(peft::attach(&mut model, &config, FACTS, "b", 1, &Device::flex()).unwrap_err());
    let slot = AdapterSlot::new(
        "b",
        model.first.adapters().slots()[0]
            .rotation()
            .unwrap()
            .boxed_clone(),
    );
    double(model.first.adapters_mut().push_slot(slot).unwrap_err());
    assert_eq!(adapters::active(&model), ["a", "b"]);
}

#[test]
fn adapters_are_deleted_and_renamed() {
    let mut model = plain();
    let id = |model: &Model| model.first.adapters().slots()[0].params()[0].id();
    let before = (id(&model), model.forward(tensor([5, 8], 20)));
    adapters::rename(&mut model, "a", "c").unwrap();
    assert_eq!(adapters::active(&model), ["c", "b"]);
    assert_ne!(id(&model), before.0);
    assert_eq!(difference(model.forward(tensor([5, 8], 20)), before.1), 0.0);
    adapters::delete(&mut model, "c").unwrap();
    assert_eq!(adapters::names(&model), ["b"]);
    assert!(model.second.adapters().slots().is_empty());
}

#[test]
fn only_adapters_on_an_autodiff_device_train() {
    let (flex, autodiff) = (Device::flex(), Device::flex().autodiff());
    for devices in [[&flex, &autodiff], [&autodiff, &flex]] {
        let model = model(devices);
        let trains = if devices[0].is_autodiff() { "a" } else { "b" };
        let x = tensor([5, 8], 20);
        let plain = plain().forward(x.clone());
        let y = model.forward(x.clone());
        assert!(difference(y.clone(), plain) < 1e-6);
        let gradients = y.powi_scalar(2).sum().backward();
        for (path, layer) in model.layers() {
            for slot in layer.adapters().slots() {
                let param = slot.params()[0];
                assert_eq!(param.device().is_autodiff(), slot.name() == trains);
                assert_eq!(slot.trains(), slot.name() == trains);
                if slot.trains() {
                    let gradient = param.gradient(&gradients).expect("a gradient");
                    assert!(gradient.abs().sum().into_scalar::<f32>() > 1e-3, "{path}");
                }
            }
        }
        let values = |model: &Model| {
            let slots = model.first.adapters().slots().iter();
            let params = slots.map(|slot| slot.params()[0].tensor::<2>());
            params.collect::<Vec<_>>()
        };
        let before = values(&model);
        let gradients = GradientsParams::from_grads(gradients, &model);
        let mut model = AdamConfig::new().init().step(0.1, model, gradients);
        for (index, name) in ["a", "b"].into_iter().enumerate() {
            let after = values(&model).remove(index);
            assert_eq!(after.device(), before[index].device());
            let moved = difference(after, before[index].clone());
            assert_eq!(moved > 0.05, name == trains, "{name}: {moved}");
            assert_eq!(moved == 0.0, name != trains, "{name}: {moved}");
        }
        let [a, b] = [2 * 6 + 15, 28];
        let base = 6 * 8 + 6 + 3 * 6 + 3;
        let counted = if trains == "a" { a } else { b };
        assert_eq!(trainable_parameters(&model), (counted, base + a + b));
        adapters::disable_all(&mut model);
        assert_eq!(trainable_parameters(&model).0, 0);
        assert!(!model.forward(x).device().is_autodiff());
    }
}

#[test]
fn each_adapter_saves_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = plain();
    let mut config = OftConfig::default();
    config.common = CommonConfig::targeting(["first"]);
    config.oft_block_size = 8;
    adapters::disable_all(&mut model);
    peft::save(&model, &config, "b", folder.path()).unwrap();
    let device = Device::flex();
    peft::load(
        &mut model,
        folder.path(),
        &Families::linked().unwrap(),
        FACTS,
        "again",
        &device,
    )
    .unwrap();
    let x = tensor([5, 8], 20);
    let again = model.forward(x.clone());
    adapters::activate(&mut model, &["b"]).unwrap();
    assert_eq!(difference(model.forward(x), again), 0.0);
}

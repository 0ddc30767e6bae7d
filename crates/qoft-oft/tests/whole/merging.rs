//! Merging in memory.

use std::sync::Arc;

use crate::common::{difference, linear, numbers, rotation, tensor};
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use qoft_core::kernels::{DenseWeight, FloatFormat};
use qoft_core::ops::Traced;
use qoft_core::{
    AdapterParam, Composition, Conv2d, Conv2dOptions, Embedding, Error, Layer, Linear,
    LoadedLinear, OftAdapter, Pass, Walk, adapters,
};
use qoft_oft::OftRotation;

#[derive(Module, Debug, Walk)]
struct Model {
    table: Embedding,
    proj: Linear,
    packed: Linear,
    conv: Conv2d,
}

impl Model {
    fn outputs(&self) -> Vec<Tensor<1>> {
        let ids = Tensor::<2, Int>::from_data([[1, 4, 0]], &Device::flex());
        vec![
            self.table.forward(ids).flatten(0, 2),
            self.proj.forward(tensor([5, 8], 30)).flatten(0, 1),
            self.packed.forward(tensor([5, 8], 31)).flatten(0, 1),
            self.conv.forward(tensor([1, 2, 6, 6], 32)).flatten(0, 3),
        ]
    }

    /// The largest difference of an output.
    fn off(&self, expected: &[Tensor<1>]) -> f32 {
        let pairs = self.outputs().into_iter().zip(expected);
        let differences = pairs.map(|(a, b)| difference(a, b.clone()));
        differences.fold(0.0, f32::max)
    }
}

fn model() -> Model {
    let table = DenseWeight::from_f32(&numbers(5 * 8, 40), [5, 8]);
    let bytes = FloatFormat::Bf16.to_bytes(&numbers(6 * 8, 41));
    let packed = LoadedLinear::new(DenseWeight::new(bytes.into(), FloatFormat::Bf16, [6, 8]));
    let device = Device::flex();
    let mut model = Model {
        table: Embedding::new(Arc::new(table)),
        proj: linear([6, 8], 42),
        packed: Linear::new(packed, &device),
        conv: Conv2d::new(tensor([4, 2, 3, 3], 43), None, Conv2dOptions::default()),
    };
    let layers: [&mut dyn Layer; 4] = [
        &mut model.table,
        &mut model.proj,
        &mut model.packed,
        &mut model.conv,
    ];
    for (layer, seed) in layers.into_iter().zip(50..) {
        let [a, b] = [
            rotation(layer, 4, seed, &device),
            rotation(layer, 6, seed + 9, &device),
        ];
        layer.adapters_mut().push("a", a).unwrap();
        layer.adapters_mut().push("b", b).unwrap();
    }
    model
}

#[test]
fn merged_layers_compute_what_adapted_ones_do_and_come_back() {
    let mut model = model();
    let adapted = model.outputs();
    adapters::disable_all(&mut model);
    let base = model.outputs();
    assert!(
        adapted
            .iter()
            .zip(&base)
            .all(|(a, b)| difference(a.clone(), b.clone()) > 0.1)
    );

    adapters::activate(&mut model, &["a", "b"]).unwrap();
    adapters::merge(&mut model).unwrap();
    assert_eq!(adapters::active(&model), [""; 0]);
    assert!(model.off(&adapted) < 1e-5, "{}", model.off(&adapted));

    adapters::unmerge(&mut model).unwrap();
    assert_eq!(adapters::active(&model), ["a", "b"]);
    assert!(model.off(&adapted) < 1e-5, "{}", model.off(&adapted));
    adapters::disable_all(&mut model);
    assert!(model.off(&base) < 1e-5, "{}", model.off(&base));
    let packed = model.packed.forward(tensor([5, 8], 31)).flatten(0, 1);
    assert_eq!(difference(packed, base[2].clone()), 0.0);
}

#[test]
fn merging_in_two_steps_keeps_the_order() {
    let mut model = model();
    // What a table holds is applied first, what a weight holds last.
    let orders: [[&[&str]; 3]; 2] = [[&["a"], &["b"], &["a", "b"]], [&["a"], &["b"], &["b", "a"]]];
    for ([first, second, both], range) in orders.into_iter().zip([0..1, 1..4]) {
        adapters::activate(&mut model, both).unwrap();
        let adapted = model.outputs();
        adapters::activate(&mut model, first).unwrap();
        adapters::merge(&mut model).unwrap();
        adapters::activate(&mut model, second).unwrap();
        let off = |model: &Model| {
            let outputs = model.outputs();
            let pairs = outputs[range.clone()].iter().zip(&adapted[range.clone()]);
            pairs
                .map(|(a, b)| difference(a.clone(), b.clone()))
                .fold(0.0, f32::max)
        };
        assert!(off(&model) < 1e-5, "{}", off(&model));
        adapters::merge(&mut model).unwrap();
        assert!(off(&model) < 1e-5, "{}", off(&model));
        adapters::unmerge(&mut model).unwrap();
        assert!(off(&model) < 1e-5, "{}", off(&model));
    }
}

#[test]
fn merged_adapters_can_be_renamed_but_neither_activated_nor_deleted() {
    let mut model = model();
    adapters::activate(&mut model, &["a"]).unwrap();
    adapters::merge(&mut model).unwrap();
    for error in [
        adapters::activate(&mut model, &["a"]).unwrap_err(),
        adapters::delete(&mut model, "a").unwrap_err(),
    ] {
        assert!(
            matches!(&error, Error::AdapterState { name, .. } if name == "a"),
            "{error}"
        );
    }
    adapters::rename(&mut model, "a", "c").unwrap();
    adapters::unmerge(&mut model).unwrap();
    assert_eq!(adapters::active(&model), ["c"]);
}

#[test]
fn a_merge_that_fails_changes_nothing() {
    let mut model = model();
    let adapted = model.outputs();
    let mut broken = rotation(&model.conv, 4, 1, &Device::flex());
    let nan = vec![f32::NAN; broken.params()[0].len()];
    broken.params_mut()[0].set(nan);
    let before = model.clone();
    model.conv.push_adapter("broken", broken).unwrap();
    let error = adapters::merge(&mut model).unwrap_err().to_string();
    assert!(error.contains("layer `conv`"), "{error}");
    adapters::delete(&mut model, "broken").unwrap();
    assert_eq!(model.off(&adapted), 0.0);
    assert_eq!(model.proj.base_weight(), before.proj.base_weight());
    assert_eq!(adapters::active(&model), ["a", "b"]);
}

/// A rotation that cannot be taken back.
#[derive(Debug, Clone)]
struct NoInverse(OftRotation);

impl OftAdapter for NoInverse {
    fn forward(&self, x: Traced<2>, pass: Pass) -> Tensor<2> {
        self.0.forward(x, pass)
    }

    fn rotate_weight(&self, weight: Tensor<2>, pass: Pass) -> Tensor<2> {
        self.0.rotate_weight(weight, pass)
    }

    fn unrotate_weight(&self, _: Tensor<2>) -> Option<Tensor<2>> {
        None
    }

    fn composition(&self) -> Composition {
        self.0.composition()
    }

    fn params(&self) -> Vec<&AdapterParam> {
        self.0.params()
    }

    fn params_mut(&mut self) -> Vec<&mut AdapterParam> {
        self.0.params_mut()
    }

    fn boxed_clone(&self) -> Box<dyn OftAdapter> {
        Box::new(self.clone())
    }
}

#[test]
fn an_unmerge_that_fails_leaves_all_layers_merged() {
    let mut model = model();
    let last = NoInverse(rotation(&model.conv, 4, 1, &Device::flex()));
    model.conv.push_adapter("last", last).unwrap();
    let adapted = model.outputs();
    adapters::merge(&mut model).unwrap();
    let merged = model.outputs();
    let error = adapters::unmerge(&mut model).unwrap_err().to_string();
    assert!(
        error.contains("`last`") && error.contains("layer `conv`"),
        "{error}"
    );
    assert_eq!(model.off(&merged), 0.0);
    assert!(model.off(&adapted) < 1e-5);
    assert_eq!(adapters::active(&model), [""; 0]);
    // Other weights come back from what was kept.
    let last = NoInverse(rotation(&model.packed, 4, 1, &Device::flex()));
    let mut packed = self::model().packed;
    let before = packed.base_weight();
    packed.push_adapter("last", last).unwrap();
    adapters::merge(&mut packed).unwrap();
    adapters::unmerge(&mut packed).unwrap();
    assert_eq!(packed.base_weight(), before);
}

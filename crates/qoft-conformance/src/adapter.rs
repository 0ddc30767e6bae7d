//! An adapter on a layer: its gradient, and its way through a folder.

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use qoft_core::{Layer as _, Linear, Matrix, Purpose, Walk};
use qoft_oft::OftConfig;
use qoft_peft::{self as peft, CommonConfig, Families, ModelFacts};

use crate::compute::{device, random};
use crate::layer::Layer;

/// A model of one layer.
#[derive(Module, Debug, Walk)]
struct Model {
    proj: Linear,
}

const ADAPTER: &str = "default";
const FACTS: ModelFacts = ModelFacts::NONE;

/// The gradient of the rotation equals finite differences, and a saved adapter comes back.
pub(crate) fn check(layer: &Layer) {
    let device = device();
    let trained = model(layer, &device.clone().autodiff());
    check_gradient(layer, &trained);

    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = config(trained.proj.in_features());
    peft::save(&trained, &config, ADAPTER, folder.path()).expect("an adapter that can be saved");
    let mut again = bare(layer, &device);
    peft::load(
        &mut again,
        folder.path(),
        &Families::linked().unwrap(),
        FACTS,
        ADAPTER,
        &device,
    )
    .unwrap_or_else(|e| panic!("{layer}: {e}"));
    let x = input(&again, &device);
    let y = values(again.proj.forward(x.clone()));
    let expected = values(trained.valid().proj.forward(x.clone()));
    assert_eq!(y, expected, "{layer}: the saved adapter computes otherwise");
    let weight = Matrix::decode(&**again.proj.weight());
    let zero = weight.values.iter().all(|w| *w == 0.0);
    let base = values(bare(layer, &device).proj.forward(x));
    assert!(zero || y != base, "{layer}: the adapter changes nothing");
}

/// Small blocks that divide the input.
fn config(in_features: usize) -> OftConfig {
    let divides = |size: &usize| in_features.is_multiple_of(*size);
    let mut config = OftConfig::default();
    config.oft_block_size = (3..in_features).find(divides).unwrap_or(in_features);
    config.r = 0;
    config.init_weights = false;
    config.use_cayley_neumann = false;
    config.common = CommonConfig::targeting("all-linear");
    config
}

fn bare(layer: &Layer, device: &Device) -> Model {
    let proj = Linear::new(layer.load(Purpose::Forward), device);
    Model { proj }
}

fn model(layer: &Layer, device: &Device) -> Model {
    let mut model = bare(layer, device);
    let config = config(model.proj.in_features());
    peft::attach(&mut model, &config, FACTS, ADAPTER, 5, device)
        .unwrap_or_else(|e| panic!("{layer}: {e}"));
    model
}

fn input(model: &Model, device: &Device) -> Tensor<2> {
    let k = model.proj.in_features();
    Tensor::from_data(TensorData::new(random(3 * k, 3), [3, k]), device)
}

fn values(tensor: Tensor<2>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// Compares a few parameters' gradients of `Σ c ∘ y` with central differences.
///
/// Input quantization is a step function, for which differences mean nothing; its gradient
/// passes unchanged, so the layer is checked without it.
fn check_gradient(layer: &Layer, model: &Model) {
    let device = device().autodiff();
    let mut loaded = layer.load(Purpose::Forward);
    loaded.input_quantizer = None;
    let mut proj = Linear::new(loaded, &device);
    for slot in model.proj.adapters().slots() {
        let added = proj.adapters_mut().push_slot(slot.clone());
        added.expect("a layer without adapters");
    }
    let x = input(model, &device);
    let [rows, _] = x.dims();
    let n = proj.out_features();
    let c = Tensor::<2>::from_data(TensorData::new(random(rows * n, 4), [rows, n]), &device);
    let loss = |proj: &Linear| (proj.forward(x.clone()) * c.clone()).sum();

    let param = proj.adapters().slots()[0].params()[0];
    let gradients = loss(&proj).backward();
    let gradient = param.gradient(&gradients).expect("parameters that train");
    let gradient: Vec<f32> = gradient.into_data().iter().collect();
    let start = param.to_vec();
    let at_value = |index: usize, value: f32| {
        let mut changed = start.clone();
        changed[index] = value;
        let mut proj = proj.clone();
        proj.adapters_mut().slots_mut()[0].params_mut()[0].set(changed);
        f64::from(loss(&proj).into_scalar::<f32>())
    };
    let size = gradient.iter().fold(1e-3f32, |max, g| max.max(g.abs()));
    for index in [0, start.len() / 2, start.len() - 1] {
        let step = 1e-2f32;
        let (up, down) = (start[index] + step, start[index] - step);
        let difference = (at_value(index, up) - at_value(index, down)) / f64::from(up - down);
        let off = (difference - f64::from(gradient[index])).abs();
        assert!(
            off <= 1e-2 * f64::from(size),
            "{layer}: gradient of parameter {index} is {}, finite differences give {difference}",
            gradient[index]
        );
    }
}

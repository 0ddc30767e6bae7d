//! PEFT's list of OFT configurations.

use std::collections::BTreeSet;

use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{Device, Tensor};
use qoft::core::Error;
use qoft::core::Pass;
use qoft::nn::{self, Linear, OftConfig};

use crate::fixture::{Tensors, config, json, near, numbers, off, path};
use crate::models::{ConvNet, EmbConv1d, Mlp, Net};

const NAME: &str = "default";

/// All cases of a model.
fn cases(model: &str) -> Vec<String> {
    let expected = json("expected.json");
    let cases = expected["cases"].as_object().unwrap().iter();
    let cases = cases.filter(|(_, value)| value["model"] == model);
    cases.map(|(case, _)| case.clone()).collect()
}

/// The model with the adapter of the case.
fn adapted<N: Net>(case: &str, device: &Device) -> N {
    let mut model = N::load();
    nn::load(
        &mut model,
        &path(case),
        &nn::Families::linked().unwrap(),
        NAME,
        device,
    )
    .unwrap_or_else(|e| panic!("{case}: {e}"));
    model
}

/// Output with, without, merged and unmerged; saved, loaded and deleted.
fn outputs<N: Net>(case: &str) {
    let expected = Tensors::open(&format!("{case}/expected.safetensors"));
    let input = N::input(&expected);
    let [base, with, merged] = ["base", "adapted", "merged"].map(|name| expected.float(name));
    near(&N::load().run(input.clone()), &base, case);

    let device = Device::flex();
    let mut model: N = adapted(case, &device);
    let run = |model: &N| model.run(input.clone());
    near(&run(&model), &with, case);
    // Constrained OFT changes little: what is near must be nearer than the base is.
    let distance = |a: &Tensor<2>, b: &Tensor<2>| (a.clone() - b.clone()).abs().max();
    let [change, error] = [&base, &run(&model)].map(|y| distance(y, &with).into_scalar::<f32>());
    assert!(error < 0.05 * change, "{case}: {error} {change}");
    // Its projection of the parameters leaves no trace.
    near(&run(&model), &with, case);
    nn::disable_all(&mut model);
    near(&run(&model), &base, case);
    nn::activate(&mut model, &[NAME]).unwrap();
    nn::merge(&mut model).unwrap();
    near(&run(&model), &merged, case);
    assert!(matches!(
        nn::delete(&mut model, NAME),
        Err(Error::AdapterState { .. })
    ));
    nn::unmerge(&mut model).unwrap();
    near(&run(&model), &with, case);

    let folder = tempfile::tempdir().unwrap();
    nn::save(&model, &config(case), NAME, folder.path()).unwrap();
    // Of two adapters with the same whole module only one can be there.
    nn::disable_all(&mut model);
    nn::load(
        &mut model,
        folder.path(),
        &nn::Families::linked().unwrap(),
        "again",
        &device,
    )
    .unwrap();
    nn::delete(&mut model, NAME).unwrap();
    assert_eq!(nn::active(&model), ["again"]);
    near(&run(&model), &with, case);
    nn::delete(&mut model, "again").unwrap();
    near(&run(&model), &base, case);
}

/// A new adapter with the same configuration.
fn identity<N: Net>(case: &str) {
    let expected = Tensors::open(&format!("{case}/expected.safetensors"));
    let (input, mut model) = (N::input(&expected), N::load());
    let device = Device::flex();
    let count = nn::inject(&mut model, &config(case), NAME, 1, &device).unwrap();
    assert_eq!(count, 1, "{case}");
    near(&model.run(input.clone()), &expected.float("base"), case);
    nn::merge(&mut model).unwrap();
    near(&model.run(input), &expected.float("base"), case);
}

/// Gradients are PEFT's, and a step of an optimizer moves the adapter and nothing else.
fn training<N: Net>(case: &str) {
    let expected = Tensors::open(&format!("{case}/expected.safetensors"));
    let input = N::input(&expected);
    let mut model: N = adapted(case, &Device::flex().autodiff());
    nn::begin(&mut model, nn::Draw::new(1, 0, 0));
    let y = model.run(input.clone());
    near(&y, &expected.float("adapted"), case);
    let weights = numbers(y.dims()).autodiff();
    let gradients = (y * weights).sum().backward();
    let mut seen = Vec::new();
    for (path, layer) in model.layers() {
        for rotation in layer.adapters().rotations() {
            let wanted: Tensor<2> = expected.float(&format!("grad.{path}"));
            let found = rotation.params()[0].gradient(&gradients);
            let found = found.expect("a gradient").reshape(wanted.dims());
            let size = wanted.clone().abs().max().into_scalar::<f32>().max(1e-3);
            near(
                &(found / size),
                &(wanted / size),
                &format!("{case}: {path}"),
            );
            seen.push(format!("grad.{path}"));
        }
    }
    let wanted = expected.names().into_iter();
    let wanted: Vec<String> = wanted.filter(|name| name.starts_with("grad.")).collect();
    assert_eq!(seen, wanted, "{case}");

    let before = parameters(&model);
    let gradients = GradientsParams::from_grads(gradients, &model);
    let mut model = SgdConfig::new().init().step(0.5, model, gradients);
    for (before, after) in before.iter().zip(parameters(&model)) {
        assert!(off(&after, before) > 1e-6, "{case}");
    }
    nn::disable_all(&mut model);
    assert_eq!(off(&model.run(input.clone()), &N::load().run(input)), 0.0);
}

/// Those of all adapters.
fn parameters<N: Net>(model: &N) -> Vec<Tensor<1>> {
    let layers = model.layers().into_iter();
    let slots = layers.flat_map(|(_, layer)| layer.adapters().slots());
    let params = slots.flat_map(|slot| slot.params());
    let params = params.map(|param| Tensor::from_data(param.to_vec().as_slice(), &Device::flex()));
    params.collect()
}

/// All of the above for each case of a model.
fn all<N: Net>(model: &str, count: usize) {
    let cases = cases(model);
    assert_eq!(cases.len(), count);
    for case in cases {
        outputs::<N>(&case);
        identity::<N>(&case);
        training::<N>(&case);
    }
}

#[test]
fn linear_layers() {
    all::<Mlp>("mlp", 11);
}

#[test]
fn embeddings() {
    all::<EmbConv1d>("emb_conv1d", 2);
}

#[test]
fn convolutions() {
    all::<ConvNet>("conv2d", 4);
}

#[test]
fn a_whole_module_beside_the_adapter() {
    let device = Device::flex();
    let mut model: Mlp = adapted("mlp_5", &device);
    let theirs = Tensors::open("mlp_5/adapter_model.safetensors");
    let whole = nn::Layer::adapters(&model.lin1).get(NAME).unwrap();
    assert!(whole.rotation().is_none());
    for param in whole.params() {
        let name = format!("base_model.model.lin1.{}", param.name());
        let wanted = match param.name() {
            "bias" => theirs.float::<1>(&name).into_data(),
            _ => theirs.float::<2>(&name).into_data(),
        };
        assert_eq!(
            param.to_vec(),
            wanted.try_to_vec::<f32>().unwrap(),
            "{name}"
        );
    }

    let folder = tempfile::tempdir().unwrap();
    nn::save(&model, &config("mlp_5"), NAME, folder.path()).unwrap();
    let ours = std::fs::read(folder.path().join("adapter_model.safetensors")).unwrap();
    let ours = safetensors::SafeTensors::deserialize(&ours).unwrap();
    let ours: BTreeSet<String> = ours.names().into_iter().map(str::to_owned).collect();
    assert_eq!(ours, theirs.names().into_iter().collect());

    let error = nn::load(
        &mut model,
        &path("mlp_5"),
        &nn::Families::linked().unwrap(),
        "second",
        &device,
    )
    .unwrap_err();
    assert!(error.to_string().contains("only one of them"), "{error}");
}

/// PEFT has no OFT for this kind of layer.
#[test]
fn a_weight_that_is_stored_as_in_out_is_turned_like_any_other() {
    let mut config = OftConfig::default();
    config.common = nn::CommonConfig::targeting(["conv1d"]);
    config.oft_block_size = 5;
    config.init_weights = false;
    let (device, mut model) = (Device::flex(), EmbConv1d::load());
    let expected = Tensors::open("embedding_conv1d_1/expected.safetensors");
    let ids = EmbConv1d::input(&expected);
    nn::inject(&mut model, &config, NAME, 1, &device).unwrap();
    let x = model.emb.forward(ids.clone()).reshape([90, 5]);
    let slot = &nn::Layer::adapters(&model.conv1d).slots()[0];
    let turned = slot
        .rotation()
        .unwrap()
        .forward(x.clone().into(), Pass::EVALUATION);
    assert!(off(&turned, &x) > 1e-2);
    let plain = |conv1d: &Linear| conv1d.forward(turned.clone());
    let wanted = plain(&EmbConv1d::load().conv1d);
    near(&model.conv1d.forward(x.clone()), &wanted, "adapted");
    nn::merge(&mut model).unwrap();
    near(&model.conv1d.forward(x), &wanted, "merged");
}

#[test]
fn rows_are_turned_whatever_the_rank_of_the_input() {
    let model: Mlp = adapted("four_dimensions", &Device::flex());
    let expected: Tensor<4> =
        Tensors::open("four_dimensions/expected.safetensors").float("adapted");
    let x = numbers([2, 3, 4, 10]);
    near(&model.forward(x.clone()), &expected, "four dimensions");
    let row = model.forward(x.slice([1..2, 2..3, 3..4, 0..10]).reshape([10]));
    let wanted = expected.slice([1..2, 2..3, 3..4, 0..2]).reshape([2]);
    near(&row, &wanted, "one dimension");
}

//! What a rotation computes, and its gradients.

use burn::tensor::{Device, Gradients, Tensor};
use qoft_core::{AdapterParam, Layer, OftAdapter, Pass, Walk};

use super::case::{Case, ROUNDING, Start, draw};
use super::model::{Model, off, tensor, values};
use crate::compute::{device, random};

pub(super) fn check(case: &Case) {
    let model = case.trained(1, &device());
    for (path, layer) in model.layers() {
        if let Some(rotation) = layer.adapters().rotations().next() {
            orthogonal(case, &path, layer.in_features(), rotation);
            sides(case, &path, layer, rotation);
        }
    }
    gradients(case);
    input_gradient(case);
}

/// `RᵀR` is as near to the identity as the rotation says.
fn orthogonal(case: &Case, path: &str, features: usize, rotation: &dyn OftAdapter) {
    let identity = Tensor::<2>::eye(features, &device());
    let turned = rotation.forward(identity.clone().into(), Pass::EVALUATION);
    let off = turned.clone().transpose().matmul(turned) - identity;
    let off = f64::from(off.square().sum().sqrt().into_scalar::<f32>());
    let (told, size) = (rotation.orthogonality_error(), features as f64);
    assert!(
        off <= 1.01 * told * size.sqrt() + 1e-5 * size,
        "{case}: `{path}`: ‖RᵀR − I‖ is {off}, by `orthogonality_error` {told} a block"
    );
}

/// Fails unless values are the same up to what `f32` rounds.
fn near(case: &Case, path: &str, found: Tensor<2>, expected: Tensor<2>, what: &str) {
    let (found, expected) = (values(found), values(expected));
    let size = expected.iter().fold(1.0f32, |most, v| most.max(v.abs()));
    let off = off(&found, &expected);
    assert!(
        off <= ROUNDING * size,
        "{case}: `{path}`: {what} is off by {off}"
    );
}

fn sides(case: &Case, path: &str, layer: &dyn Layer, rotation: &dyn OftAdapter) {
    let (features, outputs) = (layer.in_features(), layer.out_features());
    let x: Tensor<2> = tensor([3, features], 20);
    let weight: Tensor<2> = tensor([outputs, features], 21);
    for pass in [Pass::EVALUATION, Pass::training(draw())] {
        let y = rotation.forward(x.clone().into(), pass);
        assert_eq!(
            y.dims(),
            x.dims(),
            "{case}: `{path}`: the shape of `forward`"
        );
        let y = y.matmul(weight.clone().transpose());
        let y = match rotation.output_side() {
            Some(side) => side.output(y),
            None => y,
        };
        let turned = rotation.rotate_weight(weight.clone(), pass);
        let expected = x.clone().matmul(turned.transpose());
        near(
            case,
            path,
            y,
            expected,
            "turning the input instead of the weight",
        );
    }
    let (pass, what) = (Pass::EVALUATION, "turning back");
    let there = rotation.forward(x.clone().into(), pass);
    if let Some(back) = rotation.unrotate(there) {
        near(case, path, back, x, what);
    }
    let there = rotation.rotate_weight(weight.clone(), pass);
    if let Some(back) = rotation.unrotate_weight(there) {
        near(case, path, back, weight, what);
    }
}

/// `Σ c ∘ y` over all layers, for fixed numbers `c`.
fn weights(count: usize) -> Vec<f32> {
    random(count, 22)
}

fn loss(model: &Model) -> f64 {
    let outputs = model.outputs().into_iter();
    outputs
        .map(|(_, y)| {
            let y = values(y);
            let products = y.iter().zip(weights(y.len()));
            products
                .map(|(y, c)| f64::from(*y) * f64::from(c))
                .sum::<f64>()
        })
        .sum()
}

fn backward(case: &Case, model: &Model) -> Gradients {
    let losses = model.outputs().into_iter().filter_map(|(_, y)| {
        let c = weights(y.dims()[0]);
        let c = Tensor::<1>::from_data(c.as_slice(), &device());
        // Layers without a rotation have nothing to train.
        y.is_tracked().then(|| (y * c.autodiff()).sum())
    });
    let sum = losses.reduce(|sum, loss| sum + loss);
    let sum = sum.unwrap_or_else(|| panic!("{case}: no gradient reaches the parameters"));
    sum.backward()
}

/// Changes a parameter, by its path and its number.
fn with(model: &Model, at: (&str, usize), change: impl Fn(usize, f32) -> f32) -> Model {
    let mut changed = model.clone();
    changed.walk_mut("", &mut |path, layer| {
        if path == at.0 {
            let slots = layer.adapters_mut().slots_mut();
            let mut params = slots[0].params_mut();
            let values = params[at.1].to_vec().into_iter().enumerate();
            let values = values.map(|(index, value)| change(index, value)).collect();
            params[at.1].set(values);
        }
    });
    changed
}

/// The gradient of each parameter against differences: along itself, and of single values.
fn gradients(case: &Case) {
    let model = case.trained(1, &device().autodiff());
    let found = backward(case, &model);
    for (path, rotation) in Case::rotations(&model) {
        for (number, param) in rotation.params().into_iter().enumerate() {
            gradient(case, &model, &found, (&path, number), param);
        }
    }
}

fn gradient(
    case: &Case,
    model: &Model,
    gradients: &Gradients,
    at: (&str, usize),
    param: &AdapterParam,
) {
    let name = format!("`{}.{}`", at.0, param.name());
    // A parameter that nothing depends on may have none.
    let gradient = param.gradient(gradients);
    let gradient = gradient.map_or_else(|| vec![0.0; param.len()], values);
    let square: f64 = gradient.iter().map(|g| f64::from(*g).powi(2)).sum();
    if square > 1e-8 {
        let step = 0.01 / square.sqrt();
        let by = |sign: f64| {
            let moved = |i: usize, v: f32| v + (sign * step * f64::from(gradient[i])) as f32;
            loss(&with(model, at, moved))
        };
        let slope = (by(1.0) - by(-1.0)) / (2.0 * step);
        assert!(
            (slope / square - 1.0).abs() < 0.02,
            "{case}: along the gradient of {name} the output changes by {slope}, by the gradient {square}"
        );
    }
    let most = gradient.iter().enumerate();
    let most = most.max_by(|a, b| a.1.abs().total_cmp(&b.1.abs()));
    let (most, size) = most.map_or((0, 0.0), |(index, g)| (index, g.abs()));
    for index in [0, param.len() / 3, most, param.len() - 1] {
        let step = 1e-2f32;
        let by = |sign: f32| {
            let moved = |i: usize, v: f32| if i == index { v + sign * step } else { v };
            loss(&with(model, at, moved))
        };
        let difference = (by(1.0) - by(-1.0)) / f64::from(2.0 * step);
        let off = (difference - f64::from(gradient[index])).abs();
        assert!(
            off <= 1e-2 * f64::from(size).max(0.1),
            "{case}: the gradient of {name} at {index} is {}, by differences {difference}",
            gradient[index]
        );
    }
}

/// The gradient that goes on to the layers before.
fn input_gradient(case: &Case) {
    let model = case.trained(1, &device().autodiff());
    let x: Tensor<2> = tensor([3, 48], 23).autodiff().require_grad();
    let c = |device: &Device| {
        let c: Tensor<2> = tensor([3, 10], 24);
        if device.is_autodiff() {
            c.autodiff()
        } else {
            c
        }
    };
    let y = model.first(x.clone());
    let gradients = (y.clone() * c(&y.device())).sum().backward();
    let gradient = x.grad(&gradients);
    let gradient = gradient.unwrap_or_else(|| panic!("{case}: no gradient of the input"));
    let square = f64::from(gradient.clone().square().sum().into_scalar::<f32>());
    // The layer is linear in its input.
    let frozen = case.trained(1, &device());
    let [there, here] = [x.inner() + gradient.clone(), tensor([3, 48], 23)].map(|x| {
        let products = frozen.first(x) * c(&device());
        f64::from(products.sum().into_scalar::<f32>())
    });
    if case.start != Start::Dropout {
        assert!(
            ((there - here) / square - 1.0).abs() < 1e-3,
            "{case}: along the gradient of the input the output changes by {}, by the gradient {square}",
            there - here
        );
    }
}

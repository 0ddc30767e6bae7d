//! Products in bfloat16 keep losses and the direction of gradients.

use crate::common::{ByLayer, CASES, add, batch, cosine, load, rotate};
use burn::tensor::{Int, Tensor};
use qoft_core::adapters;
use qoft_core::kernels::ComputeDtype;
use qoft_models::CausalLm;

/// Enough rows for products in bfloat16: those of [`batch`], again and again.
fn rows() -> (Tensor<2, Int>, Vec<Option<u32>>, f64) {
    const TIMES: usize = 8;
    let (ids, targets, count) = batch();
    let ids = Tensor::cat(vec![ids; TIMES], 0);
    (ids, targets.repeat(TIMES), count * TIMES as f64)
}

fn loss(model: &CausalLm) -> Tensor<1> {
    let (ids, targets, count) = rows();
    model.loss(ids, targets, count)
}

/// The loss and the gradients of all rotations.
fn backward(model: &CausalLm) -> (f64, ByLayer) {
    let (loss, mut sum) = (loss(model), ByLayer::new());
    add(&mut sum, loss.backward(), model);
    (loss.into_scalar::<f32>().into(), sum)
}

#[test]
fn losses_and_gradients_are_close_to_those_of_f32() {
    for case in CASES {
        let mut model = load(case);
        rotate(&mut model, 0.0, |_| true);
        let (exact, of_exact) = backward(&model);
        model.set_compute_dtype(ComputeDtype::Bf16);
        let (rounded, of_rounded) = backward(&model);
        let off = (rounded - exact).abs() / exact;
        let similarity = cosine(&of_exact, &of_rounded);
        println!("{case}: {exact} {rounded} {off:.1e}, cosine {similarity:.6}");
        // Where a token is between two experts, rounding may lead it to the other one.
        let routes = model.spec().layers().iter().any(|layer| layer.routes);
        let [far, alike] = if routes { [3e-2, 0.8] } else { [5e-3, 0.99] };
        assert!(
            rounded != exact && off < far,
            "{case}: {rounded} for {exact}"
        );
        assert!(similarity > alike, "{case}: {similarity}");
        model.set_compute_dtype(ComputeDtype::F32);
        assert_eq!(backward(&model), (exact, of_exact), "{case}");
    }
}

/// A merged weight is another one, whose products are computed as before.
#[test]
fn merging_keeps_the_dtype() {
    let value = |model: &CausalLm| loss(model).into_scalar::<f32>();
    let mut model = load("qwen3");
    rotate(&mut model, 0.0, |_| true);
    model.set_compute_dtype(ComputeDtype::Bf16);
    let before = value(&model);
    adapters::merge(&mut model).unwrap();
    let merged = value(&model);
    model.set_compute_dtype(ComputeDtype::F32);
    assert_ne!(merged, value(&model));
    model.set_compute_dtype(ComputeDtype::Bf16);
    adapters::unmerge(&mut model).unwrap();
    assert_eq!(before, value(&model));
}

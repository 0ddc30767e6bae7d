//! How evenly routers distribute tokens: the auxiliary loss of Switch Transformer, as transformers computes
//! it for all layers together (`load_balancing_loss_func`).

use burn::tensor::activation::softmax;
use burn::tensor::{Tensor, TensorData};
use qoft_core::ops;

use super::router::RouterConfig;

/// What the tokens of a layer say, `[2, 1, experts]`: how many of those that count go to each expert, and
/// the sum of its probabilities. `chosen` are the experts of each token, one token after another. What
/// several layers say is added up.
pub fn balance(
    router: &RouterConfig,
    logits: Tensor<2>,
    chosen: &[usize],
    counted: &[bool],
) -> Tensor<3> {
    let [tokens, experts] = logits.dims();
    let mut counts = vec![0.0f32; experts];
    let of_tokens = chosen.chunks_exact(router.top_k).zip(counted);
    for &expert in of_tokens
        .filter(|(_, counted)| **counted)
        .flat_map(|(chosen, _)| chosen)
    {
        counts[expert] += 1.0;
    }
    let device = logits.device().without_autodiff();
    let counts = Tensor::<2>::from_data(TensorData::new(counts, [1, experts]), &device);
    let mask: Vec<f32> = counted
        .iter()
        .map(|&counted| f32::from(u8::from(counted)))
        .collect();
    let mask = Tensor::<2>::from_data(TensorData::new(mask, [tokens, 1]), &device);
    let (shares, mask) = ops::lifted(softmax(logits, 1), mask);
    let (shares, counts) = ops::lifted((shares * mask).sum_dim(0), counts);
    Tensor::cat(vec![counts, shares], 0).unsqueeze_dim(1)
}

/// Two of them together.
pub fn added(a: Option<Tensor<3>>, b: Tensor<3>) -> Tensor<3> {
    match a {
        None => b,
        Some(a) => {
            let (a, b) = ops::lifted(a, b);
            a + b
        }
    }
}

/// `experts · Σ share of tokens · mean probability`, over all experts. Only probabilities have gradients.
pub fn balance_loss(balance: &Tensor<3>) -> Tensor<1> {
    let [_, _, experts] = balance.dims();
    let part = |index| balance.clone().narrow(0, index, 1).reshape([experts]);
    let (counts, shares): (Tensor<1>, Tensor<1>) = (part(0).detach(), part(1));
    // The probabilities of a token add up to 1: so many tokens there are in all layers.
    let tokens = f64::from(shares.clone().detach().sum().into_scalar::<f32>()).round();
    (counts * shares).sum() * (experts as f64 / (tokens * tokens).max(1.0))
}

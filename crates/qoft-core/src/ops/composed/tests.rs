//! The composed operations, on the device that `QOFT_DEVICE` names, equal the host operations on
//! the CPU.

use std::cell::RefCell;
use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use qoft_kernels::ops::{
    CausalAttention, CausalConvolution, Cayley, CayleyMap, ClampedSwiglu, CollectRows, Gated,
    GatedDeltaRule, GroupedMatmul, Groups, LayerNorm, LinearCrossEntropy, RmsNorm, Rotate,
    RoutedRows, SoftCap, SpreadRows, pairs,
};
use qoft_kernels::{DenseWeight, PackedWeight};

use super::*;
use crate::device::default_device;
use crate::ops::{Traced, bridge};

/// Numbers between −1 and 1, the same for the same seed.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

thread_local! {
    /// Where inputs are made.
    static DEVICE: RefCell<Device> = RefCell::new(Device::flex());
}

fn input<const D: usize>(shape: [usize; D], seed: u64) -> Tensor<D> {
    let data = TensorData::new(numbers(shape.iter().product(), seed), shape);
    let device = DEVICE.with_borrow(Clone::clone).autodiff();
    Tensor::from_data(data, &device).require_grad()
}

/// Compares the outputs of two operations of a tensor, and the gradients of a sum of squares.
fn check<const D: usize, const E: usize>(
    shape: [usize; D],
    host: impl Fn(Tensor<D>) -> Traced<E>,
    composed: impl Fn(Tensor<D>) -> Tensor<E>,
) {
    let run = |op: &dyn Fn(Tensor<D>) -> Tensor<E>, device: Device| {
        DEVICE.set(device.clone());
        let x = input(shape, 5);
        let y = op(x.clone());
        let factors = numbers(y.dims().iter().product(), 7);
        let factors = TensorData::new(factors, y.dims());
        let factors = Tensor::<E>::from_data(factors, &device);
        let grads = (y.clone() * factors).sum().backward();
        let grad = x.grad(&grads).expect("a gradient");
        [y.inner().into_data(), grad.into_data()].map(|d| d.try_into_vec::<f32>().unwrap())
    };
    let host = run(&|x| host(x).into_tensor(), Device::flex());
    let composed = run(&composed, default_device().unwrap());
    for (a, b) in host.iter().zip(&composed) {
        assert_eq!(a.len(), b.len());
        let size = a.iter().fold(1e-3f32, |most, v| most.max(v.abs()));
        for (a, b) in a.iter().zip(b) {
            assert!((a - b).abs() < 2e-5 * size, "{a} {b}");
        }
    }
}

#[test]
fn norm() {
    let weight = || input([6], 2);
    let eps = 1e-3;
    check(
        [2, 3, 6],
        |x| bridge::binary(x, weight(), RmsNorm::new(eps)),
        |x| rms_norm(x, weight(), eps),
    );
    let x = || input([2, 3, 6], 2);
    check(
        [6],
        |weight| bridge::binary::<3, 1, 3>(x(), weight, RmsNorm::new(eps)),
        |weight| rms_norm(x(), weight, eps),
    );
}

#[test]
fn norm_with_mean() {
    let weight = || input([6], 2);
    check(
        [2, 3, 6],
        |x| bridge::binary(x, weight(), LayerNorm::new(1e-3)),
        |x| layer_norm(x, weight(), 1e-3),
    );
}

#[test]
fn activations() {
    use Activation::{Gelu, GeluTanh, Relu, Silu, Tanh};
    for kind in [Gelu, GeluTanh, Relu, Silu, Tanh] {
        let wide = |x: Tensor<2>| x * 4.0;
        check(
            [5, 7],
            |x| bridge::unary(wide(x), kind),
            |x| activation(&wide(x), kind).expect("composed"),
        );
    }
}

#[test]
fn gate() {
    let other = || input([4, 3], 2);
    for kind in [Activation::Silu, Activation::GeluTanh] {
        let gate = |x: Tensor<2>| activation(&x, kind).expect("composed");
        check(
            [4, 3],
            |x| bridge::binary(x, other(), Gated::new(kind)),
            |x| gate(x) * other(),
        );
        check(
            [4, 3],
            |x| bridge::binary(other(), x, Gated::new(kind)),
            |x| gate(other()) * x,
        );
    }
}

#[test]
fn rotation() {
    for stored in [3, 1] {
        let (x, blocks) = (|| input([2, 5, 12], 2), || input([stored, 4, 4], 3));
        check(
            [2, 5, 12],
            |x| bridge::binary::<3, 3, 3>(x, blocks(), Rotate),
            |x| rotate(x, blocks()),
        );
        check(
            [stored, 4, 4],
            |blocks| bridge::binary::<3, 3, 3>(x(), blocks, Rotate),
            |blocks| rotate(x(), blocks),
        );
    }
}

#[test]
fn positions() {
    let angles = numbers(3 * 2, 9);
    let op = Rope::new(
        Arc::new(angles.iter().map(|a| a.cos()).collect()),
        Arc::new(angles.iter().map(|a| a.sin()).collect()),
        2,
    );
    for head_dim in [4, 6] {
        check(
            [2, 3, 2, head_dim],
            |x| bridge::unary(x, op.clone()),
            |x| rope(x, &op),
        );
    }
}

#[test]
fn attention_with_every_mask() {
    let cap = Some(SoftCap::new(0.5));
    for (queries, keys, window, soft_cap) in [
        (5, 5, None, None),
        (3, 5, None, None),
        (1, 5, None, None),
        (5, 5, Some(2), None),
        (3, 5, Some(4), None),
        (1, 5, Some(3), None),
        (1, 1, None, None),
        (5, 5, Some(2), cap),
        (1, 5, None, cap),
    ] {
        let sequences = (queries == 5 && keys == 5).then(|| [2, 3].into());
        for sequences in [None, sequences] {
            let op = CausalAttention::new(0.7, window)
                .with_soft_cap(soft_cap)
                .with_sequences(sequences);
            let (q, kv) = ([2, queries, 4, 3], [2, keys, 2, 3]);
            let (k, v) = (|| input(kv, 2), || input(kv, 3));
            check(
                q,
                |q| bridge::ternary(q, k(), v(), op.clone()),
                |q| attention([q, k(), v()], None, op.clone()),
            );
            let q = || input(q, 4);
            check(
                kv,
                |k| bridge::ternary(q(), k, v(), op.clone()),
                |k| attention([q(), k, v()], None, op.clone()),
            );
            check(
                kv,
                |v| bridge::ternary(q(), k(), v, op.clone()),
                |v| attention([q(), k(), v], None, op.clone()),
            );
        }
    }
}

#[test]
fn attention_with_sinks() {
    for (queries, keys, window) in [(5, 5, None), (3, 5, Some(2)), (1, 5, None)] {
        let op = CausalAttention::new(0.7, window);
        let (q, kv) = ([2, queries, 4, 3], [2, keys, 2, 3]);
        let (k, v, sinks) = (|| input(kv, 2), || input(kv, 3), || input([4], 6));
        let host =
            |q, sinks| bridge::quaternary([q, k(), v()].map(Traced::from), sinks, op.clone());
        check(
            q,
            |q| host(q, sinks()),
            |q| attention([q, k(), v()], Some(sinks()), op.clone()),
        );
        let q = || input(q, 4);
        check(
            [4],
            |sinks| host(q(), sinks),
            |sinks| attention([q(), k(), v()], Some(sinks), op.clone()),
        );
    }
}

#[test]
fn clamped_gate() {
    let op = ClampedSwiglu::new(1.7, 0.5);
    check([5, 8], |x| bridge::unary(x, op), |x| clamped_swiglu(x, op));
}

#[test]
fn maps_from_parameters() {
    let maps = [
        CayleyMap::Exact,
        CayleyMap::Neumann(1),
        CayleyMap::Neumann(2),
        CayleyMap::Neumann(5),
        CayleyMap::LegacyNeumann(5),
    ];
    for map in maps {
        for coft_eps in [None, Some(0.1), Some(1e3)] {
            for size in [2, 5, 16] {
                let op = Cayley::new(map, size).with_coft_eps(coft_eps);
                let shape = [3, pairs(size)];
                // The projection divides by a norm; a thousandth of it is near no edge.
                check(shape, |x| bridge::unary(x, op), |x| cayley(x, op));
                let large = |x: Tensor<2>| x * 3.0;
                if map == CayleyMap::Exact {
                    check(
                        shape,
                        |x| bridge::unary(large(x), op),
                        |x| cayley(large(x), op),
                    );
                }
            }
        }
    }
}

#[test]
fn head_and_loss() {
    let op = |labels: &[Option<u32>], bias: bool| {
        let weight = DenseWeight::from_f32(&numbers(7 * 4, 1), [7, 4]);
        LinearCrossEntropy::new(Arc::new(weight), Arc::new(labels.to_vec()))
            .with_bias(bias.then(|| Arc::new(numbers(7, 2))))
            .with_scale(if bias { 1.3 } else { 1.0 })
            .with_soft_cap(bias.then(|| SoftCap::new(0.6)))
            .with_denominator(2.0)
    };
    let labels: [&[Option<u32>]; 2] = [&[Some(6), None, Some(0)], &[None, None, None]];
    for labels in labels {
        for bias in [false, true] {
            check::<2, 1>(
                [3, 4],
                |h| bridge::unary(h, op(labels, bias)),
                |h| linear_cross_entropy(h, op(labels, bias)),
            );
            let grouped = || {
                let groups = Groups::Several {
                    of_rows: Arc::new(vec![1, 0, 1]),
                    count: 2,
                };
                op(labels, bias).with_groups(groups).with_smoothing(0.2)
            };
            check::<2, 1>(
                [3, 4],
                |h| bridge::unary(h, grouped()),
                |h| linear_cross_entropy(h, grouped()),
            );
        }
    }
}

#[test]
fn rows_with_weights_of_their_own() {
    let weight = |seed| -> Arc<dyn PackedWeight> {
        Arc::new(DenseWeight::from_f32(&numbers(5 * 4, seed), [5, 4]))
    };
    let op = || GroupedMatmul::new(vec![(weight(1), 2), (weight(2), 0), (weight(3), 4)]);
    check(
        [6, 4],
        |x: Tensor<2>| bridge::unary(x, op()),
        |x| grouped_matmul(x, &op()),
    );
    let routed = || RoutedRows::new(vec![2, 0, 5, 1, 3, 4], 2);
    check(
        [3, 4],
        |x: Tensor<2>| bridge::unary(x, SpreadRows(routed())),
        |x| spread_rows(x, &routed()),
    );
    check(
        [6, 4],
        |x: Tensor<2>| bridge::unary(x, CollectRows(routed())),
        |x| collect_rows(x, &routed()),
    );
}

#[test]
fn convolution() {
    for width in [1, 4] {
        let (x, weight) = (|| input([2, 6, 3], 2), || input([3, width], 3));
        let op = CausalConvolution::new(true);
        check(
            [2, 6, 3],
            |x| bridge::binary(x, weight(), op),
            |x| causal_convolution(x, weight()),
        );
        check(
            [3, width],
            |weight| bridge::binary(x(), weight, op),
            |weight| causal_convolution(x(), weight),
        );
    }
}

#[test]
fn delta_rule() {
    let op = GatedDeltaRule::new([2, 4], [4, 3]);
    for time in [1, 70] {
        let shape = [2, time, op.in_features()];
        let gates = [2, time, 4];
        let x = || input(shape, 2);
        let decay = |gates: Tensor<3>| gates.square().neg() * 0.3;
        let beta = |gates: Tensor<3>| gates.square();
        let host = |x, decay, beta| bridge::ternary(x, decay, beta, op);
        let composed = |x, decay, beta| gated_delta_rule([x, decay, beta], None, op).0;
        let (g, b) = (|| decay(input(gates, 3)), || beta(input(gates, 4)));
        check(shape, |x| host(x, g(), b()), |x| composed(x, g(), b()));
        check(
            gates,
            |y| host(x(), decay(y), b()),
            |y| composed(x(), decay(y), b()),
        );
        check(
            gates,
            |y| host(x(), g(), beta(y)),
            |y| composed(x(), g(), beta(y)),
        );
    }
}

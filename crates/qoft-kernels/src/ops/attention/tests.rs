//! Tests of attention.

use super::*;
use crate::ops::testing::{check_gradients, random};

fn tensors(batch: usize, queries: usize, keys: usize) -> [(Vec<usize>, Vec<f32>); 3] {
    let tensor = |time, heads, seed| {
        (
            vec![batch, time, heads, 4],
            random(batch * time * heads * 4, seed),
        )
    };
    [
        tensor(queries, 4, 1),
        tensor(keys, 2, 2),
        tensor(keys, 2, 3),
    ]
}

#[test]
fn gradients_equal_finite_differences() {
    for window in [None, Some(2)] {
        check_gradients(&CausalAttention::new(0.7, window), &tensors(2, 5, 5));
    }
    // Several blocks of queries, and windows that end within one.
    for window in [None, Some(20)] {
        check_gradients(&CausalAttention::new(0.7, window), &tensors(1, 40, 40));
    }
    check_gradients(&CausalAttention::new(0.7, None), &tensors(1, 2, 5));
    let capped = CausalAttention::new(1.7, Some(20)).with_soft_cap(Some(SoftCap::new(1.5)));
    check_gradients(&capped, &tensors(1, 40, 40));
}

fn with_sinks(inputs: [(Vec<usize>, Vec<f32>); 3]) -> Vec<(Vec<usize>, Vec<f32>)> {
    let sinks = random(4, 4).iter().map(|v| 2.0 * v).collect();
    inputs.into_iter().chain([(vec![4], sinks)]).collect()
}

#[test]
fn gradients_with_sinks_equal_finite_differences() {
    for (window, batch, time) in [(None, 2, 5), (Some(3), 2, 5), (Some(20), 1, 40)] {
        let op = CausalAttention::new(0.7, window);
        check_gradients(&op, &with_sinks(tensors(batch, time, time)));
    }
    // More units than are split in two.
    let inputs = with_sinks(tensors(9, 3, 3));
    check_gradients(&CausalAttention::new(0.7, None), &inputs);
    let capped = CausalAttention::new(1.7, Some(2)).with_soft_cap(Some(SoftCap::new(1.5)));
    check_gradients(&capped, &with_sinks(tensors(1, 5, 5)));
}

/// A sink that nothing comes near takes all, and one that comes near nothing takes nothing.
#[test]
fn sinks_take_their_share() {
    let run = |inputs: &[(Vec<usize>, Vec<f32>)]| {
        let views: Vec<HostView> = inputs.iter().map(|(s, d)| HostView::new(s, d)).collect();
        CausalAttention::new(0.7, None).forward(&views, false).data
    };
    let plain = tensors(1, 6, 6);
    let with = |sinks: [f32; 4]| {
        let sinks = (vec![4], sinks.to_vec());
        run(&plain.iter().cloned().chain([sinks]).collect::<Vec<_>>())
    };
    assert_eq!(with([-200.0; 4]), run(&plain));
    assert!(with([200.0; 4]).iter().all(|v| v.abs() < 1e-30));
    // The first query sees one key, whose value it takes by half if the scores are the same.
    let product = |h: usize| {
        let (q, k) = (&plain[0].1[h * 4..][..4], &plain[1].1[h / 2 * 4..][..4]);
        0.7 * q.iter().zip(k).map(|(a, b)| a * b).sum::<f32>()
    };
    let halves = with([0, 1, 2, 3].map(product));
    for h in 0..4 {
        for i in 0..4 {
            let expected = plain[2].1[h / 2 * 4 + i] / 2.0;
            assert!((halves[h * 4 + i] - expected).abs() < 1e-6);
        }
    }
}

/// Sequences in one row are what they are in rows of their own.
#[test]
fn sequences_of_a_row_do_not_see_each_other() {
    let lengths = [3, 1, 40, 17];
    let total: usize = lengths.iter().sum();
    for window in [None, Some(9)] {
        let plain = CausalAttention::new(0.7, window);
        let packed = plain.clone().with_sequences(Some(Arc::new(lengths)));
        check_gradients(
            &CausalAttention::new(0.7, window).with_sequences(Some(Arc::new([2, 3]))),
            &tensors(2, 5, 5),
        );
        let inputs = tensors(1, total, total);
        let views: Vec<HostView> = inputs.iter().map(|(s, d)| HostView::new(s, d)).collect();
        let out = packed.forward(&views, true);
        let grad = random(out.data.len(), 5);
        let grads = packed.backward(&views, &[], HostView::new(&out.shape, &grad), &[true; 3]);
        let mut start = 0;
        for length in lengths {
            let part = |data: &[f32], heads: usize| {
                data[start * heads * 4..(start + length) * heads * 4].to_vec()
            };
            let alone: Vec<(Vec<usize>, Vec<f32>)> = inputs
                .iter()
                .map(|(shape, data)| (vec![1, length, shape[2], 4], part(data, shape[2])))
                .collect();
            let views: Vec<HostView> = alone.iter().map(|(s, d)| HostView::new(s, d)).collect();
            let expected = plain.forward(&views, true);
            let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
            assert!(close(&expected.data, &part(&out.data, 4)));
            let grad = part(&grad, 4);
            let grad = HostView::new(&expected.shape, &grad);
            let expected = plain.backward(&views, &[], grad, &[true; 3]);
            for ((expected, found), heads) in expected.iter().zip(&grads).zip([4, 2, 2]) {
                let (expected, found) = (expected.as_ref().unwrap(), found.as_ref().unwrap());
                assert!(close(expected, &part(found, heads)));
            }
            start += length;
        }
    }
}

/// More queries than a block holds, against the definition.
#[test]
fn long_sequences_equal_the_definition() {
    let time = 259;
    for window in [None, Some(70)] {
        let op = CausalAttention::new(0.5, window);
        let inputs = tensors(1, time, time);
        let views: Vec<HostView> = inputs.iter().map(|(s, d)| HostView::new(s, d)).collect();
        let out = op.forward(&views, false).data;
        let at = |x: &[f32], heads, t, h, i| f64::from(x[(t * heads + h) * 4 + i]);
        for (t, h) in [(0, 0), (16, 1), (17, 2), (127, 1), (time - 1, 3)] {
            let from = window.map_or(0, |w: usize| (t + 1).saturating_sub(w));
            let scores: Vec<f64> = (from..=t)
                .map(|u| {
                    (0..4)
                        .map(|i| at(&inputs[0].1, 4, t, h, i) * at(&inputs[1].1, 2, u, h / 2, i))
                        .sum::<f64>()
                        * 0.5
                })
                .collect();
            let total: f64 = scores.iter().map(|s| s.exp()).sum();
            for i in 0..4 {
                let value: f64 = (from..=t)
                    .zip(&scores)
                    .map(|(u, s)| s.exp() / total * at(&inputs[2].1, 2, u, h / 2, i))
                    .sum();
                assert!((value - at(&out, 4, t, h, i)).abs() < 1e-5);
            }
        }
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let op = CausalAttention::new(0.7, None);
    let inputs = with_sinks(tensors(2, 70, 70));
    let views: Vec<HostView> = inputs.iter().map(|(s, d)| HostView::new(s, d)).collect();
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(|| {
            let out = op.forward(&views, true);
            let grad = HostView::new(&out.shape, &out.data);
            let grads = op.backward(&views, &out.saved, grad, &[true; 4]);
            (out.data, grads)
        })
    };
    let one = run(1);
    assert!(one == run(2) && one == run(5));
}

/// One query takes another way than many: the last of them all the same.
#[test]
fn the_last_of_many_queries_is_as_a_single_one() {
    for soft_cap in [None, Some(SoftCap::new(0.4))] {
        let op = CausalAttention::new(0.9, Some(7)).with_soft_cap(soft_cap);
        for many in [tensors(1, 11, 11).to_vec(), with_sinks(tensors(1, 11, 11))] {
            let mut one = many.clone();
            one[0] = (vec![1, 1, 4, 4], many[0].1[10 * 16..].to_vec());
            let run = |inputs: &[(Vec<usize>, Vec<f32>)]| {
                let views: Vec<HostView> =
                    inputs.iter().map(|(s, d)| HostView::new(s, d)).collect();
                op.forward(&views, false).data
            };
            let (many, one) = (run(&many), run(&one));
            for (a, b) in many[10 * 16..].iter().zip(&one) {
                assert!((a - b).abs() < 1e-6, "{a} {b}");
            }
        }
    }
}

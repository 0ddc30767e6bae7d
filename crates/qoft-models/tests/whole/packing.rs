//! Several sequences in one row are computed as if each had a row of its own.

use std::collections::BTreeMap;

use crate::common::{CASES, load, rotate};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Gradients, Int, Tensor};
use qoft_core::Walk;
use qoft_models::{CausalLm, Tokens};

/// Lengths of the sequences; windows of the models are shorter than the longest.
const LENGTHS: [usize; 4] = [5, 1, 9, 3];
/// Models whose positions depend on the length of a sequence.
const BY_LENGTH: [&str; 3] = [
    "llama_rope_dynamic",
    "phi3_partial_longrope",
    "qwen3_moe_fused",
];

type ByLayer = BTreeMap<String, Vec<f64>>;

fn add(sum: &mut ByLayer, gradients: Gradients, model: &CausalLm) {
    let mut gradients = GradientsParams::from_grads(gradients, model);
    model.walk("", &mut |path, layer| {
        for param in layer
            .adapters()
            .slots()
            .iter()
            .flat_map(|slot| slot.params())
        {
            if let Some(gradient) = gradients.remove::<1>(param.id()) {
                let path = format!("{path}.{}", param.name());
                let values: Vec<f32> = gradient.into_data().try_into_vec().unwrap();
                let sum = sum.entry(path).or_insert_with(|| vec![0.0; values.len()]);
                sum.iter_mut()
                    .zip(values)
                    .for_each(|(sum, v)| *sum += f64::from(v));
            }
        }
    });
}

/// The ids of a sequence, and what follows each of them in it.
fn sequence(number: usize, length: usize) -> (Vec<i64>, Vec<Option<u32>>) {
    let ids: Vec<i64> = (0..length)
        .map(|at| ((number * 13 + at * 7) % 50) as i64)
        .collect();
    let next = ids.iter().skip(1).map(|&id| Some(id as u32));
    (ids.clone(), next.chain([None]).collect())
}

fn tensor(ids: &[i64], device: &Device) -> Tensor<2, Int> {
    Tensor::<1, Int>::from_data(ids, device).reshape([1, ids.len()])
}

#[test]
fn packed_sequences_have_the_loss_and_the_gradients_of_single_ones() {
    let device = qoft_core::default_device().unwrap();
    for case in CASES.iter().chain(&BY_LENGTH) {
        let mut model = load(case);
        assert!(model.packs(), "{case}");
        rotate(&mut model, 0.0, |_| true);
        let sequences: Vec<_> = LENGTHS
            .iter()
            .enumerate()
            .map(|(n, &l)| sequence(n, l))
            .collect();
        let (mut expected, mut expected_loss) = (ByLayer::new(), 0.0);
        for (ids, targets) in &sequences {
            let loss = model.loss(tensor(ids, &device), targets.clone(), 14.0);
            expected_loss += f64::from(loss.clone().into_scalar::<f32>());
            if loss.is_tracked() && targets.len() > 1 {
                add(&mut expected, loss.backward(), &model);
            }
        }
        let ids: Vec<i64> = sequences.iter().flat_map(|(ids, _)| ids.clone()).collect();
        let targets: Vec<_> = sequences
            .iter()
            .flat_map(|(_, next)| next.clone())
            .collect();
        let packed = Tokens::packed(tensor(&ids, &device), &LENGTHS);
        let (mut found, mut by_block) = (ByLayer::new(), ByLayer::new());
        let loss = model.loss(packed.clone(), targets.clone(), 14.0);
        let found_loss = f64::from(loss.clone().into_scalar::<f32>());
        add(&mut found, loss.backward(), &model);
        let mut sink = |part| add(&mut by_block, part, &model);
        let block_loss = model.backward_by_block(packed, targets, 14.0, &mut sink);

        assert!(
            (found_loss - expected_loss).abs() < 1e-5,
            "{case}: {found_loss} {expected_loss}"
        );
        assert_eq!(f64::from(block_loss), found_loss, "{case}");
        assert_eq!(by_block, found, "{case}");
        assert!(!expected.is_empty());
        for (path, expected) in &expected {
            let found = &found[path];
            let size = expected.iter().fold(1e-3_f64, |size, v| size.max(v.abs()));
            for (a, b) in expected.iter().zip(found) {
                assert!((a - b).abs() < 1e-4 * size, "{case} {path}: {a} {b}");
            }
        }
    }
}

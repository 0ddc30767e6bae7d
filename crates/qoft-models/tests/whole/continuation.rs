//! Sequences that go on together are what each is alone, with the adapters of each.

use burn::module::Module;
use burn::tensor::{Int, Tensor, TensorData};
use qoft_core::{
    AdapterChoice, AdapterSlot, LayerKind, OwnTensor, WEIGHT, Walk, adapters, default_device,
};
use qoft_models::{CausalLm, Continuation};

use crate::common::{CASES, load, rotation};

/// A model with two adapters: both have rotations, the first one norms of its own and the second one a head.
fn adapted(case: &str) -> CausalLm {
    let device = default_device().unwrap();
    let mut model = load(case);
    let head = model.head().to_owned();
    for (name, first) in [("a", 100), ("b", 200)] {
        let mut id = first;
        model.walk_mut("", &mut |path, layer| {
            id += 1;
            let is_norm = layer.kind() == LayerKind::Norm;
            let whole = (is_norm && name == "a") || (path == head && name == "b");
            let own = whole.then(|| {
                let tensors = layer.tensors();
                let tensor = tensors.into_iter().find(|tensor| tensor.name == WEIGHT);
                let values = layer.values(WEIGHT).into_iter().map(|value| value * 1.25);
                OwnTensor::new(
                    tensor.unwrap(),
                    values.collect(),
                    true,
                    [name, path],
                    &device,
                )
            });
            let turns = !whole && !matches!(layer.kind(), LayerKind::Norm | LayerKind::Conv1d);
            let rotation = turns.then(|| Box::new(rotation(id, layer.in_features(), 0.0)) as _);
            if rotation.is_some() || own.is_some() {
                let slot = AdapterSlot::from_parts(name, rotation, own.into_iter().collect());
                layer.adapters_mut().push_slot(slot).unwrap();
            }
        });
    }
    let mut model = model.valid();
    adapters::disable_all(&mut model);
    model
}

fn values(logits: Tensor<2>) -> Vec<f32> {
    logits.into_data().iter::<f32>().collect()
}

fn row(ids: &[u32]) -> Tensor<2, Int> {
    let ids: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
    let data = TensorData::new(ids.clone(), [1, ids.len()]);
    Tensor::from_data(data, &default_device().unwrap())
}

#[test]
fn sequences_with_their_adapters_are_what_each_is_alone() {
    let device = default_device().unwrap();
    // What each sequence has in each step; those without ids have not joined yet, or have left.
    let sequences: [(&[&str], [&[u32]; 4]); 5] = [
        (&[], [&[4, 9, 14, 19, 24], &[6], &[30], &[]]),
        (&["a"], [&[7, 3, 11], &[1], &[2], &[5]]),
        (&["a"], [&[], &[8, 2, 33, 21, 12, 9, 4], &[17], &[18]]),
        (&["b"], [&[63, 51, 40, 30, 21, 13, 6], &[3], &[], &[]]),
        (&["b", "a"], [&[2], &[10], &[19], &[20]]),
    ];
    for case in CASES {
        let mut model = adapted(case);
        let alone: Vec<Vec<Vec<f32>>> = sequences
            .iter()
            .map(|(wanted, steps)| {
                adapters::activate(&mut model, wanted).unwrap();
                let mut cache = model.new_cache();
                let steps = steps.iter().filter(|ids| !ids.is_empty());
                let logits = steps.map(|ids| model.last_logits(row(ids), Some(&mut cache)));
                logits.map(values).collect()
            })
            .collect();
        adapters::disable_all(&mut model);
        assert_ne!(alone[0][0], alone[1][0], "{case}");

        let mut caches: Vec<_> = sequences.iter().map(|_| model.new_cache()).collect();
        let mut seen = [0; 5];
        for step in 0..4 {
            let parts = sequences.iter().zip(&mut caches);
            let parts = parts.filter(|((_, steps), _)| !steps[step].is_empty());
            let parts = parts.map(|((wanted, steps), cache)| Continuation {
                ids: steps[step],
                cache,
                adapters: Some(AdapterChoice::new(wanted.iter().copied())),
            });
            let together = values(model.continued(parts.collect(), &device));
            let vocabulary = model.config().vocab_size;
            let mut rows = together.chunks_exact(vocabulary);
            for (index, (_, steps)) in sequences.iter().enumerate() {
                if steps[step].is_empty() {
                    continue;
                }
                let (found, expected) = (rows.next().unwrap(), &alone[index][seen[index]]);
                seen[index] += 1;
                let off = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
                let off = off.fold(0.0, f32::max);
                assert!(off < 1e-4, "{case}: sequence {index}, step {step}: {off}");
            }
            assert!(rows.next().is_none());
        }
    }
}

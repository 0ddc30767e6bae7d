//! Parts that training leaves out at random.

use qoft_core::{Draw, OftAdapter, Pass, Walk};

use super::case::{Case, Start};
use super::model::{tensor, values};
use crate::compute::device;

pub(super) fn check(case: &Case) {
    let model = case.trained(1, &device());
    for (path, layer) in model.layers() {
        if let Some(rotation) = layer.adapters().rotations().next() {
            let name = format!("{case}: `{path}`");
            let turned = |pass| turned(rotation, layer.in_features(), pass);
            match case.start {
                Start::Dropout => draws(&name, &turned),
                _ => assert_eq!(
                    turned(Pass::training(Draw::new(1, 2, 3))),
                    turned(Pass::EVALUATION),
                    "{name}: training computes otherwise, without dropout"
                ),
            }
        }
    }
}

fn turned(rotation: &dyn OftAdapter, features: usize, pass: Pass) -> Vec<f32> {
    let x = tensor::<2>([2, features], 30);
    values(rotation.forward(x.into(), pass))
}

/// The same place in a run draws the same, and other places draw otherwise.
fn draws(name: &str, turned: &dyn Fn(Pass) -> Vec<f32>) {
    let at = |seed, step, batch| turned(Pass::training(Draw::new(seed, step, batch)));
    let first = at(1, 0, 0);
    assert_eq!(at(1, 0, 0), first, "{name}: one place of a run draws twice");
    let places = |place: &dyn Fn(usize) -> Vec<f32>| (1..16).any(|n| place(n) != first);
    assert!(
        places(&|n| at(1 + n as u64, 0, 0)),
        "{name}: seeds do not matter"
    );
    assert!(places(&|n| at(1, n, 0)), "{name}: steps do not matter");
    assert!(
        places(&|n| at(1, 0, n)),
        "{name}: micro-batches do not matter"
    );
    assert_eq!(
        turned(Pass::EVALUATION),
        turned(Pass::EVALUATION),
        "{name}: dropout outside of training"
    );
}

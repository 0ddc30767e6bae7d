//! Codes whose scales are chosen along with them.

use super::*;

/// The numbers behind codes with scales of their own.
fn scaled(found: &ScaledCodes, cols: usize, grid: &Steps) -> Vec<f32> {
    let number = |(at, &code): (usize, &u8)| {
        let (n, k) = (at / cols, at % cols);
        let scale = found.scales[n * grid.groups() + grid.group(k)];
        grid.number(scale, n, k, code)
    };
    found.codes.iter().enumerate().map(number).collect()
}

#[test]
fn each_step_makes_the_errors_smaller() {
    let grid = Steps {
        group: 32,
        largest: 15.0,
    };
    let (rows, width) = (40, 300);
    let hessian = hessian(width, &correlated(width, 600, 17));
    let weight = weight(rows, width, 5);
    let total = |numbers: &[f32]| -> f64 { errors(&weight, numbers, &hessian, 0.0).iter().sum() };
    let search = |passes| {
        let options = CompensateOptions {
            passes,
            ..CompensateOptions::default()
        };
        Compensated::new(&hessian, &options).unwrap()
    };
    let swept = search(0).codes(&weight, &grid);
    let descended = search(4).codes(&weight, &grid);
    let found = search(4).codes_and_scales(&weight, &grid);
    let [swept, descended] = [swept, descended].map(|codes| total(&decoded(&codes, width, &grid)));
    let fitted = total(&scaled(&found, width, &grid));
    assert!(descended < 0.99 * swept, "{descended} {swept}");
    assert!(fitted < 0.98 * descended, "{fitted} {descended}");
    for (at, &scale) in found.scales.iter().enumerate() {
        let (n, group) = (at / grid.groups(), at % grid.groups());
        let stored = scale == grid.scale(n, group) || (scale * 512.0).fract() == 0.0;
        assert!(stored, "{scale}");
    }
}

#[test]
fn no_row_is_worse_with_scales_of_its_own_either() {
    let grid = Steps {
        group: 24,
        largest: 7.0,
    };
    for (width, seed) in [(7, 1), (50, 2), (230, 3)] {
        let hessian = hessian(width, &correlated(width, width / 2 + 1, seed));
        let mut weight = weight(45, width, seed + 9);
        weight.values.iter_mut().for_each(|w| *w *= 1.5);
        let search = Compensated::new(&hessian, &CompensateOptions::default()).unwrap();
        let found = search.codes_and_scales(&weight, &grid);
        let of = |numbers: &[f32]| errors(&weight, numbers, &hessian, 0.0);
        let found = of(&scaled(&found, width, &grid));
        let nearest = of(&decoded(&Nearest.codes(&weight, &grid), width, &grid));
        for (found, nearest) in found.iter().zip(&nearest) {
            assert!(*found <= nearest * 1.0001 + 1e-9, "{found} {nearest}");
        }
    }
}

#[test]
fn a_weight_of_other_inputs_keeps_its_scales() {
    let grid = Steps {
        group: 4,
        largest: 15.0,
    };
    let search = Compensated::new(&Hessian::new(9), &CompensateOptions::default()).unwrap();
    let weight = weight(3, 8, 2);
    let found = search.codes_and_scales(&weight, &grid);
    assert_eq!(found.codes, Nearest.codes(&weight, &grid));
    let own = (0..3).flat_map(|n| (0..10).map(move |group| (n, group)));
    let own: Vec<f32> = own.map(|(n, group)| grid.scale(n, group)).collect();
    assert_eq!(found.scales, own);
}

/// The share of the change of the outputs that arrives, and the error as a multiple of the change.
fn kept(before: &Matrix, changed: &Matrix, numbers: Vec<f32>, hessian: &Hessian) -> (f64, f64) {
    let written = Matrix::new(numbers, before.shape);
    let kept = hessian.kept(before, changed, &written).expect("one width");
    (kept.share, kept.error)
}

#[test]
fn a_change_below_the_steps_arrives_where_it_is_asked_for() {
    let grid = Steps {
        group: 16,
        largest: 15.0,
    };
    let (rows, width) = (96, 160);
    let mut before = weight(rows, width, 12);
    before.values = decoded(&Nearest.codes(&before, &grid), width, &grid);
    let mut changed = before.clone();
    let pairs = changed.values.iter_mut().zip(numbers(rows * width, 13));
    pairs.for_each(|(value, change)| *value += 0.01 * change);
    let hessian = hessian(width, &correlated(width, 400, 21));
    let options = CompensateOptions::default();
    let plain = Compensated::new(&hessian, &options).unwrap();
    let keeping = plain.clone().keeping(before.clone());
    let share = |codes: Vec<u8>| {
        let numbers = decoded(&codes, width, &grid);
        kept(&before, &changed, numbers, &hessian)
    };
    let (nearest, _) = share(Nearest.codes(&changed, &grid));
    assert!(nearest.abs() < 1e-6, "{nearest}");
    let found = share(plain.codes(&changed, &grid));
    let more = share(keeping.codes(&changed, &grid));
    assert!(
        more.0 > found.0 + 0.05 && more.0 > 0.5,
        "{more:?} {found:?}"
    );
    assert!(more.0 < 1.2 && more.1 < found.1 + 0.2, "{more:?} {found:?}");
    let with_scales = keeping.codes_and_scales(&changed, &grid);
    let numbers = scaled(&with_scales, width, &grid);
    let scaled = kept(&before, &changed, numbers, &hessian);
    assert!(scaled.1 < more.1, "{scaled:?} {more:?}");
    // A weight of another shape is no change of this one.
    let other = plain.clone().keeping(weight(1, width, 1));
    assert_eq!(other.codes(&changed, &grid), plain.codes(&changed, &grid));
}

//! Against GPTQ as its paper has it, and against all possible codes.

mod scales;

use super::*;

/// Whole numbers from 0 to 15, less a zero point, times a step that differs between groups.
struct Steps {
    group: usize,
    largest: f32,
}

impl Steps {
    fn middle(&self) -> f32 {
        ((self.largest + 1.0) / 2.0).floor()
    }
}

impl Grid for Steps {
    fn nearest(&self, n: usize, k: usize, value: f32) -> (u8, f32) {
        self.nearest_with(self.scale(n, k / self.group), n, k, value)
    }
}

/// Rows have 10 scales at most, and only multiples of 1/512 can be stored.
impl ScaledGrid for Steps {
    fn groups(&self) -> usize {
        10
    }

    fn group(&self, k: usize) -> usize {
        k / self.group
    }

    fn scale(&self, n: usize, group: usize) -> f32 {
        0.1 + 0.02 * ((n + group) % 3) as f32
    }

    fn storable(&self, _n: usize, _group: usize, wanted: f32) -> f32 {
        (wanted * 512.0).round().max(1.0) / 512.0
    }

    fn nearest_with(&self, scale: f32, n: usize, k: usize, value: f32) -> (u8, f32) {
        let code = ((value / scale).round() + self.middle()).clamp(0.0, self.largest);
        (code as u8, self.number(scale, n, k, code as u8))
    }

    fn number(&self, scale: f32, _n: usize, _k: usize, code: u8) -> f32 {
        (f32::from(code) - self.middle()) * scale
    }
}

/// Numbers between -1 and 1.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(count).collect()
}

/// Inputs of which each is mostly a mixture of a few; some features are larger than others.
fn correlated(width: usize, rows: usize, seed: u64) -> Vec<f32> {
    let few = 4.min(width);
    let (mixture, noise) = (numbers(few * width, seed), numbers(rows * width, seed + 1));
    let hidden = numbers(rows * few, seed + 2);
    let mut inputs = noise;
    for (x, hidden) in inputs.chunks_exact_mut(width).zip(hidden.chunks(few)) {
        for (k, x) in x.iter_mut().enumerate() {
            let mixed: f32 = (0..few).map(|i| hidden[i] * mixture[i * width + k]).sum();
            *x = (mixed + 0.1 * *x) * (1.0 + (k % 5) as f32);
        }
    }
    inputs
}

fn hessian(width: usize, inputs: &[f32]) -> Hessian {
    let mut hessian = Hessian::new(width);
    hessian.add(inputs);
    hessian
}

fn weight(rows: usize, cols: usize, seed: u64) -> Matrix {
    Matrix::new(numbers(rows * cols, seed), [rows, cols])
}

/// `(w − q) (H + damping) (w − q)ᵀ` of each row, for the numbers that a grid gives to codes.
fn errors(weight: &Matrix, numbers: &[f32], hessian: &Hessian, damping: f64) -> Vec<f64> {
    let cols = weight.shape[1];
    let rows = weight.rows().zip(numbers.chunks_exact(cols));
    let error = |(w, q): (&[f32], &[f32])| {
        let off = |k: usize| f64::from(w[k] - q[k]);
        let pairs = (0..cols).flat_map(|i| (0..cols).map(move |j| (i, j)));
        pairs
            .map(|(i, j)| {
                let own = if i == j { damping } else { 0.0 };
                off(i) * off(j) * (f64::from(hessian.get(i, j)) + own)
            })
            .sum()
    };
    rows.map(error).collect()
}

/// The numbers behind codes: the nearest to themselves.
fn decoded(codes: &[u8], cols: usize, grid: &Steps) -> Vec<f32> {
    let middle = ((grid.largest + 1.0) / 2.0).floor();
    let number = |(i, &code): (usize, &u8)| {
        let step = 0.1 + 0.02 * ((i / cols + i % cols / grid.group) % 3) as f32;
        (f32::from(code) - middle) * step
    };
    codes.iter().enumerate().map(number).collect()
}

/// The inverse by Gauss and Jordan.
fn inverse(mut a: Vec<f64>, n: usize) -> Vec<f64> {
    let mut b: Vec<f64> = (0..n * n)
        .map(|i| f64::from(u8::from(i / n == i % n)))
        .collect();
    for i in 0..n {
        let pivot = a[i * n + i];
        for k in 0..n {
            a[i * n + k] /= pivot;
            b[i * n + k] /= pivot;
        }
        for j in (0..n).filter(|&j| j != i) {
            let factor = a[j * n + i];
            for k in 0..n {
                a[j * n + k] -= factor * a[i * n + k];
                b[j * n + k] -= factor * b[i * n + k];
            }
        }
    }
    b
}

/// GPTQ as in the paper: `U` out of the inverse, and updates of the weights that follow.
fn paper(weight: &Matrix, hessian: &Hessian, grid: &Steps, by_size: bool) -> Vec<u8> {
    let [rows, n] = weight.shape;
    let mut order: Vec<usize> = (0..n).collect();
    if by_size {
        order.sort_by(|&a, &b| hessian.get(b, b).total_cmp(&hessian.get(a, a)));
    }
    let mean = (0..n).map(|k| f64::from(hessian.get(k, k))).sum::<f64>() / n as f64;
    let mut damped = Vec::new();
    for &i in &order {
        damped.extend(order.iter().map(|&j| {
            let damping = if i == j { 0.01 * mean } else { 0.0 };
            f64::from(hessian.get(i, j)) + damping
        }));
    }
    // H⁻¹ = L Lᵀ, U = Lᵀ.
    let mut factor = inverse(damped, n);
    assert!(cholesky::factor(&mut factor, n));
    let upper = |i: usize, j: usize| factor[j * n + i];
    let mut codes = vec![0; rows * n];
    for row in 0..rows {
        let mut w: Vec<f64> = order
            .iter()
            .map(|&k| f64::from(weight.row(row)[k]))
            .collect();
        for i in 0..n {
            let (code, number) = grid.nearest(row, order[i], w[i] as f32);
            codes[row * n + order[i]] = code;
            let error = (w[i] - f64::from(number)) / upper(i, i);
            (i..n).for_each(|j| w[j] -= error * upper(i, j));
        }
    }
    codes
}

#[test]
fn codes_are_those_of_the_paper() {
    let grid = Steps {
        group: 16,
        largest: 15.0,
    };
    for width in [1, 5, 128, 300] {
        for by_size in [false, true] {
            let hessian = hessian(width, &correlated(width, 4 * width, 3));
            let weight = weight(70, width, 9);
            let options = CompensateOptions {
                by_size,
                ..CompensateOptions::default()
            };
            let search = Compensated::new(&hessian, &options).unwrap();
            let lattice = Lattice::fixed(&grid);
            let swept = search.factor.sweep(&weight.values, 0, lattice, &[]);
            let goal = Goal::new(search.metric(), &weight.values, None, 0.0);
            let found = Band::new(&goal, lattice, 0, swept, &[]);
            let expected = paper(&weight, &hessian, &grid, by_size);
            // A last bit decides where a value is between two codes, and then all that follow.
            let different = found
                .codes
                .chunks(width)
                .zip(expected.chunks(width))
                .filter(|(a, b)| a != b)
                .count();
            assert!(different <= 3, "{width} {by_size}: {different} rows");
            let numbers = decoded(&found.codes, width, &grid);
            let exact = errors(&weight, &numbers, &hessian, 0.0);
            for (row, exact) in exact.into_iter().enumerate() {
                let found = found.cost(row);
                assert!((found - exact).abs() < 1e-4 * exact, "{found} {exact}");
            }
        }
    }
}

#[test]
fn errors_are_below_those_of_the_nearest_codes_and_near_the_best() {
    let grid = Steps {
        group: 2,
        largest: 3.0,
    };
    let (width, rows) = (6, 40);
    let hessian = hessian(width, &correlated(width, 50, 5));
    let mut weight = weight(rows, width, 1);
    weight.values.iter_mut().for_each(|w| *w *= 0.2);
    let search = Compensated::new(&hessian, &CompensateOptions::default()).unwrap();
    let total = |codes: &[u8]| -> f64 {
        let numbers = decoded(codes, width, &grid);
        errors(&weight, &numbers, &hessian, 0.0).iter().sum()
    };
    let (found, nearest) = (
        total(&search.codes(&weight, &grid)),
        total(&Nearest.codes(&weight, &grid)),
    );
    let mut best = vec![f64::INFINITY; rows];
    for number in 0..4u32.pow(width as u32) {
        let codes = (0..width).map(|k| (number >> (2 * k) & 3) as u8);
        let codes: Vec<u8> = codes.collect::<Vec<_>>().repeat(rows);
        let numbers = decoded(&codes, width, &grid);
        let errors = errors(&weight, &numbers, &hessian, 0.0);
        best.iter_mut().zip(errors).for_each(|(a, b)| *a = a.min(b));
    }
    let best: f64 = best.iter().sum();
    assert!(best <= found * 1.0001, "{best} {found}");
    assert!(found < 0.6 * nearest, "{found} {nearest}");
}

#[test]
fn no_row_is_worse_than_with_the_nearest_codes() {
    let grid = Steps {
        group: 8,
        largest: 15.0,
    };
    let width = 200;
    let hessian = hessian(width, &correlated(width, 100, 7));
    // Weights outside the grid lead the method astray.
    let mut weight = weight(50, width, 2);
    weight.values.iter_mut().for_each(|w| *w *= 3.0);
    let search = Compensated::new(&hessian, &CompensateOptions::default()).unwrap();
    let of = |codes: Vec<u8>| errors(&weight, &decoded(&codes, width, &grid), &hessian, 0.0);
    let (found, nearest) = (
        of(search.codes(&weight, &grid)),
        of(Nearest.codes(&weight, &grid)),
    );
    for (found, nearest) in found.iter().zip(&nearest) {
        assert!(*found <= nearest * 1.0001, "{found} {nearest}");
    }
    assert!(found.iter().sum::<f64>() < 0.9 * nearest.iter().sum::<f64>());
}

#[test]
fn features_without_input_get_the_nearest_codes() {
    let grid = Steps {
        group: 4,
        largest: 15.0,
    };
    let width = 12;
    let mut inputs = correlated(width, 60, 4);
    for x in inputs.chunks_exact_mut(width) {
        (x[3], x[8]) = (0.0, 0.0);
    }
    let weight = weight(5, width, 8);
    let nearest = Nearest.codes(&weight, &grid);
    let options = CompensateOptions::default();
    let search = Compensated::new(&hessian(width, &inputs), &options).unwrap();
    let codes = search.codes(&weight, &grid);
    assert_ne!(codes, nearest);
    for (codes, nearest) in codes.chunks(width).zip(nearest.chunks(width)) {
        assert_eq!((codes[3], codes[8]), (nearest[3], nearest[8]));
    }
    let search = Compensated::new(&Hessian::new(width), &options).unwrap();
    assert_eq!(search.codes(&weight, &grid), nearest);
    let search = Compensated::new(&Hessian::new(width + 1), &options).unwrap();
    assert_eq!(search.codes(&weight, &grid), nearest);
}

#[test]
fn bad_input_is_refused() {
    let new = |hessian: &Hessian, damping| {
        let options = CompensateOptions {
            damping,
            ..CompensateOptions::default()
        };
        Compensated::new(hessian, &options).map(|_| ())
    };
    let nan = Hessian::from_lower(2, &[1.0, f32::NAN, 1.0]).unwrap();
    assert_eq!(new(&nan, 0.01), Err(CompensateError::NotFinite));
    for undoing in [-1.0, f32::NAN, f32::INFINITY] {
        let options = CompensateOptions {
            undoing,
            ..CompensateOptions::default()
        };
        let refused = Compensated::new(&Hessian::new(2), &options).map(|_| ());
        assert!(matches!(refused, Err(CompensateError::Undoing(_))));
    }
    let indefinite = Hessian::from_lower(2, &[1.0, 20.0, 1.0]).unwrap();
    assert_eq!(new(&indefinite, 0.01), Err(CompensateError::Indefinite));
    // Rounding may do this; more damping helps.
    let nearly = Hessian::from_lower(2, &[1.0, 1.05, 1.0]).unwrap();
    assert_eq!(new(&nearly, 0.01), Ok(()));
    for damping in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let plain = Hessian::new(2);
        assert!(matches!(
            new(&plain, damping),
            Err(CompensateError::Damping(_))
        ));
    }
    let empty = Compensated::new(&Hessian::new(0), &CompensateOptions::default()).unwrap();
    assert_eq!(empty.width(), 0);
}

//! Coordinate descent over the codes and the scales of some rows.
//!
//! With the gradient `g = (w − q) M` of a row, changing `q` by `d` makes `(w − q) M (w − q)ᵀ`
//! smaller by `2 g dᵀ − d M dᵀ`. So the best number of a single weight is the one nearest to
//! `qₖ + gₖ / Mₖₖ`, and the best scale of weights `q = s t` is the one nearest to
//! `s + g tᵀ / (t M tᵀ)`. A change of the row that is to arrive adds a matrix of rank one to `M`.

use qoft_kernels::gemm::{Mat, matmul};
use qoft_kernels::wide;

use super::lattice::{Lattice, Number};

/// Sums are kept in so many parts, so that loops become vector instructions.
const LANES: usize = 16;

/// What errors of a row are measured by.
#[derive(Clone, Copy)]
pub(super) struct Metric<'a> {
    /// `M`, `[width, width]`.
    pub values: &'a [f32],
    pub width: usize,
    /// What was added to its diagonal.
    pub damping: f32,
}

impl Metric<'_> {
    /// The products of rows with it, added to what is in `sums`.
    fn add_products(&self, rows: &[f32], features: &[usize], sums: &mut [f32]) {
        let (width, size) = (self.width, features.len());
        let gathered: Vec<f32>;
        let follow = features.windows(2).all(|pair| pair[0] + 1 == pair[1]);
        let metric = match features.first() {
            Some(&first) if follow => &self.values[first * width..][..size * width],
            _ => {
                let lines = features.iter().map(|&k| &self.values[k * width..][..width]);
                gathered = lines.flatten().copied().collect();
                &gathered
            }
        };
        let rows = Mat::new(rows, rows.len() / size, size, size);
        matmul(
            sums,
            width,
            rows,
            Mat::new(metric, size, width, width),
            true,
        );
    }

    /// The part of it that belongs to some features, row by row.
    fn part(&self, features: &[usize]) -> Vec<f32> {
        let rows = features
            .iter()
            .map(|&k| &self.values[k * self.width..][..self.width]);
        rows.flat_map(|row| features.iter().map(|&k| row[k]))
            .collect()
    }
}

/// What some rows are to be.
pub(super) struct Goal<'a> {
    metric: Metric<'a>,
    values: &'a [f32],
    /// How much more an error counts along `pull`.
    undoing: f32,
    /// `M Δᵀ / √(Δ M Δᵀ)` of each row, for its change `Δ`; 0 if there is none.
    pull: Vec<f32>,
}

impl<'a> Goal<'a> {
    pub fn new(
        metric: Metric<'a>,
        values: &'a [f32],
        before: Option<&[f32]>,
        undoing: f32,
    ) -> Self {
        let mut pull = vec![0.0; values.len()];
        let width = metric.width;
        if let Some(before) = before {
            let change: Vec<f32> = values.iter().zip(before).map(|(a, b)| a - b).collect();
            let all: Vec<usize> = (0..width).collect();
            metric.add_products(&change, &all, &mut pull);
            for (pull, change) in pull.chunks_exact_mut(width).zip(change.chunks_exact(width)) {
                let size = dot(pull, change).sqrt();
                let scale = if size > 0.0 { size.recip() } else { 0.0 };
                pull.iter_mut().for_each(|value| *value *= scale);
            }
        }
        Self {
            metric,
            values,
            undoing,
            pull,
        }
    }
}

/// The codes and scales of some rows on their way.
pub(super) struct Band<'a> {
    goal: &'a Goal<'a>,
    lattice: Lattice<'a>,
    /// The number of the first row in its weight.
    first: usize,
    pub codes: Vec<u8>,
    /// `[rows, groups]`.
    pub scales: Vec<f32>,
    /// `q`.
    numbers: Vec<f32>,
    /// `(w − q) M`.
    gradient: Vec<f32>,
    /// The share of `w − q` along [`Goal::pull`], of each row.
    undone: Vec<f32>,
}

impl<'a> Band<'a> {
    pub fn new(
        goal: &'a Goal,
        lattice: Lattice<'a>,
        first: usize,
        found: Vec<Number>,
        scales: &[f32],
    ) -> Self {
        let width = goal.metric.width;
        let (codes, numbers): (Vec<u8>, Vec<f32>) = found.into_iter().unzip();
        let off: Vec<f32> = goal
            .values
            .iter()
            .zip(&numbers)
            .map(|(w, q)| w - q)
            .collect();
        let mut gradient = vec![0.0; off.len()];
        let all: Vec<usize> = (0..width).collect();
        goal.metric.add_products(&off, &all, &mut gradient);
        let rows = off.chunks_exact(width).zip(goal.pull.chunks_exact(width));
        let undone = rows.map(|(off, pull)| dot(off, pull)).collect();
        Self {
            goal,
            lattice,
            first,
            codes,
            scales: scales.to_vec(),
            numbers,
            gradient,
            undone,
        }
    }

    /// What a row costs: its error without the damping, and what it undoes.
    pub fn cost(&self, row: usize) -> f64 {
        let Metric { width, damping, .. } = self.goal.metric;
        let at = row * width..(row + 1) * width;
        let (values, numbers) = (&self.goal.values[at.clone()], &self.numbers[at.clone()]);
        let terms = values.iter().zip(numbers).zip(&self.gradient[at]);
        let error: f64 = terms
            .map(|((w, q), slope)| f64::from(w - q) * f64::from(slope - damping * (w - q)))
            .sum();
        error + f64::from(self.goal.undoing) * f64::from(self.undone[row]).powi(2)
    }

    /// Goes through scales and codes, those of the features at the end of `order` first, up to
    /// `passes` times: until nothing changes any more.
    pub fn descend(&mut self, order: &[usize], passes: usize) {
        let members = self.lattice.members(self.goal.metric.width);
        let mut moving: Vec<usize> = (0..self.undone.len()).collect();
        for _ in 0..passes {
            let mut moved = vec![false; self.undone.len()];
            let groups = members.iter().enumerate();
            for (group, members) in groups.filter(|(_, members)| !members.is_empty()) {
                self.change_scales(group, members, &moving, &mut moved);
            }
            for &row in &moving {
                moved[row] |= wide!(self.change_codes(row, order));
            }
            moving.retain(|&row| moved[row]);
        }
    }

    /// Gives each of the rows the best scale of a group.
    fn change_scales(
        &mut self,
        group: usize,
        members: &[usize],
        rows: &[usize],
        moved: &mut [bool],
    ) {
        let (width, size) = (self.goal.metric.width, members.len());
        let part = self.goal.metric.part(members);
        // `−d` of all rows.
        let mut steps = vec![0.0; self.undone.len() * size];
        let mut any = false;
        for &row in rows {
            let steps = &mut steps[row * size..][..size];
            if wide!(self.change_scale(row, group, members, &part, steps)) {
                (any, moved[row]) = (true, true);
            }
        }
        if any {
            let gradient = &mut self.gradient[..];
            debug_assert_eq!(gradient.len(), self.undone.len() * width);
            self.goal.metric.add_products(&steps, members, gradient);
        }
    }

    /// Gives one row the best scale of a group, and fills in `−d` for the gradient.
    #[inline(always)]
    fn change_scale(
        &mut self,
        row: usize,
        group: usize,
        members: &[usize],
        part: &[f32],
        steps: &mut [f32],
    ) -> bool {
        let (width, size) = (self.goal.metric.width, members.len());
        let (at, n) = (row * width, self.first + row);
        let place = row * (self.scales.len() / self.undone.len()) + group;
        let scale = self.scales[place];
        if scale == 0.0 {
            return false;
        }
        let (undoing, undone) = (self.goal.undoing, self.undone[row]);
        let own: Vec<f32> = members.iter().map(|&k| self.numbers[at + k]).collect();
        let pull: Vec<f32> = members.iter().map(|&k| self.goal.pull[at + k]).collect();
        let slopes = members.iter().zip(&pull);
        let slopes = slopes.map(|(&k, pull)| self.gradient[at + k] + undoing * undone * pull);
        let slopes: Vec<f32> = slopes.collect();
        let square = |d: &[f32]| -> f32 {
            let rows = part.chunks_exact(size).zip(d);
            let along = dot(d, &pull);
            rows.map(|(row, d_k)| d_k * dot(row, d)).sum::<f32>() + undoing * along * along
        };
        // Of the numbers at the scale of 1, `scale` times as large.
        let curvature = square(&own);
        if curvature <= 0.0 {
            return false;
        }
        let wanted = scale * (1.0 + dot(&slopes, &own) / curvature);
        let lattice = self.lattice;
        let Some(new) = lattice
            .storable(n, group, wanted)
            .filter(|new| *new != scale)
        else {
            return false;
        };
        let numbers = members.iter().map(|&k| {
            let number = lattice.number(new, n, k, self.codes[at + k]);
            number.unwrap_or(self.numbers[at + k])
        });
        let numbers: Vec<f32> = numbers.collect();
        let d: Vec<f32> = numbers
            .iter()
            .zip(&own)
            .map(|(new, old)| new - old)
            .collect();
        // False for what is not a number, too.
        let gains = 2.0 * dot(&slopes, &d) > square(&d);
        if !gains {
            return false;
        }
        self.scales[place] = new;
        self.undone[row] -= dot(&d, &pull);
        for ((&k, number), (step, d)) in members.iter().zip(numbers).zip(steps.iter_mut().zip(&d)) {
            self.numbers[at + k] = number;
            *step = -d;
        }
        true
    }

    /// Gives each weight of a row its best code.
    #[inline(always)]
    fn change_codes(&mut self, row: usize, order: &[usize]) -> bool {
        let Metric { width, values, .. } = self.goal.metric;
        let groups = self.scales.len() / self.undone.len();
        let at = row * width;
        let scales = &self.scales[row * groups..][..groups];
        let pull = &self.goal.pull[at..][..width];
        let gradient = &mut self.gradient[at..][..width];
        let numbers = &mut self.numbers[at..][..width];
        let codes = &mut self.codes[at..][..width];
        let (undoing, mut undone) = (self.goal.undoing, self.undone[row]);
        let mut moved = false;
        for &k in order.iter().rev() {
            let slope = gradient[k] + undoing * undone * pull[k];
            let line = &values[k * width..][..width];
            let curvature = line[k] + undoing * pull[k] * pull[k];
            let wanted = numbers[k] + slope / curvature;
            let (code, number) = self.lattice.nearest(scales, self.first + row, k, wanted);
            let d = number - numbers[k];
            let gain = d * (2.0 * slope - d * curvature);
            // False for what is not a number, too.
            if code != codes[k] && gain > 0.0 {
                (codes[k], numbers[k], moved) = (code, number, true);
                undone -= d * pull[k];
                for (gradient, value) in gradient.iter_mut().zip(line) {
                    *gradient -= d * value;
                }
            }
        }
        self.undone[row] = undone;
        moved
    }
}

#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

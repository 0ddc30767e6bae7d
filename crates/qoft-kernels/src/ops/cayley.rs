//! From skew-symmetric parameters to rotations, by the Cayley map or its Neumann series.

use std::borrow::Cow;

use rayon::prelude::*;

use crate::gemm::{Mat, matmul};
use crate::op::{Forward, HostOp, HostView};

/// Which map turns `Q` into `R`.
///
/// The two turn in opposite directions: the series approximates the transpose of the exact map.
/// PEFT has them so, and adapters depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CayleyMap {
    /// `R = (I − Q)(I + Q)⁻¹`.
    Exact,
    /// `R = I + 2Q + 2Q² + … + 2Q^(t−2) + Q^(t−1)`; 3 terms mean 4, as in PEFT.
    Neumann(usize),
    /// The series before PEFT 0.18: `R = I + 2Q + … + 2Q^(t−1)`.
    LegacyNeumann(usize),
}

impl CayleyMap {
    /// Coefficients of the powers of `Q`, from `Q⁰` on; `None` for the exact map.
    pub fn coefficients(self) -> Option<Vec<f32>> {
        match self {
            Self::Exact => None,
            Self::Neumann(0 | 1) | Self::LegacyNeumann(0 | 1) => Some(vec![1.0]),
            Self::Neumann(2) => Some(vec![1.0, 2.0]),
            Self::Neumann(terms) => {
                let mut c = vec![2.0; terms.max(4)];
                c[0] = 1.0;
                c[terms.max(4) - 1] = 1.0;
                Some(c)
            }
            Self::LegacyNeumann(terms) => {
                let mut c = vec![2.0; terms];
                c[0] = 1.0;
                Some(c)
            }
        }
    }
}

/// Input: `[r, b(b−1)/2]`, row i holding the strict upper triangle of block i, row by row.
/// Output: the rotations, `[r, b, b]`.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Cayley {
    /// The map.
    pub map: CayleyMap,
    /// Block size b.
    pub size: usize,
    /// The `eps` of constrained OFT: parameters are projected first, see [`coft_project`]. The
    /// gradient is that of the map at the projected point.
    pub coft_eps: Option<f64>,
}

impl Cayley {
    /// The map for blocks of a size, without constraint.
    pub fn new(map: CayleyMap, size: usize) -> Self {
        Self {
            map,
            size,
            coft_eps: None,
        }
    }

    /// The same with the `eps` of constrained OFT, or without.
    #[must_use]
    pub fn with_coft_eps(self, coft_eps: Option<f64>) -> Self {
        Self { coft_eps, ..self }
    }
}

/// Stored values of a skew-symmetric block of size `b`: `b(b−1)/2`.
pub fn pairs(b: usize) -> usize {
    b * b.saturating_sub(1) / 2
}

/// Projects each block to the ball of constrained OFT: `‖Q‖_F ≤ eps / √blocks`.
///
/// `params` is `[blocks, pairs]`; the norm is that of the full skew-symmetric matrix.
pub fn coft_project(params: &mut [f32], blocks: usize, eps: f64) {
    let radius = eps / (blocks as f64).sqrt();
    for row in params.chunks_exact_mut((params.len() / blocks.max(1)).max(1)) {
        let norm = (2.0 * row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>()).sqrt();
        if norm > radius {
            row.iter_mut()
                .for_each(|v| *v = (f64::from(*v) * (radius / norm)) as f32);
        }
    }
}

impl HostOp for Cayley {
    fn forward(&self, inputs: &[HostView], _keep: bool) -> Forward {
        let (blocks, b) = (inputs[0].shape[0], self.size);
        let params = self.projected(inputs[0]);
        let mut out = vec![0.0; blocks * b * b];
        out.par_chunks_mut((b * b).max(1))
            .enumerate()
            .for_each(|(block, out)| {
                let q = skew(&params[block * pairs(b)..][..pairs(b)], b);
                match self.map.coefficients() {
                    None => out.copy_from_slice(&exact(&q, b)),
                    Some(c) => out.copy_from_slice(&series(&q, &c, b).swap_remove(0)),
                }
            });
        Forward::new(&[blocks, b, b], out)
    }

    fn reads(&self, _index: usize) -> bool {
        true
    }

    fn backward(
        &self,
        inputs: &[HostView],
        _saved: &[f32],
        grad: HostView,
        _wants: &[bool],
    ) -> Vec<Option<Vec<f32>>> {
        let b = self.size;
        let params = self.projected(inputs[0]);
        let mut out = vec![0.0; params.len()];
        let indexed = out.par_chunks_mut(pairs(b).max(1)).enumerate();
        indexed.for_each(|(block, out)| {
            let q = skew(&params[block * pairs(b)..][..pairs(b)], b);
            let grad = &grad.data[block * b * b..][..b * b];
            let dq = match self.map.coefficients() {
                None => exact_gradient(&q, grad, b),
                Some(c) => series_gradient(&q, &c, grad, b),
            };
            for (value, (i, j)) in out.iter_mut().zip(upper(b)) {
                *value = dq[i * b + j] - dq[j * b + i];
            }
        });
        vec![Some(out)]
    }
}

impl Cayley {
    fn projected<'a>(&self, params: HostView<'a>) -> Cow<'a, [f32]> {
        match self.coft_eps {
            None => Cow::Borrowed(params.data),
            Some(eps) => {
                let mut values = params.data.to_vec();
                coft_project(&mut values, params.shape[0], eps);
                Cow::Owned(values)
            }
        }
    }
}

fn upper(b: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..b).flat_map(move |i| (i + 1..b).map(move |j| (i, j)))
}

fn skew(params: &[f32], b: usize) -> Vec<f32> {
    let mut q = vec![0.0; b * b];
    for (&value, (i, j)) in params.iter().zip(upper(b)) {
        q[i * b + j] = value;
        q[j * b + i] = -value;
    }
    q
}

/// `out = lhs · rhs` for square blocks, either side optionally transposed.
fn product(lhs: &[f32], lhs_t: bool, rhs: &[f32], rhs_t: bool, b: usize) -> Vec<f32> {
    let view = |m, t| {
        let m = Mat::new(m, b, b, b);
        if t { m.t() } else { m }
    };
    let mut out = vec![0.0; b * b];
    matmul(&mut out, b, view(lhs, lhs_t), view(rhs, rhs_t), false);
    out
}

/// Horner's rule: `P_j = c_j I + Q · P_(j+1)`. Returns all of `P_0 = R, P_1, …`.
fn series(q: &[f32], c: &[f32], b: usize) -> Vec<Vec<f32>> {
    let mut steps: Vec<Vec<f32>> = Vec::with_capacity(c.len());
    for &coefficient in c.iter().rev() {
        let mut p = match steps.as_slice() {
            [] => vec![0.0; b * b],
            [_] => q.iter().map(|v| v * c[c.len() - 1]).collect(),
            [.., next] => product(q, false, next, false, b),
        };
        (0..b).for_each(|i| p[i * b + i] += coefficient);
        steps.push(p);
    }
    steps.reverse();
    steps
}

/// With `G_0 = dR`: `dQ = Σ G_j · P_(j+1)ᵀ`, `G_(j+1) = Qᵀ · G_j`.
fn series_gradient(q: &[f32], c: &[f32], grad: &[f32], b: usize) -> Vec<f32> {
    let steps = series(q, c, b);
    let mut dq = vec![0.0; b * b];
    let mut g = grad.to_vec();
    let mut steps = steps[1..].iter();
    let last = steps.next_back();
    for next in steps {
        let term = product(&g, false, next, true, b);
        dq.iter_mut().zip(term).for_each(|(d, t)| *d += t);
        g = product(q, true, &g, false, b);
    }
    if last.is_some() {
        // It is a multiple of I.
        dq.iter_mut()
            .zip(g)
            .for_each(|(d, g)| *d += c[c.len() - 1] * g);
    }
    dq
}

/// `(I − Q)(I + Q)⁻¹ = 2(I + Q)⁻¹ − I`.
fn exact(q: &[f32], b: usize) -> Vec<f32> {
    let mut r: Vec<f32> = inverse_of_one_plus(q, b)
        .into_iter()
        .map(|v| 2.0 * v as f32)
        .collect();
    (0..b).for_each(|i| r[i * b + i] -= 1.0);
    r
}

/// With `A = (I + Q)⁻¹`: `dQ = −2 · Aᵀ · dR · Aᵀ`.
fn exact_gradient(q: &[f32], grad: &[f32], b: usize) -> Vec<f32> {
    let a: Vec<f32> = inverse_of_one_plus(q, b)
        .into_iter()
        .map(|v| v as f32)
        .collect();
    let inner = product(grad, false, &a, true, b);
    let mut dq = product(&a, true, &inner, false, b);
    dq.iter_mut().for_each(|v| *v *= -2.0);
    dq
}

/// Gauss–Jordan in f64. No pivoting: the symmetric part of `I + Q` is `I`, so that every pivot
/// is at least 1.
fn inverse_of_one_plus(q: &[f32], b: usize) -> Vec<f64> {
    let mut m: Vec<f64> = q.iter().map(|&v| f64::from(v)).collect();
    (0..b).for_each(|i| m[i * b + i] += 1.0);
    let mut pivot_row = vec![0.0; b];
    for p in 0..b {
        let pivot = 1.0 / m[p * b + p];
        m[p * b + p] = 1.0;
        m[p * b..][..b].iter_mut().for_each(|v| *v *= pivot);
        pivot_row.copy_from_slice(&m[p * b..][..b]);
        for (i, row) in m.chunks_exact_mut(b).enumerate() {
            if i != p {
                let factor = row[p];
                row[p] = 0.0;
                row.iter_mut()
                    .zip(&pivot_row)
                    .for_each(|(v, p)| *v -= factor * p);
            }
        }
    }
    m
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_gradients, random};
    use super::*;

    fn rotations(map: CayleyMap, params: &[f32], b: usize) -> Vec<f32> {
        let blocks = params.len() / pairs(b);
        let shape = [blocks, pairs(b)];
        Cayley {
            map,
            size: b,
            coft_eps: None,
        }
        .forward(&[HostView::new(&shape, params)], false)
        .data
    }

    fn orthogonality_error(r: &[f32], b: usize) -> f32 {
        let mut rtr = product(r, true, r, false, b);
        (0..b).for_each(|i| rtr[i * b + i] -= 1.0);
        rtr.iter().map(|v| v * v).sum::<f32>().sqrt()
    }

    #[test]
    fn the_exact_map_is_orthogonal_even_far_from_identity() {
        let params: Vec<f32> = random(pairs(16) * 2, 3).iter().map(|v| v * 50.0).collect();
        for r in rotations(CayleyMap::Exact, &params, 16).chunks_exact(256) {
            assert!(orthogonality_error(r, 16) < 1e-5);
        }
    }

    #[test]
    fn two_features_turn_by_the_known_angle() {
        // Q = [[0, q], [-q, 0]]: the exact map turns by twice the arctangent of q.
        let q = 0.5f32;
        let angle = 2.0 * q.atan();
        let r = rotations(CayleyMap::Exact, &[q], 2);
        let expected = [angle.cos(), -angle.sin(), angle.sin(), angle.cos()];
        for (a, b) in r.iter().zip(expected) {
            assert!((a - b).abs() < 1e-6);
        }
        // The series turns the other way.
        let r = rotations(CayleyMap::Neumann(40), &[q], 2);
        assert!((r[1] - angle.sin()).abs() < 1e-5);
    }

    #[test]
    fn three_terms_mean_four() {
        let params = random(pairs(5), 9);
        let [three, four] = [3, 4].map(|terms| rotations(CayleyMap::Neumann(terms), &params, 5));
        assert_eq!(three, four);
        let one = rotations(CayleyMap::Neumann(1), &params, 5);
        assert_eq!(orthogonality_error(&one, 5), 0.0);
    }

    #[test]
    fn gradients_equal_finite_differences() {
        let maps = [
            CayleyMap::Exact,
            CayleyMap::Neumann(2),
            CayleyMap::Neumann(5),
            CayleyMap::LegacyNeumann(4),
        ];
        for map in maps {
            let params = random(3 * pairs(4), 5).iter().map(|v| v * 0.3).collect();
            check_gradients(
                &Cayley {
                    map,
                    size: 4,
                    coft_eps: None,
                },
                &[(vec![3, pairs(4)], params)],
            );
        }
    }

    #[test]
    fn a_block_of_one_feature_is_the_identity() {
        let shape = [3, 0];
        let op = Cayley {
            map: CayleyMap::Exact,
            size: 1,
            coft_eps: None,
        };
        assert_eq!(
            op.forward(&[HostView::new(&shape, &[])], false).data,
            [1.0; 3]
        );
    }

    #[test]
    fn projection_keeps_small_blocks_and_shrinks_large_ones() {
        let mut params = vec![0.01, 0.0, 0.0, 3.0, 0.0, 4.0];
        coft_project(&mut params, 2, 0.5);
        assert_eq!(params[..3], [0.01, 0.0, 0.0]);
        let norm = (2.0 * params[3..].iter().map(|v| v * v).sum::<f32>()).sqrt();
        assert!((norm - 0.5 / 2f32.sqrt()).abs() < 1e-6);
    }
}

//! One head of values.

use super::chunk::{CHUNK, Chunk, product, scale};
use super::keys::Keys;
use crate::gemm::{Mat, matmul};
use crate::vector::dot;
use crate::wide;

/// A head of values in one sequence.
pub struct Head<'a> {
    /// From its first value on.
    pub values: &'a [f32],
    /// From one token's values to the next one's.
    pub stride: usize,
    /// Logarithms of the decays.
    pub decay: Vec<f32>,
    /// Rates.
    pub beta: Vec<f32>,
    /// Widths of keys and values.
    pub dims: [usize; 2],
}

/// Gradients of what a head has by itself, for each token.
pub struct HeadGradients {
    /// `[time, value_dim]`.
    pub values: Vec<f32>,
    /// `[time]`.
    pub decay: Vec<f32>,
    /// `[time]`.
    pub beta: Vec<f32>,
}

/// Some tokens as the forward has left them.
struct Passed {
    chunk: Chunk,
    /// The state before them.
    state: Vec<f32>,
    /// What they have written, `[rows, value_dim]`.
    written: Vec<f32>,
}

impl Head<'_> {
    fn chunks(&self) -> impl DoubleEndedIterator<Item = std::ops::Range<usize>> {
        let time = self.decay.len();
        let starts = (0..time.div_ceil(CHUNK)).map(|chunk| chunk * CHUNK);
        starts.map(move |start| start..time.min(start + CHUNK))
    }

    /// The outputs of all tokens, in rows of `stride` numbers, and the state behind them.
    pub fn forward(&self, keys: &Keys, state: &mut [f32], out: &mut [f32], stride: usize) {
        let [key_dim, width] = self.dims;
        for tokens in self.chunks() {
            let chunk = Chunk::new(keys, tokens.start, &self.decay[tokens.clone()]);
            let mut written = self.written(keys, &chunk, state);
            // What the state before them and they themselves tell the queries.
            let mut reads = vec![0.0; chunk.rows * width];
            let before = Mat::new(state, key_dim, width, width);
            matmul(
                &mut reads,
                width,
                keys.queries(chunk.start, chunk.rows),
                before,
                false,
            );
            scale(&mut reads, width, &chunk.left);
            let own = Mat::new(&written, chunk.rows, width, width);
            matmul(&mut reads, width, chunk.square(&chunk.reads), own, true);
            for (row, reads) in tokens.zip(reads.chunks_exact(width)) {
                out[row * stride..][..width].copy_from_slice(reads);
            }
            self.advance(keys, &chunk, &mut written, state);
        }
    }

    /// What the tokens of a chunk write: `β(v − Sᵀk)` with the state at each of them.
    fn written(&self, keys: &Keys, chunk: &Chunk, state: &[f32]) -> Vec<f32> {
        let [key_dim, width] = self.dims;
        let mut w = vec![0.0; chunk.rows * width];
        let state = Mat::new(state, key_dim, width, width);
        matmul(
            &mut w,
            width,
            keys.keys(chunk.start, chunk.rows),
            state,
            false,
        );
        let beta = &self.beta[chunk.start..];
        for (i, row) in w.chunks_exact_mut(width).enumerate() {
            let (left, beta) = (chunk.left[i], beta[i]);
            let values = self.value(chunk.start + i);
            for (row, value) in row.iter_mut().zip(values) {
                *row = beta * (value - left * *row);
            }
        }
        chunk.solve(beta, &mut w, width);
        w
    }

    /// The state behind a chunk, from the one before it; `written` becomes what is left of it there.
    fn advance(&self, keys: &Keys, chunk: &Chunk, written: &mut [f32], state: &mut [f32]) {
        let width = self.dims[1];
        let kept = chunk.kept();
        state.iter_mut().for_each(|v| *v *= kept);
        scale(written, width, &chunk.rest);
        let written = Mat::new(written, chunk.rows, width, width);
        matmul(
            state,
            width,
            keys.keys(chunk.start, chunk.rows).t(),
            written,
            true,
        );
    }

    fn value(&self, at: usize) -> &[f32] {
        &self.values[at * self.stride..][..self.dims[1]]
    }

    /// The gradients, from those of the outputs, `grad` in rows of `stride` numbers. Those of normalized
    /// queries and keys are added to `dq` and `dk`.
    pub fn backward(
        &self,
        keys: &Keys,
        grad: &[f32],
        stride: usize,
        [dq, dk]: [&mut [f32]; 2],
    ) -> HeadGradients {
        let ([key_dim, width], time) = (self.dims, self.decay.len());
        let mut state = vec![0.0; key_dim * width];
        let passed = self.chunks().map(|tokens| {
            let chunk = Chunk::new(keys, tokens.start, &self.decay[tokens]);
            let written = self.written(keys, &chunk, &state);
            let before = state.clone();
            self.advance(keys, &chunk, &mut written.clone(), &mut state);
            Passed {
                chunk,
                state: before,
                written,
            }
        });
        let passed: Vec<Passed> = passed.collect();
        let mut out = HeadGradients {
            values: vec![0.0; time * width],
            decay: vec![0.0; time],
            beta: vec![0.0; time],
        };
        let mut d_state = vec![0.0; key_dim * width];
        for passed in passed.iter().rev() {
            let start = passed.chunk.start;
            let grad = (&grad[start * stride..], stride);
            let rows = start * key_dim..(start + passed.chunk.rows) * key_dim;
            let sums = [&mut dq[rows.clone()], &mut dk[rows]];
            self.chunk_backward(keys, passed, grad, &mut d_state, sums, &mut out);
        }
        out
    }

    /// The gradients of a chunk; `d_state` is that of the state behind it, and becomes that of the one
    /// before it.
    ///
    /// With the state `S` before and `S'` behind the chunk, `l` what is left of `S` at each token, `r` of each token
    /// behind the last one, and `D` of one token at another: `W = T⁻¹ β(V − l·KS)` with `T = 1 + β·(KKᵀ∘D)` below
    /// its diagonal, `O = l·QS + (QKᵀ∘D) W` and `S' = l_n S + Kᵀ(r·W)`.
    fn chunk_backward(
        &self,
        keys: &Keys,
        passed: &Passed,
        (grad, stride): (&[f32], usize),
        d_state: &mut [f32],
        [dq, dk]: [&mut [f32]; 2],
        out: &mut HeadGradients,
    ) {
        let [key_dim, width] = self.dims;
        let Passed {
            chunk,
            state,
            written,
        } = passed;
        let (start, rows) = (chunk.start, chunk.rows);
        let (q, k) = (keys.queries(start, rows), keys.keys(start, rows));
        let beta = &self.beta[start..start + rows];
        let asked = Mat::new(grad, rows, width, stride);
        let w = Mat::new(written, rows, width, width);
        let before = Mat::new(state, key_dim, width, width);
        let mut d_sums = vec![0.0; rows];

        // What was written is read by the state behind the chunk and by its queries.
        let behind = Mat::new(d_state, key_dim, width, width);
        let mut d_w = vec![0.0; rows * width];
        matmul(&mut d_w, width, k, behind, false);
        scale(&mut d_w, width, &chunk.rest);
        matmul(&mut d_w, width, chunk.square(&chunk.reads).t(), asked, true);
        // Solved, it is the gradient of the right side.
        chunk.solve_transposed(beta, &mut d_w, width);
        let d_right = Mat::new(&d_w, rows, width, width);

        let mut d_reads = product(asked, w, [rows; 2]);
        let mut d_system = product(d_right, w, [rows; 2]);
        for i in 0..rows {
            let row = i * rows..(i + 1) * rows;
            let (overlap, reads) = (&chunk.overlap[row.clone()], &chunk.reads[row.clone()]);
            let between = &chunk.between[row.clone()];
            let (d_reads, d_system) = (&mut d_reads[row.clone()], &mut d_system[row]);
            d_system[i..].fill(0.0);
            d_reads[i + 1..].fill(0.0);
            let mut d_beta = 0.0;
            for j in 0..=i {
                let by_system = -d_system[j] * overlap[j];
                let by_decay = by_system * beta[i] + d_reads[j] * reads[j];
                d_beta += by_system;
                d_sums[i] += by_decay;
                d_sums[j] -= by_decay;
                d_system[j] *= -between[j] * beta[i];
                d_reads[j] *= between[j];
            }
            out.beta[start + i] = d_beta;
        }
        let (d_reads, d_system) = (chunk.square(&d_reads), chunk.square(&d_system));
        matmul(dq, key_dim, d_reads, k, true);
        matmul(dk, key_dim, d_reads.t(), q, true);
        matmul(dk, key_dim, d_system, k, true);
        matmul(dk, key_dim, d_system.t(), k, true);

        // The keys as the state behind the chunk has them.
        let mut d_keys = product(w, behind, [rows, key_dim]);
        scale(&mut d_keys, key_dim, &chunk.rest);
        for i in 0..rows {
            let pull = add(dk, &d_keys, i, keys.key(start + i));
            d_sums[i] -= pull;
            d_sums[rows - 1] += pull;
        }
        d_sums[rows - 1] += chunk.kept() * wide!(dot(state, d_state));
        // The queries as the state before it answers them.
        let mut d_queries = product(asked, before, [rows, key_dim]);
        scale(&mut d_queries, key_dim, &chunk.left);
        for (i, d_sum) in d_sums.iter_mut().enumerate() {
            *d_sum += add(dq, &d_queries, i, keys.query(start + i));
        }

        // The right side.
        let mut told = vec![0.0; rows * width];
        matmul(&mut told, width, k, before, false);
        let d_values = &mut out.values[start * width..][..rows * width];
        d_values.copy_from_slice(&d_w);
        for i in 0..rows {
            let (told, d_right) = (&told[i * width..][..width], &d_w[i * width..][..width]);
            let values = self.value(start + i);
            let terms = values.iter().zip(told).zip(d_right);
            let terms = terms.map(|((value, told), d)| d * (value - chunk.left[i] * told));
            out.beta[start + i] += terms.sum::<f32>();
        }
        scale(d_values, width, beta);
        let d_told = Mat::new(d_values, rows, width, width);
        let mut d_keys = product(d_told, before, [rows, key_dim]);
        scale(&mut d_keys, key_dim, &chunk.left);
        d_keys.iter_mut().for_each(|v| *v = -*v);
        for (i, d_sum) in d_sums.iter_mut().enumerate() {
            *d_sum += add(dk, &d_keys, i, keys.key(start + i));
        }

        // The state before the chunk.
        let kept = chunk.kept();
        d_state.iter_mut().for_each(|v| *v *= kept);
        let mut part: Vec<f32> = Vec::with_capacity(rows * width);
        for row in grad.chunks(stride).take(rows) {
            part.extend(&row[..width]);
        }
        scale(&mut part, width, &chunk.left);
        matmul(
            d_state,
            width,
            q.t(),
            Mat::new(&part, rows, width, width),
            true,
        );
        part.copy_from_slice(d_values);
        scale(&mut part, width, &chunk.left);
        part.iter_mut().for_each(|v| *v = -*v);
        matmul(
            d_state,
            width,
            k.t(),
            Mat::new(&part, rows, width, width),
            true,
        );

        // A decay is part of the sums at all tokens from its own on.
        let mut sum = 0.0;
        for (d_decay, d_sum) in out.decay[start..start + rows].iter_mut().zip(&d_sums).rev() {
            sum += d_sum;
            *d_decay = sum;
        }
    }
}

/// Adds row `i` of a gradient to that of a sum; returns its product with `with`.
fn add(sum: &mut [f32], gradient: &[f32], i: usize, with: &[f32]) -> f32 {
    let row = i * with.len()..(i + 1) * with.len();
    let (sum, gradient) = (&mut sum[row.clone()], &gradient[row]);
    wide!({
        for (sum, gradient) in sum.iter_mut().zip(gradient) {
            *sum += gradient;
        }
        dot(gradient, with)
    })
}

//! Helpers of this module's tests.

use crate::op::{HostOp, HostView};

/// Numbers between −1 and 1, the same for the same seed.
pub fn random(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Compares every gradient with central differences of a random projection of the output.
pub fn check_gradients(op: &dyn HostOp, inputs: &[(Vec<usize>, Vec<f32>)]) {
    let run = |inputs: &[(Vec<usize>, Vec<f32>)]| {
        let views: Vec<HostView> = inputs.iter().map(|(s, d)| HostView::new(s, d)).collect();
        op.forward(&views, true)
    };
    let output = run(inputs);
    let projection = random(output.data.len(), 99);
    let loss = |inputs: &[(Vec<usize>, Vec<f32>)]| -> f64 {
        let terms = run(inputs).data.into_iter().zip(&projection);
        terms.map(|(a, b)| f64::from(a) * f64::from(*b)).sum()
    };
    let views: Vec<HostView> = inputs.iter().map(|(s, d)| HostView::new(s, d)).collect();
    let grad = HostView::new(&output.shape, &projection);
    let grads = op.backward(&views, &output.saved, grad, &vec![true; inputs.len()]);
    for (index, grad) in grads.into_iter().enumerate() {
        let grad = grad.expect("asked for");
        assert_eq!(grad.len(), inputs[index].1.len());
        for (at, &grad) in grad.iter().enumerate() {
            let mut moved = inputs.to_vec();
            let step = 1e-2;
            moved[index].1[at] = inputs[index].1[at] + step;
            let up = loss(&moved);
            moved[index].1[at] = inputs[index].1[at] - step;
            let slope = (up - loss(&moved)) / (2.0 * f64::from(step));
            let error = (slope - f64::from(grad)).abs();
            assert!(
                error < 4e-3 * (1.0 + slope.abs()),
                "input {index}[{at}]: {slope} {grad}"
            );
        }
    }
}

//! Quantization of a layer's input, where a scheme has one.

use qoft_core::Purpose;

use crate::compute::random;
use crate::layer::Layer;

/// It is repeatable, leaves zeros as they are, and makes finite inputs neither infinite nor wildly
/// different.
pub(crate) fn check(layer: &Layer) {
    let loaded = layer.load(Purpose::Forward);
    let Some(quantizer) = &loaded.input_quantizer else {
        return;
    };
    let k = loaded.weight.shape()[1];
    let quantized = |x: &[f32]| {
        let mut x = x.to_vec();
        quantizer.quantize(&mut x, k);
        x
    };
    assert!(quantized(&[]).is_empty(), "{layer}: inputs out of nothing");
    let zeros = quantized(&vec![0.0; 2 * k]);
    assert!(zeros.iter().all(|v| *v == 0.0), "{layer}: zeros change");
    for (seed, size) in [(1, 1.0), (2, 1e-3), (3, 20.0), (4, 1e4)] {
        let x: Vec<f32> = random(3 * k, seed).iter().map(|v| v * size).collect();
        let found = quantized(&x);
        assert_eq!(found, quantized(&x), "{layer}: not repeatable");
        let all_finite = found.iter().all(|v| v.is_finite());
        assert!(all_finite, "{layer}: an input becomes infinite");
        let larger = x
            .iter()
            .zip(&found)
            .find(|(x, y)| y.abs() > 2.0 * size.max(x.abs()));
        assert!(larger.is_none(), "{layer}: an input grows: {larger:?}");
    }
}

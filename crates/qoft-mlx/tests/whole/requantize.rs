//! Changed weights in the layers of the fixtures.

use qoft_conformance::requantize;
use qoft_mlx::REGISTRATION;

/// What rounding to the numbers of a format costs.
fn expected(format: &str) -> f64 {
    match format {
        "int2" => 0.45,
        "int3" => 0.22,
        "int4" | "mxfp4" | "nvfp4" => 0.2,
        "int5" | "int6" => 0.06,
        "mxfp8" => 0.04,
        _ => 0.015,
    }
}

#[test]
fn layers_can_be_written_again() {
    let layers = requantize(&REGISTRATION, qoft_fixtures::folders("schemes/mlx"));
    assert!(layers.len() >= 110, "only {} layers", layers.len());
    for layer in layers {
        // Groups that have not changed keep their scales, and with them their weights.
        assert_eq!(layer.own.clone().unwrap(), 0.0, "{layer:?}");
        let rotated = layer.rotated.clone().unwrap();
        assert!(rotated < expected(&layer.format), "{layer:?}");
    }
}

//! Changed weights in the layers of the fixtures.

use qoft_conformance::requantize;
use qoft_modelopt::REGISTRATION;

#[test]
fn layers_can_be_written_again() {
    let layers = requantize(&REGISTRATION, qoft_fixtures::folders("schemes/modelopt"));
    assert!(layers.len() >= 70, "only {} layers", layers.len());
    for layer in layers {
        // Groups that have not changed keep their scales, and with them their weights.
        assert_eq!(layer.own.clone().unwrap(), 0.0, "{layer:?}");
        let limit = if layer.format == "nvfp4" { 0.12 } else { 0.035 };
        let rotated = layer.rotated.clone().unwrap();
        assert!(rotated < limit, "{layer:?}");
    }
}

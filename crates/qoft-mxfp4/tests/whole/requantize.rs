//! Changed weights in the layers of the fixtures.

use qoft_conformance::requantize;
use qoft_mxfp4::REGISTRATION;

#[test]
fn layers_can_be_written_again() {
    let layers = requantize(&REGISTRATION, qoft_fixtures::folders("schemes/mxfp4"));
    assert_eq!(layers.len(), 14 + 11);
    for layer in layers {
        // Groups that have not changed keep their scales, and with them their weights.
        assert_eq!(layer.own.clone().unwrap(), 0.0, "{layer:?}");
        let rotated = layer.rotated.clone().unwrap();
        assert!(rotated < 0.15, "{layer:?}");
    }
}

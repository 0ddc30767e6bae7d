//! Changed weights in the layers of the fixtures.

use qoft_conformance::requantize;
use qoft_torchao::REGISTRATION;

#[test]
fn layers_can_be_written_again() {
    let layers = requantize(&REGISTRATION, qoft_fixtures::folders("schemes/torchao"));
    assert_eq!(layers.len(), 11 * 7 + 13 + 8 + 3 + 5 + 1 + 1);
    for layer in layers {
        // Blocks that have not changed keep their scales, and with them their weights.
        assert_eq!(layer.own.clone().unwrap(), 0.0, "{layer:?}");
        let limit = match layer.format.as_str() {
            "int2" => 0.48,
            "int3" => 0.3,
            "int4" => 0.16,
            _ => 0.04,
        };
        let rotated = layer.rotated.clone().unwrap();
        assert!(rotated < limit, "{layer:?}");
    }
}

//! Changed weights in the layers of the fixtures.

/// A weight is on its layer's grid already; rounding of products makes a difference.
const OWN: f64 = 2e-4;

/// What rounding to so many bits costs.
fn expected(format: &str) -> f64 {
    match format {
        "int2" => 0.45,
        "int3" => 0.23,
        "int4" => 0.16,
        _ => 0.01,
    }
}

#[test]
fn layers_can_be_written_again() {
    let folders = qoft_fixtures::folders("schemes/awq");
    let layers = qoft_conformance::requantize(&qoft_awq::REGISTRATION, folders);
    assert!(layers.len() >= 50, "only {} layers", layers.len());
    for layer in layers {
        let (own, rotated) = (layer.own.clone().unwrap(), layer.rotated.clone().unwrap());
        assert!(own < OWN, "{layer:?}");
        assert!(rotated < expected(&layer.format), "{layer:?}");
        println!("{layer:?}");
    }
}

//! Changed weights in the layers of the fixtures.

#[test]
fn layers_can_be_written_again() {
    let folders = qoft_fixtures::folders("schemes/compressed-tensors");
    let layers = qoft_conformance::requantize(&qoft_compressed_tensors::REGISTRATION, folders);
    let mut written = 0;
    for layer in layers {
        println!("{layer:?}");
        assert_eq!(layer.own, Ok(0.0), "{layer:?}");
        let expected = match layer.format.as_str() {
            "int2" => 0.5,
            "int3" => 0.25,
            "int4" | "nvfp4" => 0.16,
            // Scales are powers of two.
            "mxfp4" => 0.18,
            "int5" => 0.08,
            "int6" | "int7" | "int8" => 0.06,
            _ => 0.035,
        };
        let rotated = layer.rotated.clone().unwrap();
        assert!(rotated < expected, "{layer:?}");
        written += 1;
    }
    assert!(written >= 100, "only {written} layers");
}

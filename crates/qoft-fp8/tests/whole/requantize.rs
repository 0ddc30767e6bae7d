//! Changed weights in the layers of the fixtures.

#[test]
fn layers_can_be_written_again() {
    let folders = qoft_fixtures::folders("schemes/fp8");
    let layers = qoft_conformance::requantize(&qoft_fp8::REGISTRATION, folders);
    let mut written = 0;
    for layer in layers {
        println!("{layer:?}");
        assert_eq!(layer.own, Ok(0.0), "{layer:?}");
        let rotated = layer.rotated.clone().unwrap();
        assert!(rotated < 0.035, "{layer:?}");
        written += 1;
    }
    assert!(written >= 40, "only {written} layers");
}

//! Changed weights in the layers of the fixtures.

/// A weight has its codes already; a scale may change in its last bit.
const OWN: f64 = 1e-6;
/// The codebooks were not made for these weights.
const ROTATED: f64 = 0.4;

#[test]
fn layers_can_be_written_again() {
    let folders = qoft_fixtures::folders("schemes/aqlm");
    let (mut written, mut refused) = (0, 0);
    for layer in qoft_conformance::requantize(&qoft_aqlm::REGISTRATION, folders) {
        match (&layer.own, &layer.rotated) {
            (Ok(own), Ok(rotated)) => {
                assert!(*own < OWN, "{layer:?}");
                assert!(*rotated < ROTATED, "{layer:?}");
                println!("{layer:?}");
                written += 1;
            }
            _ => {
                // Alone it could not be read back.
                assert!(layer.folder.ends_with("2x8_g8_f32_permuted_square"));
                let error = layer.rotated.unwrap_err();
                assert!(error.contains("permuted"), "{error}");
                refused += 1;
            }
        }
    }
    assert!(written >= 40 && refused == 1, "{written} {refused}");
}

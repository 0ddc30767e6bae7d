//! Changed weights in the layers of the fixtures.

use qoft_conformance::Requantized;
use qoft_scheme::BackendOptions;

/// A weight has its codes already; a scale may change in its last bit.
const OWN: f64 = 1e-6;
/// The codebooks were not made for these weights.
const ROTATED: f64 = 0.4;

/// All layers that can be written, with an option for the codebooks.
fn written(codebooks: &str) -> Vec<Requantized> {
    let folders = qoft_fixtures::folders("schemes/aqlm");
    let option = format!("aqlm.codebooks={codebooks}");
    let options = BackendOptions::parse(&[option]).unwrap();
    let layers = qoft_conformance::requantize_with(&qoft_aqlm::REGISTRATION, &options, folders);
    let (written, refused): (Vec<_>, Vec<_>) =
        layers.into_iter().partition(|layer| layer.own.is_ok());
    // Alone it could not be read back.
    let [refused] = refused.try_into().unwrap();
    assert!(refused.folder.ends_with("2x8_g8_f32_permuted_square"));
    let error = refused.rotated.unwrap_err();
    assert!(error.contains("permuted"), "{error}");
    assert!(written.len() >= 40, "{}", written.len());
    written
}

#[test]
fn layers_can_be_written_again() {
    for layer in written("keep") {
        assert!(layer.own.clone().unwrap() < OWN, "{layer:?}");
        assert!(layer.rotated.clone().unwrap() < ROTATED, "{layer:?}");
    }
}

#[test]
fn fitted_codebooks_are_nearer() {
    let pairs = written("keep").into_iter().zip(written("refit"));
    for (kept, refit) in pairs {
        assert_eq!(kept.path, refit.path);
        assert!(refit.own.clone().unwrap() <= kept.own.unwrap(), "{refit:?}");
        let (kept, refit) = (kept.rotated.unwrap(), refit.rotated.unwrap());
        println!("{kept} {refit}");
        assert!(refit < kept, "{refit} {kept}");
    }
}

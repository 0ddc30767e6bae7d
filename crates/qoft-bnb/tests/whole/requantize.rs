//! Changed weights in the layers of the fixtures.

use std::path::PathBuf;

use qoft_bnb::{REGISTRATION_4BIT, REGISTRATION_8BIT};
use qoft_conformance::requantize;
use qoft_scheme::Registration;

/// Folders whose layers are of some formats.
fn folders(prefixes: &[&str]) -> Vec<PathBuf> {
    let mut folders = qoft_fixtures::folders("bnb");
    folders.retain(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        prefixes.iter().any(|prefix| name.starts_with(prefix))
    });
    folders
}

/// What rounding costs at most: to codes whose scales are exact, and to those whose scales are
/// quantized themselves, of which a block of 4096 weights has few.
fn expected(format: &str) -> f64 {
    match format {
        "nf4" | "fp4" => 0.35,
        _ => 0.02,
    }
}

fn check(registration: &'static Registration, prefixes: &[&str], own: f64, count: usize) {
    let layers = requantize(registration, folders(prefixes));
    assert!(layers.len() >= count, "only {} layers", layers.len());
    for layer in layers {
        println!("{layer:?}");
        let again = layer.own.clone().unwrap();
        assert!(again <= own, "{layer:?}");
        let rotated = layer.rotated.clone().unwrap();
        assert!(rotated < expected(&layer.format), "{layer:?}");
    }
}

/// A weight that is on its grid stays there: its largest number in a block has the code of 1 or −1.
#[test]
fn layers_of_four_bits_can_be_written_again() {
    check(&REGISTRATION_4BIT, &["nf4", "fp4"], 0.06, 39);
}

/// The factor of 1/127 is not exactly that.
#[test]
fn layers_of_eight_bits_can_be_written_again() {
    check(&REGISTRATION_8BIT, &["int8"], 1e-3, 3);
}

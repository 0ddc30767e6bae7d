//! Dense weights become what MLX makes of them on a CPU.

use qoft_conformance::quantized;
use qoft_mlx::REGISTRATION;
use qoft_scheme::Checkpoint;

#[test]
fn the_bytes_are_the_librarys() {
    let mut layers = 0;
    for folder in qoft_fixtures::folders("schemes/mlx") {
        let library = Checkpoint::open(&folder).unwrap();
        let settings = library.quantization_config().unwrap();
        for tensor in quantized(&REGISTRATION, &folder, settings, None) {
            layers += usize::from(tensor.found.suffix == "weight");
            tensor.check();
        }
    }
    assert!(layers >= 110, "only {layers} layers");
}

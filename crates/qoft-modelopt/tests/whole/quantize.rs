//! Dense weights become what modelopt makes of them on a CPU.

use qoft_conformance::quantized;
use qoft_modelopt::REGISTRATION;
use qoft_scheme::Checkpoint;

/// Layers that share their input have one scale of the scales in the library's files.
const TOGETHER: [&str; 5] = ["q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"];

#[test]
fn the_bytes_are_the_librarys() {
    let mut layers = 0;
    for case in ["nvfp4_w4a16", "fp8_rows"] {
        let folder = qoft_fixtures::path(&format!("schemes/modelopt/{case}"));
        let library = Checkpoint::open(&folder).unwrap();
        let settings = library.quantization_config().unwrap();
        for tensor in quantized(&REGISTRATION, &folder, settings, None) {
            let together = TOGETHER
                .iter()
                .any(|name| tensor.found.layer.ends_with(name));
            if case == "nvfp4_w4a16" && together {
                continue;
            }
            layers += usize::from(tensor.found.suffix == "weight");
            tensor.check();
        }
    }
    assert_eq!(layers, 4 + 14);
}

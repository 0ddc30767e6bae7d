//! Dense weights become what HQQ makes of them on a CPU.

use qoft_conformance::quantized;
use qoft_hqq::REGISTRATION;
use qoft_scheme::Checkpoint;

#[test]
fn the_bytes_are_the_librarys() {
    let mut layers = 0;
    for folder in qoft_fixtures::folders("schemes/hqq") {
        if !folder.join("source.safetensors").is_file() {
            continue;
        }
        let library = Checkpoint::open(&folder).unwrap();
        let settings = library.quantization_config().unwrap();
        let scale = library.names().find(|name| name.ends_with(".scale"));
        let dtype = library.tensor(scale.unwrap()).unwrap().dtype();
        for tensor in quantized(&REGISTRATION, &folder, settings, Some(dtype)) {
            layers += usize::from(tensor.found.suffix == "W_q");
            tensor.check();
        }
    }
    assert!(layers >= 56, "only {layers} layers");
}

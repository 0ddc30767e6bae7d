//! Dense weights become what torchao makes of them.

use qoft_conformance::quantized;
use qoft_scheme::Checkpoint;
use qoft_torchao::REGISTRATION;

#[test]
fn the_bytes_are_the_librarys() {
    let mut layers = 0;
    for folder in qoft_fixtures::folders("schemes/torchao") {
        let case = folder.file_name().unwrap().to_str().unwrap();
        // Several configurations; inputs that are quantized too; another order of codes.
        if ["mixed", "int8_dynamic", "int4_tiles"].contains(&case) {
            continue;
        }
        let library = Checkpoint::open(&folder).unwrap();
        let settings = library.quantization_config().unwrap();
        for tensor in quantized(&REGISTRATION, &folder, settings, None) {
            layers += usize::from(tensor.found.suffix == "_weight_qdata");
            tensor.check();
        }
    }
    assert_eq!(layers, 10 * 7 + 8);
}

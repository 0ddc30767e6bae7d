//! Dense weights become the bytes that EETQ's quantizer makes of them.

use qoft_conformance::quantized;
use qoft_eetq::REGISTRATION;
use qoft_scheme::Checkpoint;

#[test]
fn the_bytes_are_the_librarys() {
    let folder = qoft_fixtures::path("schemes/eetq/sm80_layers");
    let library = Checkpoint::open(&folder).unwrap();
    let settings = library.quantization_config().unwrap();
    let tensors = quantized(&REGISTRATION, &folder, settings, None);
    assert_eq!(tensors.len(), 8);
    for tensor in tensors {
        tensor.check();
    }
}

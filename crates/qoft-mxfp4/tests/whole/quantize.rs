//! Dense weights become what the libraries make of them.

use qoft_conformance::quantized;
use qoft_mxfp4::REGISTRATION;
use serde_json::json;

#[test]
fn the_bytes_are_the_librarys() {
    let folder = qoft_fixtures::path("schemes/mxfp4/ceil");
    let tensors = quantized(&REGISTRATION, &folder, &json!({}), None);
    assert_eq!(tensors.len(), 2 * 14);
    for tensor in tensors {
        tensor.check();
    }
}

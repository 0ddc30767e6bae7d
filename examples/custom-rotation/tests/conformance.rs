//! The behaviour of every family of adapters.

use qoft_conformance::FamilySubject;
use qoft_goft::REGISTRATION;
use serde_json::json;

#[test]
fn conforms() {
    FamilySubject::new(&REGISTRATION)
        .identity_at_start([json!({})])
        .random_at_start([json!({"init_weights": false})])
        .check();
}

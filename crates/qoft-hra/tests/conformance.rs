//! The behaviour of every family of adapters.

use qoft_conformance::FamilySubject;
use serde_json::json;

#[test]
fn conforms() {
    FamilySubject::new(&qoft_hra::REGISTRATION)
        .identity_at_start([json!({}), json!({"r": 2})])
        .random_at_start([
            json!({"r": 3}),
            json!({"r": 4, "apply_GS": true}),
            json!({"r": 4, "init_weights": false}),
        ])
        .check();
}

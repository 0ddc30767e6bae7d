//! The behaviour of every family of adapters.

use qoft_conformance::FamilySubject;
use serde_json::json;

#[test]
fn conforms() {
    FamilySubject::new(&qoft_boft::REGISTRATION)
        .identity_at_start([
            json!({}),
            json!({"boft_block_size": 0, "boft_block_num": 4}),
            json!({"boft_block_size": 4, "boft_n_butterfly_factor": 2}),
            json!({"boft_block_size": 2, "boft_n_butterfly_factor": 4}),
        ])
        .random_at_start([
            json!({"boft_block_size": 8, "init_weights": false}),
            json!({"boft_block_size": 3, "init_weights": false}),
            json!({"boft_block_size": 4, "boft_n_butterfly_factor": 3, "init_weights": false}),
        ])
        .with_dropout([
            json!({"boft_dropout": 0.5}),
            json!({"boft_n_butterfly_factor": 2, "boft_dropout": 0.8}),
        ])
        .check();
}

//! The behaviour of every family of adapters.

use qoft_conformance::FamilySubject;
use serde_json::json;

#[test]
fn conforms() {
    FamilySubject::new(&qoft_oft::REGISTRATION)
        .identity_at_start([
            json!({"oft_block_size": 4}),
            json!({"oft_block_size": 0, "r": 4}),
            // As large as a filter, and not the right size for one.
            json!({"oft_block_size": 8, "use_cayley_neumann": false}),
            json!({"oft_block_size": 4, "block_share": true}),
            // Far enough that no block is projected, which has no gradient of its own.
            json!({"oft_block_size": 4, "coft": true, "eps": 20.0, "num_cayley_neumann_terms": 8}),
        ])
        .random_at_start([
            json!({"oft_block_size": 8, "init_weights": false}),
            json!({"oft_block_size": 3, "init_weights": false, "use_cayley_neumann": false}),
        ])
        .with_dropout([json!({"oft_block_size": 4, "module_dropout": 0.5})])
        .check();
}

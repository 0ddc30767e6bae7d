//! The `config.json` of a model of any architecture.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use qoft::models::Architectures;
use serde_json::Value;

static ARCHITECTURES: LazyLock<Architectures> =
    LazyLock::new(|| Architectures::linked().expect("names that differ"));

fuzz_target!(|input: &[u8]| {
    if let Ok(config) = serde_json::from_slice::<Value>(input) {
        let _ = ARCHITECTURES.describe(&config);
    }
});

//! The behaviour of every backend, on files that bitsandbytes wrote.

use qoft_conformance::{PeakAlloc, Subject};
use serde_json::json;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

fn folders(prefixes: &[&str]) -> Vec<std::path::PathBuf> {
    let mut folders = qoft_fixtures::folders("bnb");
    folders.retain(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        prefixes.iter().any(|prefix| name.starts_with(prefix))
    });
    folders
}

#[test]
fn conforms() {
    let config = |quant_type: &str, double: bool, storage: &str| {
        json!({
            "quant_method": "bitsandbytes", "load_in_4bit": true,
            "bnb_4bit_quant_type": quant_type, "bnb_4bit_use_double_quant": double,
            "bnb_4bit_quant_storage": storage, "blocksize": 64,
        })
    };
    let settings = [
        config("nf4", true, "uint8"),
        config("fp4", false, "bfloat16"),
    ];
    let four = Subject::new(&qoft_bnb::REGISTRATION_4BIT).settings(settings);
    four.folders(folders(&["nf4", "fp4"])).check();
    let eight = || {
        let config = json!({"quant_method": "bitsandbytes", "load_in_8bit": true});
        let eight = Subject::new(&qoft_bnb::REGISTRATION_8BIT).settings([config]);
        eight.folders(folders(&["int8"]))
    };
    eight().check();
    eight().options(&["bnb-8bit.int8_activations=true"]).check();
}

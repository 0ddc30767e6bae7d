//! The YAML file of `qoft train --config`.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use qoft_fuzz::{folder, write};
use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(folder);

fuzz_target!(|input: &[u8]| {
    write(FOLDER.path(), "options.yaml", input);
    let _ = qoft_cli::read_train_options(&FOLDER.path().join("options.yaml"));
});

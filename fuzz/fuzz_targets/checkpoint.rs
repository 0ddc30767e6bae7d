//! A checkpoint of one file: `config.json`, the header of the safetensors file, its tensors. Without
//! a header the tensors are the file. Its configuration is taken as settings to quantize by, too.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use qoft_fuzz::{folder, layers, parts, safetensors, write};
use qoft_scheme::Checkpoint;
use tempfile::TempDir;
use {qoft_aqlm as _, qoft_awq as _, qoft_bnb as _, qoft_eetq as _, qoft_gptq as _};
use {qoft_compressed_tensors as _, qoft_fp8 as _, qoft_hqq as _, qoft_inc_fp8 as _};
use {qoft_mlx as _, qoft_modelopt as _, qoft_mxfp4 as _, qoft_torchao as _};

static FOLDER: LazyLock<TempDir> = LazyLock::new(folder);

fuzz_target!(|input: &[u8]| {
    let [config, header, tensors] = parts(input);
    write(FOLDER.path(), "config.json", config);
    write(
        FOLDER.path(),
        "model.safetensors",
        &safetensors(header, tensors),
    );
    if let Ok(checkpoint) = Checkpoint::open(FOLDER.path()) {
        let _ = layers::read_all(&checkpoint);
        let _ = layers::quantize(&checkpoint);
    }
});

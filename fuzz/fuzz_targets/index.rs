//! The index of a checkpoint of two files, of which the second is damaged, too: the index, the
//! header of the second file.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use qoft_fuzz::{folder, parts, safetensors, write};
use qoft_scheme::Checkpoint;
use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = folder();
    let header = br#"{"a.weight":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}"#;
    let first = safetensors(header, &[0; 16]);
    write(folder.path(), "model-00001-of-00002.safetensors", &first);
    write(folder.path(), "config.json", br#"{"model_type":"llama"}"#);
    folder
});

fuzz_target!(|input: &[u8]| {
    let [index, header] = parts(input);
    write(FOLDER.path(), "model.safetensors.index.json", index);
    let second = safetensors(header, &[0; 32]);
    write(FOLDER.path(), "model-00002-of-00002.safetensors", &second);
    if let Ok(checkpoint) = Checkpoint::open(FOLDER.path()) {
        for name in checkpoint.names() {
            let _ = checkpoint.get(name).map(|tensor| tensor.to_f32());
        }
        let _ = checkpoint.modules();
    }
});

//! A checkpoint of a training: `trainer_state.json`, `optimizer.bin`, `adapter_config.json`, the
//! header of the adapter's file, its tensors. The digests in the state are those of the files.
#![no_main]

use std::sync::LazyLock;
use std::sync::atomic::AtomicBool;

use libfuzzer_sys::fuzz_target;
use qoft::models::CausalLm;
use qoft::oft::OftConfig;
use qoft::peft::{CONFIG, WEIGHTS};
use qoft::train::data::Dataset;
use qoft::train::train::{Digest, RunFolder, Start, TrainConfig, Trainer};
use qoft_cli as _;
use qoft_fuzz::{folder, parts, safetensors, small, write};
use serde_json::Value;
use tempfile::TempDir;

const OPTIMIZER: &str = "optimizer.bin";
/// No step is done.
static STOP: AtomicBool = AtomicBool::new(true);

struct Run {
    folder: TempDir,
    config: TrainConfig,
    adapter: OftConfig,
    dataset: Dataset,
}

static RUN: LazyLock<Run> = LazyLock::new(|| Run {
    folder: folder(),
    config: small::train_config(),
    adapter: small::adapter_config(),
    dataset: small::dataset(),
});

thread_local! {
    static MODEL: CausalLm = small::adapted_model();
}

fuzz_target!(|input: &[u8]| {
    let [state, optimizer, config, header, tensors] = parts(input);
    let checkpoint = RUN.folder.path().join("checkpoint-1");
    let _ = std::fs::create_dir(&checkpoint);
    write(&checkpoint, OPTIMIZER, optimizer);
    write(&checkpoint, CONFIG, config);
    write(&checkpoint, WEIGHTS, &safetensors(header, tensors));
    let mut state = state.to_vec();
    if let Ok(mut value) = serde_json::from_slice::<Value>(&state)
        && let Some(files) = value.get_mut("files").and_then(Value::as_object_mut)
    {
        for name in [OPTIMIZER, WEIGHTS] {
            let digest = Digest::of_file(&checkpoint.join(name)).expect("a file");
            if let (Some(place), Ok(digest)) = (files.get_mut(name), serde_json::to_value(digest)) {
                *place = digest;
            }
        }
        state = value.to_string().into_bytes();
    }
    write(&checkpoint, "trainer_state.json", &state);
    let out = RUN.folder.path().join("out");
    if let Ok(folder) = RunFolder::open(&out) {
        let mut trainer = Trainer::new(&RUN.config, &RUN.adapter, &RUN.dataset, &folder);
        trainer.start = Start::Checkpoint(&checkpoint);
        let _ = trainer.run(MODEL.with(Clone::clone), &mut (), &STOP);
    }
    let _ = std::fs::remove_dir_all(&out);
});

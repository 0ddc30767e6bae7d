//! The files of a tokenizer: `tokenizer.json`, `tokenizer_config.json`, and a text.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use qoft::train::tokenizer::Tokenizer;
use qoft_fuzz::{folder, parts, write};
use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(folder);

fuzz_target!(|input: &[u8]| {
    let [vocabulary, config, text] = parts(input);
    write(FOLDER.path(), "tokenizer.json", vocabulary);
    write(FOLDER.path(), "tokenizer_config.json", config);
    // The crate `tokenizers` keeps words of every tokenizer that a thread has used, as long as the
    // thread lives.
    let run = std::thread::scope(|scope| scope.spawn(|| use_on(text)).join());
    if let Err(panic) = run {
        std::panic::resume_unwind(panic);
    }
});

fn use_on(text: &[u8]) {
    let Ok(tokenizer) = Tokenizer::from_dir(FOLDER.path()) else {
        return;
    };
    let text = String::from_utf8_lossy(text);
    if let Ok(ids) = tokenizer.encode(&text, true) {
        let _ = tokenizer.decode(&ids, false);
    }
    let _ = tokenizer.stop_ids();
    let _ = tokenizer.chat_template();
}

//! Classes of tokenizers in transformers, whose configurations mean something of their own.

/// Those that set `add_prefix_space` of `tokenizer.json` by the configuration.
pub(super) const BYTE_LEVEL_CLASSES: [&str; 4] = [
    "CodeGenTokenizer",
    "GPT2Tokenizer",
    "GPTNeoXTokenizer",
    "RobertaTokenizer",
];

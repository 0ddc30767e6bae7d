"""data/tokenizer_classes.json: which rules split text, by the class and the type of model that files name.

Each case has the `class` of tokenizer_config.json and the `model_type` of config.json (null: not there), the
`pre_tokenizer` laid into data/tokenizer/tokenizer.json (its place in `pre_tokenizers`), `add_prefix_space` of the
configuration (null: not there), and `ids`, those of `texts` without special tokens, as AutoTokenizer gives them.
"""

import json
import tempfile
from pathlib import Path

from transformers import AutoTokenizer

DATA = Path(__file__).resolve().parent.parent / "data"

TEXTS = ["one two", " one 12", "Hello<|im_end|>there", "cafe\u0301 o"]
CLASSES = [
    "CodeGenTokenizer",
    "CohereTokenizer",
    "GPT2Tokenizer",
    "GPT2TokenizerFast",
    "GPTNeoXTokenizer",
    "LlamaTokenizer",
    "PreTrainedTokenizerFast",
    "Qwen2Tokenizer",
    "Qwen2TokenizerFast",
]
MODELS = [
    "cohere",
    "gemma",
    "gemma3_text",
    "glm4",
    "exaone4",
    "gpt2",
    "gpt_oss",
    "granite",
    "granitemoe",
    "hunyuan_v1_dense",
    "llama",
    "ministral3",
    "mistral",
    "mixtral",
    "olmo",
    "olmo2",
    "olmo3",
    "olmoe",
    "phi3",
    "qwen2",
    "qwen2_moe",
    "qwen3",
    "qwen3_moe",
    "seed_oss",
    "smollm3",
    "starcoder2",
]
NAMED = [None, "GPT2Tokenizer", "GPTNeoXTokenizerFast", "LlamaTokenizerFast", "PreTrainedTokenizerFast", "Qwen2Tokenizer"]


def byte_level(prefix):
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": True}


def after_digits(part):
    return {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, part]}


PRE_TOKENIZERS = [byte_level(False), byte_level(True), after_digits(byte_level(False)), after_digits(byte_level(True))]


def case(base, name, model_type, pre_tokenizer, prefix):
    config = {"tokenizer_class": name, "add_prefix_space": prefix}
    config = {key: value for key, value in config.items() if value is not None}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        tokenizer = {**base, "pre_tokenizer": PRE_TOKENIZERS[pre_tokenizer]}
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        if model_type is not None:
            (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
        tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    return {"class": name, "model_type": model_type, "pre_tokenizer": pre_tokenizer, "add_prefix_space": prefix, "ids": ids}


def main():
    base = json.loads((DATA / "tokenizer" / "tokenizer.json").read_text())
    # A class of pieces needs it.
    base["model"]["vocab"]["<unk>"] = len(base["model"]["vocab"])
    cases = [
        case(base, name, None, pre_tokenizer, prefix)
        for name in CLASSES
        for pre_tokenizer in range(len(PRE_TOKENIZERS))
        for prefix in (None, False, True)
    ]
    cases += [
        case(base, name, model_type, len(PRE_TOKENIZERS) - 1, prefix)
        for model_type in MODELS
        for name in NAMED
        for prefix in (None, True)
        # It has rules for text in pieces.
        if name is not None or not model_type.startswith("gemma")
    ]
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    head = f'"texts":{json.dumps(TEXTS)},\n"pre_tokenizers":{json.dumps(PRE_TOKENIZERS)}'
    (DATA / "tokenizer_classes.json").write_text(f'{{{head},\n"cases":[\n{lines}\n]}}\n')
    print(f"{len(cases)} cases")


main()

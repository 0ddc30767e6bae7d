"""data/tokenizer_classes.json: what the class in tokenizer_config.json makes of `add_prefix_space`.

Each case has the `class`, the `pre_tokenizer` laid into data/tokenizer/tokenizer.json, `add_prefix_space` of the
configuration (null: not there), and `ids`, those of `texts` without special tokens, as AutoTokenizer gives them.
"""

import json
import tempfile
from pathlib import Path

from transformers import AutoTokenizer

DATA = Path(__file__).resolve().parent.parent / "data"

TEXTS = ["one two", " one 12", "Hello<|im_end|>there"]
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


def pre_tokenizers():
    for prefix in (False, True):
        part = {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": True}
        yield part
        yield {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, part]}


def main():
    base = json.loads((DATA / "tokenizer" / "tokenizer.json").read_text())
    cases = []
    for name in CLASSES:
        for pre_tokenizer in pre_tokenizers():
            for prefix in (None, False, True):
                config = {"tokenizer_class": name} | ({} if prefix is None else {"add_prefix_space": prefix})
                with tempfile.TemporaryDirectory() as folder:
                    tokenizer = Path(folder) / "tokenizer.json"
                    tokenizer.write_text(json.dumps({**base, "pre_tokenizer": pre_tokenizer}))
                    (Path(folder) / "tokenizer_config.json").write_text(json.dumps(config))
                    tokenizer = AutoTokenizer.from_pretrained(folder)
                ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
                cases.append({"class": name, "pre_tokenizer": pre_tokenizer, "add_prefix_space": prefix, "ids": ids})
    lines = ",\n".join(json.dumps(case) for case in cases)
    text = '{"texts":' + json.dumps(TEXTS) + ',\n"cases":[\n' + lines + "\n]}\n"
    (DATA / "tokenizer_classes.json").write_text(text)
    print(f"{len(cases)} cases")


main()

"""data/added_tokens.json: tokens that other files add to data/tokenizer/tokenizer.json.

Each case has `files` (name to content, laid beside tokenizer.json), `special_tokens` (those that templates see), and
`ids`, the ids of `texts` without special tokens added, as transformers' tokenizer gives them.
"""

import json
import shutil
import tempfile
from pathlib import Path

from transformers import PreTrainedTokenizerFast

DATA = Path(__file__).resolve().parent.parent / "data"

TEXTS = ["one <|x|> two<|y|>  <|x|>", "a <z> b<|im_end|> <|y|>x", " <|x|><|x|> Hello<q> there"]


def token(content, **flags):
    return {"content": content, "lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True, **flags}


CONFIG, MAP, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
BASE = {"tokenizer_class": "PreTrainedTokenizerFast"}
CASES = [
    {},
    {CONFIG: {**BASE, "bos_token": "<|bos|>", "eos_token": "<|im_end|>"}},
    {CONFIG: {**BASE, "eos_token": "<|x|>"}},
    {CONFIG: {**BASE, "eos_token": "<|x|>", "pad_token": "<|y|>", "bos_token": "<z>"}},
    {CONFIG: {**BASE, "extra_special_tokens": ["<|x|>", "<|y|>"]}},
    {CONFIG: {**BASE, "additional_special_tokens": ["<|y|>", "<|x|>"]}},
    {CONFIG: {**BASE, "extra_special_tokens": {"image_token": "<|x|>", "audio_token": "<|y|>"}}},
    {CONFIG: {**BASE, "image_token": "<|x|>"}},
    {CONFIG: {**BASE, "added_tokens_decoder": {"900": token("<|x|>"), "400": token("<|y|>", lstrip=True)}}},
    {CONFIG: {**BASE, "added_tokens_decoder": {"400": token("<|x|>", special=False, normalized=True, rstrip=True)}}},
    {CONFIG: {**BASE, "added_tokens_decoder": {"400": token("<|x|>", single_word=True), "4": token("<|im_end|>", lstrip=True)}}},
    {CONFIG: {**BASE, "added_tokens_decoder": {"400": token("<|x|>")}, "eos_token": "<|y|>"}, MAP: {"eos_token": "<z>"}, ADDED: {"<q>": 500}},
    {ADDED: {"<|y|>": 321, "<|x|>": 320}},
    {ADDED: {"<|x|>": 320, "<q>": 330}, CONFIG: {**BASE, "eos_token": "<|x|>"}},
    {MAP: {"eos_token": {"content": "<|x|>", "lstrip": True, "rstrip": False, "normalized": False, "single_word": False}}},
    {MAP: {"eos_token": "<|x|>", "additional_special_tokens": ["<|y|>"]}, CONFIG: {**BASE, "eos_token": "<|im_end|>"}},
    {MAP: {"eos_token": "<|x|>", "extra_special_tokens": ["<|y|>", {"content": "<z>", "lstrip": True}]}, CONFIG: {**BASE, "extra_special_tokens": ["<q>"]}},
    {CONFIG: {**BASE, "eos_token": token("<|x|>", lstrip=True, __type="AddedToken")}},
    {CONFIG: {**BASE, "eos_token": None, "extra_special_tokens": []}},
    {ADDED: {"<|x|>": 4, "<|y|>": 321, "<z>": 321}},
    {CONFIG: {**BASE, "eos_token": token("<|x|>", lstrip=True, __type="AddedToken"), "image_token": "<q>"}, ADDED: {"<|x|>": 4, "<q>": 330}},
    {CONFIG: {**BASE, "image_token": token("<|x|>")}},
    {CONFIG: {**BASE, "image_token": token("<|x|>", __type="AddedToken")}, MAP: {"bos_token": token("<|x|>", rstrip=True)}},
    {CONFIG: {**BASE, "additional_special_tokens": ["<|x|>"]}, MAP: {"additional_special_tokens": ["<|y|>"]}},
    {CONFIG: {**BASE, "extra_special_tokens": []}, MAP: {"additional_special_tokens": ["<|y|>"]}},
    {CONFIG: {**BASE, "eos_token": "<|x|>", "split_special_tokens": True}},
    {CONFIG: {**BASE, "model_specific_special_tokens": {"image_token": "<|x|>", "eos_token": "<|y|>"}}},
    {CONFIG: {**BASE, "model_specific_special_tokens": {"image_token": "<|x|>"}, "extra_special_tokens": {"image_token": "<|y|>"}}},
    {CONFIG: {**BASE, "model_specific_special_tokens": {"eos_token": "<|x|>"}, "eos_token": "<|y|>"}, MAP: {"bos_token": "<z>"}},
]


def main():
    entries = []
    for files in CASES:
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(DATA / "tokenizer" / "tokenizer.json", folder)
            for name, content in files.items():
                (Path(folder) / name).write_text(json.dumps(content))
            tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
            ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
            entries.append({"files": files, "special_tokens": tokenizer.special_tokens_map, "ids": ids})
    lines = [json.dumps(entry, ensure_ascii=False) for entry in entries]
    text = '{"texts":' + json.dumps(TEXTS) + ',\n"cases":[\n' + ",\n".join(lines) + "\n]}\n"
    (DATA / "added_tokens.json").write_text(text, encoding="utf-8")
    print(f"{len(entries)} cases")


main()

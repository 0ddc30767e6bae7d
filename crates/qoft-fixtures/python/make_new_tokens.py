"""data/new_tokens: models that got new tokens, trained with PEFT's OFT there and with `qoft train --add-tokens` here.

  tied/model          the model of data/preference with one weight for embedding and output head
  <case>/peft         an adapter with both as whole modules, and its tokenizer, as PEFT and transformers save them
  <case>/ours         adapter_config.json and adapter_model.safetensors of `qoft train`, which the environment
                      variable QOFT names
  rows.jsonl          the texts, in which the new tokens are
  expected.json
    tokens, special   the new tokens
    ids               of the texts, with the token that ends a text behind them
    cases             {case: values}
      model           below data/
      options         of `qoft train`
      grown           the mean loss over all predicted tokens of the model that `resize_token_embeddings` makes
      peft            with the adapter of PEFT
      ours            with that of `qoft train`, loaded by PEFT
      merged          `ours`, merged by `qoft merge` and loaded by transformers
"""

from common import DATA, fresh, generator, losses, write_json
from conversations import write_rows

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from peft import OFTConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

QOFT = os.environ["QOFT"]
TOKENS, SPECIAL = ["<note>", "[step]"], ["<|tool|>"]
TEXTS = ["A <note>quick<note> brown fox [step] jumps", "<|tool|>The capital[step] of France", "12 <note> and [step][step] 345<|tool|>"]
CASES = {"untied": "preference/model", "tied": "new_tokens/tied/model"}
STEPS = ["--max-steps", "3", "--batch-size", "3", "--learning-rate", "0.02", "--target-modules", "q_proj,down_proj"]


def load(path, tokens=None):
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager")
    if tokens:
        torch.manual_seed(5)
        model.resize_token_embeddings(tokens)
    return model.eval()


def make_tied():
    folder = fresh("new_tokens", "tied", "model")
    model = load(DATA / CASES["untied"])
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.lm_head.weight = model.model.embed_tokens.weight
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(DATA / "tokenizer" / name, folder)


def save_peft(case, tokenizer):
    folder = fresh("new_tokens", case, "peft")
    path = DATA / CASES[case]
    model = load(path, len(tokenizer))
    config = OFTConfig(
        target_modules=["q_proj", "down_proj"],
        oft_block_size=8,
        modules_to_save=["embed_tokens", "lm_head"],
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(model, config)
    gen = generator(33)
    with torch.no_grad():
        for key, parameter in sorted(model.named_parameters()):
            if "oft_" in key or "modules_to_save" in key:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=gen))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").unlink()
    relative(folder)
    return model.eval()


def relative(folder):
    config = folder / "adapter_config.json"
    config.write_text(config.read_text().replace(str(DATA), "../../.."))


def qoft(*arguments):
    subprocess.run([QOFT, *map(str, arguments)], check=True, capture_output=True)


def train(case, options, work, tokenizer, ids):
    """Trains here, and returns the losses of the adapter in PEFT and of what it is merged into."""
    out, merged = work / "out", work / "merged"
    path = DATA / CASES[case]
    qoft("train", "--model", path, "--data", DATA / "new_tokens" / "rows.jsonl", "--output", out, *options)
    ours = AutoTokenizer.from_pretrained(out)
    assert ours(TEXTS)["input_ids"] == tokenizer(TEXTS)["input_ids"] and len(ours) == len(tokenizer)
    assert ours.all_special_tokens == tokenizer.all_special_tokens or SPECIAL[0] in ours.get_added_vocab()
    model = PeftModel.from_pretrained(load(path, len(ours)), out).eval()
    qoft("merge", "--model", path, "--adapter", out, "--output", merged, "--min-kept", "0")
    assert AutoTokenizer.from_pretrained(merged)(TEXTS) == ours(TEXTS)
    folder = fresh("new_tokens", case, "ours")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(out / name, folder / name)
    relative(folder)
    return losses(model, ids)[0], losses(load(merged), ids)[0]


def main():
    fresh("new_tokens")
    write_rows(DATA / "new_tokens" / "rows.jsonl", [{"text": text} for text in TEXTS])
    make_tied()
    tokenizer = AutoTokenizer.from_pretrained(DATA / CASES["untied"])
    tokenizer.add_tokens(TOKENS)
    tokenizer.add_tokens(SPECIAL, special_tokens=True)
    ids = [row + [tokenizer.eos_token_id] for row in tokenizer(TEXTS)["input_ids"]]
    expected = {"tokens": TOKENS, "special": SPECIAL, "ids": ids, "cases": {}}
    for case, path in CASES.items():
        options = ["--add-tokens", ",".join(TOKENS), "--add-special-tokens", ",".join(SPECIAL), *STEPS]
        values = {"model": path, "options": options}
        values["grown"] = losses(load(DATA / path, len(tokenizer)), ids)[0]
        values["peft"] = losses(save_peft(case, tokenizer), ids)[0]
        with tempfile.TemporaryDirectory() as work:
            values["ours"], values["merged"] = train(case, options, Path(work), tokenizer, ids)
        assert abs(values["ours"] - values["merged"]) < 2e-5, values
        assert abs(values["ours"] - values["grown"]) > 1e-2, values
        expected["cases"][case] = values
        print(case, values)
    write_json(DATA / "new_tokens" / "expected.json", expected)


if __name__ == "__main__":
    main()

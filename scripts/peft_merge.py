"""Merges an OFT adapter with PEFT and measures the losses before and after, to compare qoft with.

Rows, their tokens (the text and the token that ends it) and the mean over all predicted tokens are
those of `qoft eval`. Everything in float32 on the CPU; modules are used in training mode, in which
bitsandbytes multiplies with the dequantized weights.

    python peft_merge.py --model models/SmolLM2-135M-Instruct-nf4 --adapter runs/smollm2 \\
        --eval data/eval.jsonl other/eval.jsonl

HQQ models need hqq and transformers 4 (requirements-hqq.txt) and peft.
"""

import argparse
import json
import logging
import pathlib

import torch
from peft import PeftConfig, PeftModel
from safetensors import safe_open
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM


def load(model):
    # bitsandbytes would repack 4-bit weights for a multiplication in bfloat16.
    try:
        import bitsandbytes.nn.modules as modules

        modules.has_avx512bf16 = lambda: False
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    except ImportError:
        pass
    model = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, device_map="cpu")
    for module in model.modules():
        # HQQ computes in the dtype of its statistics unless told.
        if hasattr(module, "compute_dtype") and hasattr(module, "W_q"):
            module.compute_dtype = torch.float32
    for parameter in model.parameters():
        if type(parameter) is torch.nn.Parameter and parameter.dtype.is_floating_point:
            parameter.data = parameter.data.float()
    return model


def config(adapter):
    """The configuration with the names of all layers: PEFT's `all-linear` does not find those of HQQ."""
    config = PeftConfig.from_pretrained(adapter)
    with safe_open(pathlib.Path(adapter) / "adapter_model.safetensors", "pt") as file:
        config.target_modules = {key.split(".oft_")[0].rsplit(".", 1)[-1] for key in file.keys()}
    return config


def losses(model, rows):
    """The mean loss of each list of rows."""
    model.train()
    found = []
    for texts in rows:
        total, count = 0.0, 0
        for ids in texts:
            ids = torch.tensor([ids])
            with torch.no_grad():
                logits = model(input_ids=ids, use_cache=False).logits.float()
            total += torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:], reduction="sum").item()
            count += ids.shape[1] - 1
        found.append(total / count)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--adapter", required=True)
    parser.add_argument("--eval", type=pathlib.Path, nargs="+", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=pathlib.Path, help="writes the figures here as well")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    folder = pathlib.Path(args.model)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    end = json.loads((folder / "tokenizer_config.json").read_text())["eos_token"]
    end = [tokenizer.token_to_id(end if isinstance(end, str) else end["content"])]
    texts = [[json.loads(line)["text"] for line in path.read_text().splitlines() if line] for path in args.eval]
    rows = [[tokenizer.encode(text).ids + end for text in file] for file in texts]
    model = PeftModel.from_pretrained(load(args.model), args.adapter, config=config(args.adapter))
    result = {"model": args.model, "adapted": losses(model, rows)}
    with model.disable_adapter():
        result["base"] = losses(model, rows)
    # merge_and_unload fails on HQQ's layers; what it merges is the same.
    model.merge_adapter()
    result["merged"] = losses(model, rows)
    text = json.dumps(result, indent=2)
    print(text)
    if args.json:
        args.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

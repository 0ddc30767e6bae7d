"""Loads what `qoft quantize` or `qoft merge` wrote with the scheme's own library, and compares the loss.

    qoft quantize --model MODEL --output FOLDER --scheme SCHEME
    python scripts/load_quantized.py --qoft target/release/qoft --data rows.jsonl FOLDER…

The rows have `input_ids`. bitsandbytes folders need transformers and bitsandbytes; HQQ needs
transformers 4 and hqq; GPTQ and AWQ need GPTQModel; FP8 needs transformers, and compressed-tensors
the library of that name as well. All of them load on a CPU
(crates/qoft-fixtures/python/requirements*.txt).
"""

import argparse
import json
import subprocess
from pathlib import Path

import torch


def load(folder, method):
    if method in ("gptq", "awq"):
        from gptqmodel import BACKEND, GPTQModel

        backend = BACKEND.TORCH if method == "gptq" else BACKEND.TORCH_AWQ
        # It decodes in half precision only; all that follows is in single precision.
        model = GPTQModel.load(str(folder), device="cpu", backend=backend, dtype=torch.float16).model
        return model.float()
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, device_map="cpu", torch_dtype=torch.float32)


@torch.no_grad()
def mean_loss(model, rows):
    # In training mode bitsandbytes multiplies with the dequantized weights, not in int8 or bfloat16.
    model.train()
    total, tokens = 0.0, 0
    for ids in rows:
        ids = torch.tensor([ids])
        logits = model(input_ids=ids).logits[0, :-1].float()
        total += torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
        tokens += ids.shape[1] - 1
    return total / tokens


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--qoft", default="target/release/qoft")
    parser.add_argument("--data", required=True)
    parser.add_argument("folders", nargs="+", type=Path)
    args = parser.parse_args()
    rows = [json.loads(line)["input_ids"] for line in Path(args.data).read_text().splitlines()]
    for folder in args.folders:
        method = json.loads((folder / "config.json").read_text())["quantization_config"]["quant_method"]
        theirs = mean_loss(load(folder, method), rows)
        command = [args.qoft, "eval", "--model", str(folder), "--data", args.data, "--json"]
        ours = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["loss"]
        print(f"{folder} ({method}): library {theirs:.6f}, qoft {ours:.6f}, off {abs(theirs - ours):.1e}")


if __name__ == "__main__":
    main()

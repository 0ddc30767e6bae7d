"""Quantizes a dense model folder to block-wise FP8 (`quant_method: "fp8"`) with transformers, without a GPU.

    pip install -r ../crates/qoft-fixtures/python/requirements-fp8.txt
    python quantize_fp8.py --model models/SmolLM2-135M-Instruct-dense \
        --out models/SmolLM2-135M-Instruct-fp8

The usual blocks of 128x128 do not fit a model of 576 hidden features, and transformers leaves a layer that
they do not fit dense; hence 64x64. All other tensors are bfloat16, and lm_head stays dense. The check for a GPU is
replaced. The files of the tokenizer are copied. Prepare the dense folder with prepare_smollm2.py. A model of
135 million parameters takes seconds.
"""

import argparse
import pathlib
import shutil

import torch
from transformers import AutoModelForCausalLM, FineGrainedFP8Config
from transformers.integrations.finegrained_fp8 import FP8Linear


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True, help="folder of the dense model")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--block", type=int, default=64, help="rows and columns of a block")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    torch.cuda.is_available, torch.cuda.get_device_capability = lambda: True, lambda *_: (9, 0)
    model = AutoModelForCausalLM.from_pretrained(
        args.model,
        dtype=torch.bfloat16,
        quantization_config=FineGrainedFP8Config(weight_block_size=(args.block, args.block)),
        device_map={"": "cpu"},
    )
    for name, module in model.named_modules():
        if isinstance(module, FP8Linear) and module.weight.dtype != torch.float8_e4m3fn:
            raise SystemExit(f"blocks of {args.block} do not fit {name}")
    model.save_pretrained(args.out)
    for pattern in ("tokenizer*", "special_tokens_map.json", "chat_template.jinja"):
        for file in args.model.glob(pattern):
            shutil.copyfile(file, args.out / file.name)
    for file in args.out.iterdir():
        file.chmod(0o644)
    print(f"{args.out}: {sum(file.stat().st_size for file in args.out.iterdir()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()

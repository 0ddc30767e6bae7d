"""Quantizes a dense model folder with HQQ (half-quadratic quantization), on the CPU.

    pip install wheel "setuptools<81"
    DISABLE_CUDA=1 pip install --no-build-isolation -r requirements-hqq.txt
    python quantize_hqq.py --model models/SmolLM2-135M-Instruct-dense \
        --out models/SmolLM2-135M-Instruct-hqq4 --nbits 4 --group-size 64
    python quantize_hqq.py --model models/SmolLM2-135M-Instruct-dense \
        --out models/SmolLM2-135M-Instruct-hqq2 --nbits 2 --group-size 16

The folder is written by transformers 4 (version 5 has no HQQ). Scales, zeros and all other tensors are float32,
as transformers 4.57 makes them. The files of the tokenizer are copied. Prepare the dense folder with
prepare_smollm2.py. A model of 135 million parameters takes a minute on two cores.
"""

import argparse
import json
import pathlib
import shutil

import torch
from transformers import AutoConfig, AutoModelForCausalLM, HqqConfig


def configuration(folder):
    """The model's config. transformers 4 does not know the place where version 5 keeps the rotary settings."""
    values = json.loads((folder / "config.json").read_text())
    rope = values.get("rope_parameters")
    if rope is None:
        return AutoConfig.from_pretrained(folder)
    if rope.get("rope_type", "default") != "default":
        raise SystemExit("a model with rotary scaling is not supported")
    del values["rope_parameters"]
    return AutoConfig.for_model(**(values | {"rope_theta": rope["rope_theta"]}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True, help="folder of the dense model")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--nbits", type=int, default=4, choices=[8, 4, 3, 2, 1])
    parser.add_argument("--group-size", type=int, default=64)
    parser.add_argument("--axis", type=int, default=1, choices=[0, 1])
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    model = AutoModelForCausalLM.from_pretrained(
        args.model,
        config=configuration(args.model),
        quantization_config=HqqConfig(nbits=args.nbits, group_size=args.group_size, axis=args.axis),
        dtype=torch.float32,
        device_map="cpu",
    )
    model.save_pretrained(args.out)
    for pattern in ("tokenizer*", "special_tokens_map.json", "chat_template.jinja"):
        for file in args.model.glob(pattern):
            shutil.copyfile(file, args.out / file.name)
    for file in args.out.iterdir():
        file.chmod(0o644)
    print(f"{args.out}: {sum(file.stat().st_size for file in args.out.iterdir()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()

"""Quantizes a Hugging Face folder with AWQ (AutoAWQ, "gemm" packing), on the CPU.

Writes 4-bit weights in groups of 64 input channels with zero points, as the library saves
them, in float16; the tokenizer's files are copied. Calibrates on the first rows of a .jsonl
file with {"text": ...} lines, joined and cut into blocks as the library does it.

    pip install -r ../crates/qoft-fixtures/python/requirements-awq.txt
    python quantize_awq.py --model models/SmolLM2-135M-Instruct-dense \\
        --data data/train.jsonl --out models/SmolLM2-135M-Instruct-awq4

The search for clipping takes most of the time; `--rows 16 --no-clip` is several times as fast.

AutoAWQ needs transformers 4, which does not know the `rope_parameters` that transformers 5
writes into config.json: the script gives it a copy with `rope_theta` and `rope_scaling`.
"""

import argparse
import json
import os
import pathlib
import shutil
import tempfile
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")


def older_config(config):
    """config.json as transformers 4 writes it."""
    config = dict(config)
    rope = dict(config.pop("rope_parameters", {}))
    if rope:
        config["rope_theta"] = rope.pop("rope_theta")
        config["rope_scaling"] = None if rope.get("rope_type", "default") == "default" else rope
    if "dtype" in config:
        config["torch_dtype"] = config.pop("dtype")
    return config


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--data", type=pathlib.Path, required=True, help='.jsonl with {"text": ...} rows')
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--group-size", type=int, default=64)
    parser.add_argument("--rows", type=int, default=32, help="rows to calibrate on")
    parser.add_argument("--max-length", type=int, default=128, help="tokens of a row, at most, and of a block")
    parser.add_argument("--no-clip", action="store_true", help="skip the search for clipping, most of the time")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    import torch
    from awq import AutoAWQForCausalLM
    from awq.quantize.quantizer import AwqQuantizer
    from tokenizers import Tokenizer

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    texts = [json.loads(line)["text"] for line in args.data.read_text(encoding="utf-8").splitlines() if line]
    rows = [tokenizer.encode(text).ids[: args.max_length] for text in texts[: args.rows]]

    class Quantizer(AwqQuantizer):
        """Keeps a copy of the weights while it tries scales: on a CPU the library's own is no copy."""

        def _compute_best_scale(self, x, w_mean, x_mean, module, *others):
            module.state_dict = lambda: {k: v.clone() for k, v in type(module).state_dict(module).items()}
            try:
                return super()._compute_best_scale(x, w_mean, x_mean, module, *others)
            finally:
                del module.state_dict

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for file in args.model.resolve().iterdir():
            if file.name != "config.json":
                (folder / file.name).symlink_to(file)
        config = older_config(json.loads((args.model / "config.json").read_text(encoding="utf-8")))
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        # The search is done in float32; the library rounds each layer to float16 before it packs it.
        model = AutoAWQForCausalLM.from_pretrained(str(folder), torch_dtype=torch.float32, device_map="cpu")
    began = time.perf_counter()
    model.quantize(
        None,
        quant_config={"zero_point": True, "q_group_size": args.group_size, "w_bit": 4, "version": "GEMM"},
        calib_data=rows,
        max_calib_samples=len(rows),
        max_calib_seq_len=args.max_length,
        apply_clip=not args.no_clip,
        quantizer_cls=Quantizer,
    )
    model.model.half()
    model.save_quantized(str(args.out))
    for file in args.model.iterdir():
        if file.name.startswith(("tokenizer", "special_tokens", "chat_template", "vocab", "merges")):
            shutil.copyfile(file, args.out / file.name)
    print(f"{sum(map(len, rows))} tokens, {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()

"""Quantizes a Hugging Face folder with GPTQ (GPTQModel), on the CPU.

Writes 4-bit weights in groups of 64 input channels that follow the activation order
(`desc_act`), symmetric, as the library saves them, with the tokenizer. Calibrates on the
first rows of a .jsonl file with {"text": ...} lines.

    pip install -r ../crates/qoft-fixtures/python/requirements-gptq.txt
    python quantize_gptq.py --model models/SmolLM2-135M-Instruct-dense \\
        --data data/train.jsonl --out models/SmolLM2-135M-Instruct-gptq4
"""

import argparse
import json
import os
import pathlib
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")  # its own choice of 1 on two cores is refused by its loader


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=pathlib.Path, required=True, help='.jsonl with {"text": ...} rows')
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--bits", type=int, default=4, choices=[2, 3, 4, 8])
    parser.add_argument("--group-size", type=int, default=64)
    parser.add_argument("--rows", type=int, default=64, help="rows to calibrate on")
    parser.add_argument("--max-length", type=int, default=256, help="tokens of a row, at most")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    import torch
    from gptqmodel import BACKEND, GPTQModel, QuantizeConfig
    from transformers import AutoTokenizer

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    texts = [json.loads(line)["text"] for line in args.data.read_text(encoding="utf-8").splitlines() if line]
    rows = [dict(tokenizer(text, truncation=True, max_length=args.max_length)) for text in texts[: args.rows]]

    config = QuantizeConfig(
        bits=args.bits, group_size=args.group_size, desc_act=True, act_group_aware=False, sym=True, device="cpu",
        offload_to_disk=False,
    )
    model = GPTQModel.load(args.model, config, dtype=torch.float16)
    began = time.perf_counter()
    model.quantize(rows, batch_size=1, backend=BACKEND.TORCH)
    model.save(str(args.out))
    tokenizer.save_pretrained(args.out)
    print(f"{sum(len(row['input_ids']) for row in rows)} tokens, {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()

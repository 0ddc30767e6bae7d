"""Quantizes a dense model folder to FP8 with Intel Neural Compressor, weights and inputs, on the CPU.

    pip install -r ../crates/qoft-fixtures/python/requirements-inc-fp8.txt
    python quantize_inc_fp8.py --model models/SmolLM2-135M-Instruct-dense \
        --data data/train.jsonl --out models/SmolLM2-135M-Instruct-inc-fp8

Calibrates on the first rows of a .jsonl file with {"text": ...} lines, and saves as the library does on a CPU:
QDQ mode, E4M3, one scale a tensor, a power of two, static for the inputs too, lm_head quantized; all other tensors
are bfloat16. The files of the tokenizer are copied. Prepare the dense folder with prepare_smollm2.py. A model of
135 million parameters takes a minute on two cores.
"""

import argparse
import json
import os
import pathlib
import shutil
import tempfile

import torch
from neural_compressor.torch.quantization import FP8Config, convert, prepare, save
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True, help="folder of the dense model")
    parser.add_argument("--data", type=pathlib.Path, required=True, help='.jsonl with {"text": ...} rows')
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--rows", type=int, default=32, help="rows to calibrate on")
    parser.add_argument("--max-length", type=int, default=128, help="tokens of a row, at most")
    parser.add_argument("--scale-method", default="maxabs_pow2")
    parser.add_argument("--keep-head", action="store_true", help="leave lm_head dense")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    args.model, args.data, args.out = (path.resolve() for path in (args.model, args.data, args.out))
    torch.set_num_threads(args.threads)

    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    texts = [json.loads(line)["text"] for line in args.data.read_text(encoding="utf-8").splitlines() if line]
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.bfloat16).eval()
    config = FP8Config(
        scale_method=args.scale_method,
        use_qdq=True,
        blocklist={"names": ["lm_head"] if args.keep_head else [], "types": []},
    )
    with tempfile.TemporaryDirectory() as work:
        os.chdir(work)  # the library writes its measurements to the current folder
        model = prepare(model, config)
        with torch.no_grad():
            for text in texts[: args.rows]:
                model(torch.tensor([tokenizer.encode(text).ids[: args.max_length]]))
        model = convert(model)
        save(model, str(args.out), format="huggingface")
        os.chdir(args.out)
    for pattern in ("tokenizer*", "special_tokens_map.json", "chat_template.jinja"):
        for file in args.model.glob(pattern):
            shutil.copyfile(file, args.out / file.name)
    for file in args.out.iterdir():
        file.chmod(0o644)
    print(f"{args.out}: {sum(file.stat().st_size for file in args.out.iterdir()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()

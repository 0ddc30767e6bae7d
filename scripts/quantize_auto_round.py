"""Quantizes a dense model folder with AutoRound, on the CPU, to the nearest codes.

    pip install -r ../crates/qoft-fixtures/python/requirements-auto-round.txt
    python quantize_auto_round.py --model models/SmolLM2-135M-Instruct-dense \
        --out models/SmolLM2-135M-Instruct-auto-round

AutoRound tunes the roundings by calibration data; with no steps of that, as here, it saves the nearest codes in the
same files. Prepare the dense folder with prepare_smollm2.py.
"""

import argparse
import pathlib
import shutil
import tempfile

import torch
from auto_round import AutoRound
from transformers import AutoModelForCausalLM, AutoTokenizer


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True, help="folder of the dense model")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="a folder that is not there")
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--group-size", type=int, default=64)
    parser.add_argument("--format", default="auto_round", help="the packing")
    parser.add_argument("--asymmetric", action="store_true", help="with zero points")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float16)
    rounding = AutoRound(
        model,
        AutoTokenizer.from_pretrained(args.model),
        bits=args.bits,
        group_size=args.group_size,
        sym=not args.asymmetric,
        iters=0,
        disable_opt_rtn=True,
        device_map="cpu",
    )
    with tempfile.TemporaryDirectory() as work:
        rounding.quantize_and_save(work, format=args.format)
        # The library makes a folder below the one that it is given.
        shutil.copytree(next(pathlib.Path(work).rglob("config.json")).parent, args.out)
    for file in args.out.iterdir():
        file.chmod(0o644)
    print(f"{args.out}: {sum(file.stat().st_size for file in args.out.iterdir()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()

"""Quantizes a dense model folder with EETQ (8-bit, one scale an output channel), without a GPU.

    pip install -r ../crates/qoft-fixtures/python/requirements-eetq.txt
    python quantize_eetq.py --model models/SmolLM2-135M-Instruct-dense \
        --out models/SmolLM2-135M-Instruct-eetq

The folder is written by transformers' own EETQ path in float16. Only its check for a GPU is replaced, and the
kernels from the hub by the same compiled function of the EETQ wheel, which the requirements file tells
how to install; a C compiler is needed. The layout of the weights is that of a GPU of compute capability 7.5 to 8.9
(--layout sm70: 7.0). lm_head stays dense. The files of the tokenizer are copied. Prepare the dense folder with
prepare_smollm2.py. A model of 135 million parameters takes seconds.
"""

import argparse
import pathlib
import shutil
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "crates/qoft-fixtures/python"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True, help="folder of the dense model")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--layout", choices=["sm80", "sm70"], default="sm80")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()

    import torch
    from eetq_library import layout, transformers_without_gpu
    from transformers import AutoModelForCausalLM, EetqConfig

    torch.set_num_threads(args.threads)
    transformers_without_gpu()
    layout(args.layout)
    model = AutoModelForCausalLM.from_pretrained(
        args.model, dtype=torch.float16, quantization_config=EetqConfig("int8"), device_map={"": "cpu"}
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

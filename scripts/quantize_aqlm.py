"""Quantizes a dense model folder into the format of AQLM (additive quantization), on the CPU.

    pip install -r requirements-aqlm.txt
    python quantize_aqlm.py --model models/SmolLM2-135M-Instruct-dense --calibration train.jsonl \
        --out models/SmolLM2-135M-Instruct-aqlm2x8 --codebooks 2 --nbits 8 --group-size 8

AQLM fits its codes to the outputs of the model for hours, on a GPU. This script only fits them to the weights: each
row is divided by its norm, and the groups of a matrix are coded by residual k-means, which then improves one
codebook after the other while the others stay. With --calibration (a JSON lines file with a "text" a line) the error
of a weight counts as much as the mean square of its input. The result has the size and the layout of an AQLM
checkpoint, but is far less accurate. All floats are stored in float16, and the files of the tokenizer are
copied. Prepare the dense folder with prepare_smollm2.py, and the texts with make_text_data.py. A model of 135 million
parameters takes three minutes on one core.
"""

import argparse
import json
import pathlib
import shutil
import time

import torch
from aqlm import QuantizedLinear
from aqlm.utils import pack_int_data
from transformers import AqlmConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.quantizers.quantizer_aqlm import replace_with_aqlm_linear

CHUNK = 1 << 12
SKIP = ["lm_head"]


@torch.no_grad()
def input_squares(model, linears, args):
    """{linear: mean square of each input, 1 on average}; all ones without calibration texts."""
    squares = {name: torch.zeros(linear.in_features) for name, linear in linears.items()}
    if args.calibration is None:
        return {name: torch.ones_like(value) for name, value in squares.items()}

    def count(name):
        def hook(_, inputs):
            squares[name] += (inputs[0] ** 2).flatten(0, 1).sum(0)

        return hook

    hooks = [linear.register_forward_pre_hook(count(name)) for name, linear in linears.items()]
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    for line in args.calibration.read_text().splitlines()[: args.rows]:
        ids = tokenizer(json.loads(line)["text"], truncation=True, max_length=256, return_tensors="pt").input_ids
        model(input_ids=ids)
    for hook in hooks:
        hook.remove()
    # A share of one hundredth for all inputs alike keeps rare ones from being lost.
    return {name: 0.99 * value / value.mean() + 0.01 for name, value in squares.items()}


def nearest(vectors, weights, table):
    """The index of the entry with the least weighted square distance, for each vector."""
    factors = torch.cat([table**2, -2 * table], dim=1).T.contiguous()
    parts = zip(vectors.split(CHUNK), weights.split(CHUNK))
    return torch.cat([(torch.cat([weight, weight * part], dim=1) @ factors).argmin(1) for part, weight in parts])


def means(vectors, weights, index, table):
    """The weighted mean of the vectors of each entry. Entries without vectors stay."""
    total = torch.zeros_like(table).index_add_(0, index, weights * vectors)
    weight = torch.zeros_like(table).index_add_(0, index, weights)
    return torch.where(weight > 0, total / weight, table)


def fit(vectors, weights, size, args, generator):
    """(tables, indices) of the codebooks whose entries sum up to the vectors."""
    tables, indices, residual = [], [], vectors.clone()
    for _ in range(args.codebooks):
        chosen = torch.randperm(len(residual), generator=generator)[: 64 * size]
        sample, sample_weights = residual[chosen], weights[chosen]
        table = sample[:size].clone()
        for _ in range(args.iterations):
            table = means(sample, sample_weights, nearest(sample, sample_weights, table), table)
        tables.append(table)
        indices.append(nearest(residual, weights, table))
        residual -= table[indices[-1]]
    for _ in range(args.rounds):
        for i in range(args.codebooks):
            residual += tables[i][indices[i]]
            tables[i] = means(residual, weights, indices[i], tables[i])
            indices[i] = nearest(residual, weights, tables[i])
            residual -= tables[i][indices[i]]
    return tables, indices


@torch.no_grad()
def quantize(linear, weight, squares, args, generator):
    """Fills a QuantizedLinear; returns the relative (weighted) error."""
    n, k = weight.shape
    scales = weight.norm(dim=1, keepdim=True) + 1e-9
    groups = (weight / scales).reshape(-1, args.group_size)
    weights = (squares * scales**2).reshape(-1, args.group_size)
    tables, indices = fit(groups, weights, 2**args.nbits, args, generator)
    codes = torch.stack(indices, dim=-1).view(n, k // args.group_size, args.codebooks)
    put = lambda value: torch.nn.Parameter(value, requires_grad=False)
    linear.codes = put(pack_int_data(codes, args.nbits))
    linear.codebooks = put(torch.stack(tables)[:, :, None].half())
    linear.scales = put(scales.view(n, 1, 1, 1).half())
    error = groups - sum(table[index] for table, index in zip(tables, indices))
    return ((weights * error**2).sum() / (weights * groups**2).sum()).sqrt().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True, help="folder of the dense model")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--calibration", type=pathlib.Path, help="JSON lines with texts")
    parser.add_argument("--rows", type=int, default=64, help="lines of --calibration that are used")
    parser.add_argument("--codebooks", type=int, default=2)
    parser.add_argument("--nbits", type=int, default=8, help="bits of a code")
    parser.add_argument("--group-size", type=int, default=8, help="inputs that share a code")
    parser.add_argument("--iterations", type=int, default=10, help="k-means steps for a new codebook")
    parser.add_argument("--rounds", type=int, default=4, help="further steps over all codebooks")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    dense = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    squares = input_squares(model, {name: module for name, module in dense.items() if name not in SKIP}, args)
    config = AqlmConfig(args.group_size, 1, args.codebooks, args.nbits, SKIP)
    replace_with_aqlm_linear(model, SKIP, config)
    generator, start = torch.Generator().manual_seed(0), time.time()
    for name, linear in model.named_modules():
        if isinstance(linear, QuantizedLinear):
            error = quantize(linear, dense[name].weight.data, squares[name], args, generator)
            linear.bias = dense.pop(name).bias
            print(f"{name:40} error {error:.3f}  {time.time() - start:5.0f} s", flush=True)
    model.half()
    model.config.quantization_config = config
    model.config.dtype = torch.float16
    model.save_pretrained(args.out)
    for pattern in ("tokenizer*", "special_tokens_map.json", "chat_template.jinja"):
        for file in args.model.glob(pattern):
            shutil.copyfile(file, args.out / file.name)
    for file in args.out.iterdir():
        file.chmod(0o644)
    print(f"{args.out}: {sum(file.stat().st_size for file in args.out.iterdir()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()

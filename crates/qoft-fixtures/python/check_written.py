"""Loads what `qoft quantize` or `qoft merge` wrote with the scheme's own library, and compares the loss.

    python check_written.py --qoft target/release/qoft --data rows.jsonl --json written.json FOLDER…

Rows have `input_ids` or `text`; without --rows the first eight count. All of these libraries load on a CPU, in
environments of their own:

  requirements.txt                     bitsandbytes, in transformers
  requirements-fp8.txt                 FP8, and MXFP4 of gpt-oss, in transformers
  requirements-compressed-tensors.txt  compressed-tensors, in transformers
  requirements-torchao.txt             torchao, in transformers
  requirements-hqq.txt                 HQQ, in transformers 4
  requirements-gptq.txt                GPTQ and AWQ, by GPTQModel
  requirements-inc-fp8.txt             INC FP8, by neural-compressor with inc_gaudi.py
  requirements-mlx.txt                 MLX, by mlx-lm

A folder whose library is not installed is left out, and what the file of --json has of other folders stays, so the
script runs once in each environment. A folder that its library does not compute with is told, and the script ends
with 1. All losses are in float32 but INC's, which the library computes in bfloat16.
"""

import argparse
import importlib.metadata
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")


def by_transformers(folder):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    method = method_of(folder)
    # Both round weights to the dtype of the file when they make them dense.
    own_dtype = method in ("compressed-tensors", "torchao")
    if method == "compressed-tensors":
        make_room_for_zero_points()
    dtype = "auto" if own_dtype else torch.float32
    model = AutoModelForCausalLM.from_pretrained(folder, config=config, device_map="cpu", dtype=dtype)
    if method == "compressed-tensors":
        decompress(model)
    if own_dtype:
        return dense(model, config)
    return by_hqq(model, folder) if method == "hqq" else model


def make_room_for_zero_points():
    """transformers loads into the tensors that compressed-tensors 0.20 makes of a model without weights. Among these
    packed zero points are as large as unpacked ones, so that no file with packed zero points can be loaded, the
    library's own included. Here they have the size that they have in files.
    """
    import torch
    from compressed_tensors.compressors.pack_quantized.base import PACK_ZP_STRATS, PackedQuantizationCompressor

    inner = PackedQuantizationCompressor.compress.__func__

    def compress(cls, state_dict, scheme):
        made = inner(cls, state_dict, scheme)
        zeros, weights = made.get("weight_zero_point"), scheme.weights
        if zeros is not None and zeros.device.type == "meta" and weights.strategy in PACK_ZP_STRATS:
            rows = math.ceil(zeros.shape[0] * weights.num_bits / 32)
            # As it is where somebody has mended the library, or this was called before.
            if zeros.dtype != torch.int32:
                made["weight_zero_point"] = torch.empty(rows, *zeros.shape[1:], dtype=torch.int32, device="meta")
        return made

    PackedQuantizationCompressor.compress = classmethod(compress)


def by_hqq(model, folder):
    """The model with HQQ's weights as the library dequantizes them from what the folder holds.

    transformers gives all statistics the dtype that was asked for, so those of half precision lose the roundings
    that the library makes with them. Here they have the dtype of the file.
    """
    import torch
    from hqq.core.quantize import HQQLinear
    from safetensors import safe_open

    dtypes = {}
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            scales = [name for name in tensors.keys() if name.endswith(".scale")]
            dtypes |= {name.removesuffix(".scale"): tensors.get_tensor(name).dtype for name in scales}
    for name, layer in list(model.named_modules()):
        if isinstance(layer, HQQLinear):
            layer.meta |= {key: layer.meta[key].to(dtypes[name]) for key in ("scale", "zero")}
            layer.meta["compute_dtype"] = layer.compute_dtype = dtypes[name]
            weight = layer.dequantize()
            assert weight.dtype == dtypes[name], name
            dense = torch.nn.Linear(*weight.shape[::-1], bias=False)
            dense.weight = torch.nn.Parameter(weight.float(), requires_grad=False)
            dense.bias = None if layer.bias is None else torch.nn.Parameter(layer.bias.float(), requires_grad=False)
            model.set_submodule(name, dense)
    return model


def decompress(model):
    from compressed_tensors.compressors.base import decompress_module

    for module in model.modules():
        if getattr(module, "quantization_scheme", None) is not None:
            decompress_module(module)


def dense(model, config):
    """A dense model in float32 with the weights of one whose weights can be made dense."""
    import torch
    from transformers import AutoModelForCausalLM

    del config.quantization_config
    made = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    tensors = {}
    for name in made.state_dict():
        path, _, key = name.rpartition(".")
        value = getattr(model.get_submodule(path), key).detach()
        is_plain = type(value) in (torch.Tensor, torch.nn.Parameter)
        tensors[name] = (value if is_plain else value.dequantize()).float()
    made.load_state_dict(tensors)
    return made


def by_gptqmodel(folder):
    import torch
    from gptqmodel import BACKEND, GPTQModel

    method = settings(folder)["quant_method"]
    backend = BACKEND.TORCH if method == "gptq" else BACKEND.TORCH_AWQ
    # It decodes in half precision only; all that follows is in single precision.
    return GPTQModel.load(str(folder), device="cpu", backend=backend, dtype=torch.float16).model.float()


def by_neural_compressor(folder):
    """The library's own model on a stand-in for a Gaudi, inputs quantized and all, in bfloat16."""
    import inc_gaudi

    inc_gaudi.install("gaudi3")
    from neural_compressor.torch.quantization import load

    return load(str(folder), format="huggingface", device="hpu")


def torch_loss(model, rows):
    import torch

    # In training mode bitsandbytes multiplies with the dequantized weights, not in int8 or bfloat16.
    model.train()
    total, tokens = 0.0, 0
    with torch.no_grad():
        for ids in rows:
            ids = torch.tensor([ids])
            logits = model(input_ids=ids).logits[0, :-1].float()
            total += torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
            tokens += ids.shape[1] - 1
    return total / tokens


def mlx_loss(folder, rows):
    import mlx.core as mx
    import mlx.nn as nn
    from mlx_lm.utils import dequantize_model, load_model

    model, _ = load_model(folder)
    # Weights are rounded to the dtype of their scales, which single precision would leave out.
    model = dequantize_model(model)
    model.set_dtype(mx.float32)
    total, tokens = 0.0, 0
    for ids in rows:
        logits = model(mx.array([ids]))[0, :-1].astype(mx.float32)
        total += nn.losses.cross_entropy(logits, mx.array(ids[1:]), reduction="sum").item()
        tokens += len(ids) - 1
    return total / tokens


def settings(folder):
    return json.loads((folder / "config.json").read_text()).get("quantization_config", {})


def method_of(folder):
    """The name of the method: INC's files have none, and MLX's have it in another key."""
    config = settings(folder)
    if "quant_method" in config:
        return config["quant_method"]
    return "inc" if "fp8_config" in config else "mlx" if "group_size" in config else None


# method: the packages that a loss is measured by
LIBRARIES = {
    "bitsandbytes": ["bitsandbytes", "transformers"],
    "fp8": ["transformers"],
    "mxfp4": ["transformers"],
    "compressed-tensors": ["compressed-tensors", "transformers"],
    "torchao": ["torchao", "transformers"],
    "hqq": ["hqq", "transformers"],
    "gptq": ["gptqmodel"],
    "awq": ["gptqmodel"],
    "inc": ["neural-compressor-pt"],
    "mlx": ["mlx-lm"],
}


def library_of(method):
    """The packages with their versions, or `None` where one is missing."""
    try:
        packages = [f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES[method]]
    except importlib.metadata.PackageNotFoundError:
        return None
    # HQQ is refused by transformers 5.
    if method == "hqq" and not importlib.metadata.version("transformers").startswith("4."):
        return None
    return ", ".join(packages)


def loss_there(folder, method, rows):
    if method == "mlx":
        return mlx_loss(folder, rows)
    load = {"gptq": by_gptqmodel, "awq": by_gptqmodel, "inc": by_neural_compressor}
    return torch_loss(load.get(method, by_transformers)(folder), rows)


def read_rows(path, count, folder):
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[:count]]
    if all("input_ids" in row for row in rows):
        return [row["input_ids"] for row in rows]
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return [tokenizer.encode(row["text"]).ids for row in rows]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--qoft", type=Path, default="target/release/qoft")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--json", type=Path, help="the file of the figures")
    parser.add_argument("folders", nargs="+", type=Path)
    args = parser.parse_args()
    qoft = args.qoft.resolve()
    results = json.loads(args.json.read_text()) if args.json and args.json.exists() else []
    failed = False
    for folder in args.folders:
        method = method_of(folder)
        library = method in LIBRARIES and library_of(method)
        if not library:
            print(f"{folder.name} is left out: nothing here loads {method}", file=sys.stderr)
            continue
        rows = read_rows(args.data, args.rows, folder)
        try:
            theirs = loss_there(folder, method, rows)
        except Exception as error:
            print(f"{folder.name} fails in {library}: {error!r}", file=sys.stderr)
            failed = True
            continue
        with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
            file.writelines(json.dumps({"input_ids": ids}) + "\n" for ids in rows)
            file.flush()
            command = [qoft, "eval", "--model", folder, "--data", file.name, "--json"]
            ours = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["loss"]
        assert math.isfinite(theirs), folder
        print(f"{folder.name}: {library} {theirs:.6f}, qoft {ours:.6f}, off {abs(theirs - ours):.1e}", flush=True)
        found = {"model": folder.name, "library": library, "theirs": theirs, "ours": ours}
        results = [result for result in results if result["model"] != folder.name] + [found]
        if args.json:
            args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    sys.exit(failed)


if __name__ == "__main__":
    main()

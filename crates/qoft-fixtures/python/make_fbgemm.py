"""data/schemes/fp8/fbgemm*: FP8 with a scale for each row (`quant_method: "fbgemm_fp8"`).

fbgemm         a whole model, quantized by transformers' own operation, which calls FBGEMM
fbgemm_layers  single layers: one with a bias, one with a row of zeros and extreme values

FBGEMM's row quantizer has a branch for CPUs, which is put where transformers looks for the GPU kernel.

source.safetensors: the dense weights of the single layers.
expected.safetensors: the codes times the scales in f32, which is what the GPU's product amounts to.
"""

from common import fresh, generator, randomize

import json
import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch
import transformers
from fbgemm_gpu.experimental.gemm.triton_gemm.fp8_gemm import quantize_fp8_row
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, FbgemmFp8Config, LlamaConfig
from transformers.integrations import fbgemm_fp8

from make_fp8 import BF16, F8, F32, LLAMA, by_hand

LAYERS = [("plain", 40, 96), ("extreme", 17, 32)]


def quantize(weight):
    """{suffix: tensor} by transformers' operation for one linear layer."""
    module = torch.nn.Module()
    module.add_module("layer", torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False))
    made = fbgemm_fp8.FbgemmFp8Quantize(None).convert({"layer.weight": [weight]}, model=module)
    return {key.removeprefix("layer."): value.data for key, value in made.items()}


def finish(folder, tensors, values):
    for key, value in FbgemmFp8Config().to_dict().items():
        values.setdefault("quantization_config", {})[key] = value
    (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    expected = {}
    for name, weight in tensors.items():
        if weight.dtype == F8:
            scale = tensors[name + "_scale"]
            expected[name] = weight.to(F32) * scale
            assert (by_hand(weight, scale, None) == expected[name].numpy()).all(), name
    save_file(expected, folder / "expected.safetensors")
    for file in folder.iterdir():
        file.chmod(0o644)


def make_model():
    folder = fresh("schemes", "fp8", "fbgemm")
    sizes = dict(hidden_size=64, intermediate_size=96, num_key_value_heads=2, num_hidden_layers=2)
    llama = AutoModelForCausalLM.from_config(LlamaConfig(**LLAMA, **sizes), dtype=F32)
    randomize(llama, 430)
    with tempfile.TemporaryDirectory() as source:
        llama.to(BF16).save_pretrained(source)
        tensors = load_file(Path(source) / "model.safetensors")
        values = json.loads((Path(source) / "config.json").read_text())
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        made = quantize(tensors.pop(name))
        tensors |= {name.removesuffix("weight") + key: value.contiguous() for key, value in made.items()}
    finish(folder, tensors, values)


def make_layers():
    gen = generator(431)
    tensors, sources = {}, {}
    for layer, rows, columns in LAYERS:
        weight = torch.randn(rows, columns, generator=gen) * 0.05
        if layer == "extreme":
            weight[2], weight[3, 5], weight[4] = 0.0, 3e4, weight[4] * 1e-20
        else:
            tensors["plain.bias"] = torch.randn(rows, generator=gen)
        sources[f"{layer}.weight"] = weight.to(BF16)
        for key, value in quantize(sources[f"{layer}.weight"]).items():
            tensors[f"{layer}.{key}"] = value.contiguous()
    folder = fresh("schemes", "fp8", "fbgemm_layers")
    save_file(sources, folder / "source.safetensors")
    finish(folder, tensors, {})


def main():
    transformers.utils.logging.disable_progress_bar()
    fbgemm_fp8.quantize_fp8_per_row = lambda value, scale_ub=None: quantize_fp8_row(value, scale_ub)
    make_model()
    make_layers()


if __name__ == "__main__":
    main()

"""data/schemes/compressed-tensors: checkpoints as the library compressed-tensors writes them.

w4a16, fp8_model   whole models: integers in groups of 32, and 8-bit floats by channel
mixed              three groups, chosen by a name, an expression and the class; an ignored layer, and scales of a
                   cache beside an attention
others             three layers each: `plain` with a bias, `odd` of odd sizes where the scheme has them, `extreme`
                   with a row of zeros and large weights
  int*             pack-quantized: width, strategy, asym(metric), dtype of the scales
  a8_*             int-quantized and float-quantized: with dynamic quantization of the inputs
  fp8_*            naive-quantized
  nvfp4, mxfp4, mxfp8
  old*             words as release 0.17 packs odd widths, here by hand
  g_idx            groups in the order of activations as release 0.18 stores them, here by hand: the columns of
                   int4_group_asym in another order

source.safetensors: the dense weights. expected.safetensors: the weights that the library decompresses, in f32.
"""

from common import DATA, fresh, generator, randomize, write_json

import json
import math
import tempfile
from pathlib import Path

import torch
from compressed_tensors.compressors.base import BaseCompressor
from compressed_tensors.compressors.format import infer_module_format
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.lifecycle.forward import quantize
from compressed_tensors.quantization.utils import calculate_qparams
from compressed_tensors.quantization.utils.helpers import generate_gparam
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig

VERSION = "0.20.0"
DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
TOKENS = dict(num_bits=8, type="int", strategy="token", dynamic=True, symmetric=True)


def args(bits, strategy, kind="int", **more):
    sizes = {"group": dict(group_size=32), "block": dict(block_structure=[32, 64])}.get(strategy, {})
    return dict(num_bits=bits, type=kind, strategy=strategy, **(sizes | more))


FP4 = dict(num_bits=4, type="float")
E8M0, E4M3 = "torch.uint8", "torch.float8_e4m3fn"
NVFP4 = FP4 | dict(strategy="tensor_group", group_size=16, scale_dtype=E4M3, zp_dtype=E4M3)
MXFP4 = FP4 | dict(strategy="group", group_size=32, scale_dtype=E8M0, zp_dtype=E8M0)
MXFP8 = MXFP4 | dict(num_bits=8)
# case: weights, input_activations, dtype
CASES = {
    "int4_group": (args(4, "group"), None, "bf16"),
    "int4_group_asym": (args(4, "group", symmetric=False), None, "f16"),
    "int4_channel": (args(4, "channel"), None, "f32"),
    "int4_channel_asym": (args(4, "channel", symmetric=False), None, "bf16"),
    "int4_tensor_asym": (args(4, "tensor", symmetric=False), None, "f16"),
    "int8_channel": (args(8, "channel"), None, "bf16"),
    "int8_group_asym": (args(8, "group", symmetric=False), None, "f32"),
    "int2_group_asym": (args(2, "group", symmetric=False), None, "bf16"),
    "int3_channel_asym": (args(3, "channel", symmetric=False), None, "f16"),
    "int5_group_asym": (args(5, "group", symmetric=False), None, "f16"),
    "int6_channel": (args(6, "channel"), None, "f32"),
    "int7_tensor": (args(7, "tensor"), None, "bf16"),
    "a8_int8_channel": (args(8, "channel"), TOKENS, "bf16"),
    "a8_int8_tensor_asym": (args(8, "tensor", symmetric=False), TOKENS, "f32"),
    "a8_int4_group_asym": (args(4, "group", symmetric=False), TOKENS, "f16"),
    "a8_fp8_channel": (args(8, "channel", "float"), TOKENS | dict(type="float"), "bf16"),
    "fp8_tensor": (args(8, "tensor", "float"), None, "f16"),
    "fp8_block": (args(8, "block", "float"), None, "bf16"),
    "nvfp4": (NVFP4, None, "bf16"),
    "mxfp4": (MXFP4, None, "bf16"),
    "mxfp8": (MXFP8, None, "f32"),
}


def blocks(weight, size):
    """The weight as [.., .., rows, columns of a block]; blocks at the edges are filled up with zeros."""
    rows, columns = size
    n, k = weight.shape
    full = torch.nn.functional.pad(weight, (0, -k % columns, 0, -n % rows))
    return full.reshape(full.shape[0] // rows, rows, full.shape[1] // columns, columns).transpose(1, 2)


def scales(weight, weights):
    """weight_scale and its companions, as the library's observers find them."""
    n, k = weight.shape
    strategy = weights.strategy
    size = {"tensor": (n, k), "channel": (1, k), "block": weights.block_structure}.get(
        strategy, (1, weights.group_size)
    )
    parts = blocks(weight, size)
    low, high = parts.amin((2, 3)), parts.amax((2, 3))
    if strategy == "tensor":
        low, high = low.reshape(1), high.reshape(1)
    made, gparam = {}, None
    if strategy == "tensor_group":
        gparam = generate_gparam(weight.amin().reshape(1), weight.amax().reshape(1))
        made["weight_global_scale"] = gparam
    made["weight_scale"], made["weight_zero_point"] = calculate_qparams(low, high, weights, gparam)
    return made


def scheme_of(weights, activations, targets=("Linear",)):
    inputs = QuantizationArgs(**activations) if activations else None
    scheme = QuantizationScheme(targets=list(targets), weights=QuantizationArgs(**weights), input_activations=inputs)
    scheme.format = infer_module_format(torch.nn.Linear, scheme)
    return scheme


def compress(weight, scheme):
    """({suffix: tensor}, the weight that comes back)."""
    compressor = BaseCompressor.get_value_from_registry(scheme.format.value)
    stored = compressor.compress({"weight": weight} | scales(weight, scheme.weights), scheme)
    again = compressor.decompress(dict(stored), scheme)["weight"]
    return {key: value.contiguous() for key, value in stored.items()}, again.to(torch.float32)


def config_of(schemes, ignore=(), **more):
    formats = {scheme.format.value for scheme in schemes}
    groups = {}
    for number, scheme in enumerate(schemes):
        values = json.loads(scheme.model_dump_json())
        values["format"] = scheme.format.value
        groups[f"group_{number}"] = values
    return {
        "quant_method": "compressed-tensors",
        "version": VERSION,
        "format": formats.pop() if len(formats) == 1 else "mixed-precision",
        "config_groups": groups,
        "ignore": list(ignore),
        "kv_cache_scheme": None,
        "quantization_status": "compressed",
        "global_compression_ratio": None,
        "sparsity_config": {},
        "transform_config": {},
    } | more


def write(case, tensors, expected, values, sources=None):
    folder = fresh("schemes", "compressed-tensors", case)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    save_file(expected, folder / "expected.safetensors")
    if sources:
        save_file(sources, folder / "source.safetensors")
    (folder / "config.json").write_text(json.dumps(values, indent=1) + "\n")
    for file in folder.iterdir():
        file.chmod(0o644)


def layer(name, strategy, dtype, gen):
    rows, columns = {"plain": (32, 128), "odd": (23, 96), "extreme": (40, 64)}[name]
    if name == "odd" and strategy in ("tensor", "channel", "block"):
        columns = 75
    weight = torch.randn(rows, columns, generator=gen) * 0.05
    if name == "extreme":
        weight[3], weight[5, 7], weight[-1, -1], weight[8] = 0.0, 20.0, -7.0, weight[8] * 1e-3
    return weight.to(dtype)


def make_layers(case, seed):
    weights, activations, dtype = CASES[case]
    scheme = scheme_of(weights, activations)
    gen = generator(seed)
    tensors, expected, sources = {}, {}, {}
    for name in ("plain", "odd", "extreme"):
        weight = layer(name, weights["strategy"], DTYPES[dtype], gen)
        stored, again = compress(weight, scheme)
        tensors |= {f"{name}.{key}": value for key, value in stored.items()}
        expected[f"{name}.weight"], sources[f"{name}.weight"] = again, weight
    tensors["plain.bias"] = torch.randn(32, generator=gen).to(DTYPES[dtype])
    write(case, tensors, expected, {"quantization_config": config_of([scheme])}, sources)
    return scheme, tensors, expected, sources


def padded(codes, bits):
    """Words that each hold floor(32 / bits) unsigned codes of a row."""
    each = 32 // bits
    codes = torch.nn.functional.pad(codes, (0, -codes.shape[1] % each)).reshape(codes.shape[0], -1, each)
    words = (codes.to(torch.int64) << (torch.arange(each) * bits)).sum(2)
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


def make_old(case, bits, made):
    """The layers of another case with padded words."""
    scheme, tensors, expected, sources = made
    tensors = dict(tensors)
    for name in sources:
        module = name.removesuffix("weight")
        parts = scales(sources[name], scheme.weights)
        codes = quantize(sources[name], parts["weight_scale"], parts["weight_zero_point"], scheme.weights, torch.int8)
        tensors[module + "weight_packed"] = padded(codes.to(torch.int64) + 2 ** (bits - 1), bits)
        zeros = parts["weight_zero_point"].to(torch.int64) + 2 ** (bits - 1)
        tensors[module + "weight_zero_point"] = padded(zeros.T, bits).T.contiguous()
    config = config_of([scheme]) | {"version": "0.12.2"}
    for group in config["config_groups"].values():
        del group["format"]
    write(case, tensors, expected, {"quantization_config": config})


def make_index(made):
    scheme, tensors, expected, sources = made
    tensors, expected = dict(tensors), dict(expected)
    for number, name in enumerate(sources):
        module, k = name.removesuffix("weight"), sources[name].shape[1]
        order = torch.randperm(k, generator=generator(470 + number))
        parts = scales(sources[name], scheme.weights)
        codes = quantize(sources[name], parts["weight_scale"], parts["weight_zero_point"], scheme.weights, torch.int8)
        tensors[module + "weight_packed"] = padded((codes.to(torch.int64) + 8)[:, order], 4)
        tensors[module + "weight_g_idx"] = (order // 32).to(torch.int32)
        expected[name] = expected[name][:, order].contiguous()
    config = config_of([scheme]) | {"version": "0.18.0"}
    config["config_groups"]["group_0"]["weights"]["actorder"] = "group"
    write("g_idx", tensors, expected, {"quantization_config": config})


def dense_model(seed):
    sizes = dict(vocab_size=96, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4)
    ids = dict(num_key_value_heads=2, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**sizes, **ids), dtype=torch.float32)
    randomize(model, seed)
    with tempfile.TemporaryDirectory() as folder:
        model.to(torch.bfloat16).save_pretrained(folder)
        values = json.loads((Path(folder) / "config.json").read_text())
        return load_file(Path(folder) / "model.safetensors"), values


def make_model(case, seed, schemes, choose, ignore, **more):
    """`choose` gives the number of a layer's scheme, or None."""
    tensors, values = dense_model(seed)
    expected = {}
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        number = choose(name.removesuffix(".weight"))
        if number is not None:
            stored, expected[name] = compress(tensors.pop(name), schemes[number])
            tensors |= {name.removesuffix("weight") + key: value for key, value in stored.items()}
    if "kv_cache_scheme" in more:
        for key in ("k_scale", "v_scale"):
            tensors[f"model.layers.0.self_attn.{key}"] = torch.full((1,), 0.02, dtype=torch.bfloat16)
    values["quantization_config"] = config_of(schemes, ignore, **more)
    write(case, tensors, expected, values)


def main():
    made = {case: make_layers(case, 440 + number) for number, case in enumerate(CASES)}
    make_old("old3", 3, made["int3_channel_asym"])
    make_old("old5", 5, made["int5_group_asym"])
    make_index(made["int4_group_asym"])
    make_model("w4a16", 480, [scheme_of(args(4, "group"), None)], lambda name: 0, ["lm_head"])
    fp8 = scheme_of(args(8, "channel", "float"), TOKENS | dict(type="float"))
    make_model("fp8_model", 481, [fp8], lambda name: 0, ["lm_head"])
    last = "model.layers.1.mlp.down_proj"
    schemes = [
        scheme_of(args(4, "group", symmetric=False), None),
        scheme_of(args(8, "channel", "float"), None, ["re:.*self_attn.*"]),
        scheme_of(NVFP4, None, [last]),
    ]
    first = "model.layers.0.mlp.gate_proj"
    choose = lambda name: None if name == first else 2 if name == last else 1 if "self_attn" in name else 0
    cache = dict(num_bits=8, type="float", strategy="tensor", dynamic=False, symmetric=True)
    make_model("mixed", 482, schemes, choose, ["lm_head", first], kv_cache_scheme=cache)


if __name__ == "__main__":
    main()

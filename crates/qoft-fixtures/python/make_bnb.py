"""data/bnb: single linear layers as bitsandbytes stores them, and what they stand for.

Each folder holds
  config.json           empty: there is no model
  model.safetensors     the layers, with the tensor names of a transformers checkpoint
  source.safetensors    the dense weights they were quantized from
  expected.safetensors  the dequantized weights `<layer>.weight` as f32; for int8 also inputs and outputs

variants.json says how each folder was made; means.json has means that torch computes.

The 4-bit reference is bitsandbytes' pure torch dequantization in the dtype of the quantized weight.
Its compiled CPU kernel reads the wrong scale where a block straddles two rows, so it is only used
as a cross-check on layers where no block does.
"""

from common import fresh, generator, write_json

import bitsandbytes as bnb
import torch
from bitsandbytes import functional as F
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute
from bitsandbytes.backends.utils import _get_4bit_code
from safetensors.torch import save_file

F32, F16, BF16, U8 = torch.float32, torch.float16, torch.bfloat16, torch.uint8

# Shapes [N, K] by name. With blocks of 64: no block straddles, blocks straddle, the last is short.
SHAPES = {
    "aligned": (12, 256),
    "straddle": (10, 96),
    "short": (7, 100),
    "odd": (5, 67),
    "many": (129, 128),  # 258 blocks of 64: two rows of nested statistics
    "many32": (66, 126),  # 260 blocks of 32, straddling, the last one short
    "wide": (2, 4096),
    "tall": (5, 1000),
    "long": (34, 130),  # 35 blocks of 128, the last one short
}

# variant: quantization type, double quantization, block size, weight dtype, storage dtype, layers
VARIANTS = {
    "nf4_b64_f32": ("nf4", False, 64, F32, U8, ["aligned", "straddle", "short", "odd"]),
    "nf4_b64_f16": ("nf4", False, 64, F16, U8, ["aligned", "short"]),
    "nf4_b64_bf16": ("nf4", False, 64, BF16, U8, ["aligned", "odd"]),
    "nf4_b64_dq_f32": ("nf4", True, 64, F32, U8, ["aligned", "straddle", "odd", "many"]),
    "nf4_b64_dq_bf16_storage_bf16": ("nf4", True, 64, BF16, BF16, ["aligned", "straddle", "short"]),
    "nf4_b64_dq_f16_storage_f16": ("nf4", True, 64, F16, F16, ["aligned", "straddle"]),
    "nf4_b64_f32_storage_f32": ("nf4", False, 64, F32, F32, ["aligned", "straddle"]),
    "nf4_b32_dq_f32": ("nf4", True, 32, F32, U8, ["aligned", "many32"]),
    "nf4_b128_f16_storage_bf16": ("nf4", False, 128, F16, BF16, ["aligned", "straddle"]),
    "nf4_b4096_dq_bf16": ("nf4", True, 4096, BF16, U8, ["wide", "tall"]),
    "fp4_b64_f32": ("fp4", False, 64, F32, U8, ["aligned", "straddle", "short", "odd"]),
    "fp4_b64_bf16": ("fp4", False, 64, BF16, U8, ["aligned", "short"]),
    "fp4_b64_dq_f16": ("fp4", True, 64, F16, U8, ["aligned", "odd"]),
    "fp4_b32_f16_storage_f32": ("fp4", False, 32, F16, F32, ["aligned", "straddle"]),
    "fp4_b128_dq_f32_storage_bf16": ("fp4", True, 128, F32, BF16, ["aligned", "long"]),
    "fp4_b4096_f32_storage_f16": ("fp4", False, 4096, F32, F16, ["wide", "tall"]),
}


def dense_weight(shape, seed, dtype):
    """Random weights with a few large values, a run of exact zeros and some tiny values."""
    gen = generator(seed)
    weight = torch.randn(shape, generator=gen) * 0.05
    weight *= 0.5 + torch.rand((shape[0], 1), generator=gen)
    flat = weight.view(-1)
    flat[torch.randint(flat.numel(), (4,), generator=gen)] *= 12.0
    flat[128:256] = 0.0
    flat[70:80] = torch.tensor([1e-6, -1e-6, 1e-5, -1e-5, 1e-4, -1e-4, 0.0, -0.0, 3e-5, -3e-5])
    return weight.to(dtype)


def reference_4bit(packed, state):
    """The dequantized weight by the pure torch backend, in the dtype of the quantized weight."""
    absmax = state.absmax
    if state.nested:
        absmax = F.dequantize_blockwise(state.absmax, state.state2)
        absmax = absmax + state.offset
    code = _get_4bit_code(state.quant_type, packed.device)
    assert torch.equal(code, state.code)
    flat = packed.view(U8).reshape(-1)
    weight = _dequantize_4bit_compute(flat, absmax, code, state.blocksize, state.shape, state.dtype)
    if state.shape[1] % state.blocksize == 0:
        assert torch.equal(weight, F.dequantize_4bit(packed, state))
    return weight


def make_4bit(variant, seed):
    quant_type, double, blocksize, dtype, storage, layers = VARIANTS[variant]
    tensors, source, expected = {}, {}, {}
    for number, layer in enumerate(layers):
        n, k = SHAPES[layer]
        weight = dense_weight((n, k), seed + number, dtype)
        bias = layer == "aligned"
        linear = bnb.nn.Linear4bit(
            k, n, bias=bias, compress_statistics=double, quant_type=quant_type, quant_storage=storage
        )
        linear.weight = bnb.nn.Params4bit(
            weight.clone(),
            requires_grad=False,
            compress_statistics=double,
            blocksize=blocksize,
            quant_type=quant_type,
            quant_storage=storage,
            module=linear,
        )
        if bias:
            linear.bias = torch.nn.Parameter(torch.randn(n, generator=generator(seed)).to(dtype))
        linear = linear.to("cpu")
        for key, value in linear.state_dict(prefix=layer + ".").items():
            tensors[key] = value.contiguous()
        source[layer + ".weight"] = weight
        expected[layer + ".weight"] = reference_4bit(linear.weight.data, linear.weight.quant_state).to(F32)
    write(variant, tensors, source, expected)
    return {
        "quant_type": quant_type,
        "double_quant": double,
        "blocksize": blocksize,
        "dtype": str(dtype).removeprefix("torch."),
        "storage": str(storage).removeprefix("torch."),
        "layers": {layer: list(SHAPES[layer]) for layer in layers},
    }


def make_int8(variant, dtype, bias, seed):
    """One int8 layer: one weight row with an outlier and one of zeros."""
    n, k = 24, 80
    weight = torch.randn((n, k), generator=generator(seed)) * 0.05
    weight[3, 17] = 9.5
    weight[5] = 0.0
    weight = weight.to(dtype)
    linear = bnb.nn.Linear8bitLt(k, n, bias=bias, has_fp16_weights=False, threshold=6.0)
    linear.weight = bnb.nn.Int8Params(weight.clone(), requires_grad=False, has_fp16_weights=False)
    if bias:
        linear.bias = torch.nn.Parameter(torch.randn(n, generator=generator(seed + 1)).to(dtype))
    linear = linear.to("cpu")
    tensors = {key: value.clone().contiguous() for key, value in linear.state_dict(prefix="proj.").items()}
    q, scb = tensors["proj.weight"], tensors["proj.SCB"]
    dequantized = F.int8_vectorwise_dequant(q, scb)
    assert torch.equal(dequantized, (q.to(F32) * scb.view(-1, 1)) * 7.874015718698502e-3)

    gen = generator(seed + 2)
    mixed = torch.randn((6, k), generator=gen)
    mixed[1, 7], mixed[1, 40], mixed[4, 7], mixed[5, 63] = 11.0, -6.5, 30.25, 6.0
    one = torch.randn((1, k), generator=gen)
    one[0, 20] = -8.0
    clean = torch.randn((3, k), generator=gen).clamp(-4, 4)
    zero_row = clean.clone()
    zero_row[1] = 0.0
    inputs = {"mixed": mixed, "one": one, "clean": clean, "zero_row": zero_row}

    expected = {"proj.weight": dequantized}
    with torch.no_grad():
        for name, value in inputs.items():
            expected[f"{name}.input"] = value
            expected[f"{name}.eval_output"] = linear.eval()(value.clone())
            expected[f"{name}.train_output"] = linear.train()(value.clone())
    write(variant, tensors, {"proj.weight": weight}, expected)
    return {
        "quant_type": "int8",
        "threshold": 6.0,
        "dtype": str(dtype).removeprefix("torch."),
        "layers": {"proj": [n, k]},
        "inputs": list(inputs),
    }


def means():
    """Pairs of a count and the bits of the mean of so many numbers, by torch."""
    pairs = []
    for count in (1, 2, 5, 6, 7, 8, 9, 31, 33, 64, 100, 129, 258, 1000, 2049, 4096, 5000, 12345, 20000, 32768):
        number = (torch.arange(count) * 7919 % 10007).to(F32) / 10007
        mean = (number * number * number).mean()
        pairs.append([count, mean.view(torch.int32).item()])
    return pairs


def write(variant, tensors, source, expected):
    folder = fresh("bnb", variant)
    write_json(folder / "config.json", {})
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    save_file(source, folder / "source.safetensors")
    save_file({k: v.contiguous() for k, v in expected.items()}, folder / "expected.safetensors")


def main():
    root = fresh("bnb")
    variants = {}
    for number, variant in enumerate(VARIANTS):
        variants[variant] = make_4bit(variant, 1000 + 10 * number)
    variants["int8_f16"] = make_int8("int8_f16", F16, True, 2000)
    variants["int8_bf16"] = make_int8("int8_bf16", BF16, False, 2010)
    variants["int8_f32"] = make_int8("int8_f32", F32, True, 2020)
    write_json(root / "variants.json", variants)
    write_json(root / "means.json", means())


if __name__ == "__main__":
    main()

"""data/schemes/fp8: block-wise FP8 (`quant_method: "fp8"`) as transformers' FineGrainedFP8 writes it.

block32, block128  whole models, quantized and saved by transformers; the check for a GPU is replaced.
                   k and v of block32 have 32 rows, one block
others             single layers by the quantizer of transformers; a case may have
  ...plain         a layer with a bias, one block of zeros, and extreme values
  ...edge          sizes that are no multiples of the block. transformers would leave it dense, DeepSeek's own
                   tool pads with zeros: the scales then cover partial blocks
  ...dense         a layer that transformers left dense for this reason, in bf16 and not in
                   expected.safetensors. It still saves scales, out of uninitialized memory: 1e30 here
block32x64         blocks that are not square: 32 rows, 64 columns
block64_bf16       scales rounded to bf16, which transformers reads and others write
block64_ue8m0      power-of-two scales in the dtype F8_E8M0
block1x32_bytes    rows in blocks of 32, exponents as plain bytes under the name `scale`: both are converted by
                   transformers while it loads
rows               `weight_scale` [N, 1] and [N], which other readers know
tensor             one scale a tensor, as transformers quantizes ([1, 1])
tensor_static      one scale a tensor as a scalar, and the static scale of the inputs
tensor_renamed     the same under AutoFP8's names `weight_scale` [1] and `input_scale`; no block size in the configuration

source.safetensors: the dense weights of single layers that have whole blocks.
expected.safetensors: the weights by the dequantizer of transformers, in f32. `activation_scale` takes no
part in it.
"""

from common import fresh, generator, randomize

import json
import tempfile
from types import SimpleNamespace

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, FineGrainedFP8Config, LlamaConfig
from transformers.integrations.finegrained_fp8 import Fp8Dequantize, Fp8Quantize, _dequantize_fp8_weight

BF16, F32, F8, E8M0 = torch.bfloat16, torch.float32, torch.float8_e4m3fn, torch.float8_e8m0fnu
LLAMA = dict(
    vocab_size=96,
    num_attention_heads=4,
    max_position_embeddings=128,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
)

# case: arguments of the configuration, then (layer, rows, columns)
LAYERS = {
    "block128_edge": (dict(), [("edge", 192, 320), ("plain", 128, 128), ("dense", 32, 192)]),
    "block64": (dict(weight_block_size=(64, 64)), [("plain", 192, 128), ("edge", 100, 72), ("dense", 64, 96)]),
    "block32x64": (dict(weight_block_size=(32, 64)), [("plain", 64, 192), ("edge", 40, 80)]),
    "block64_bf16": (dict(weight_block_size=(64, 64)), [("plain", 64, 192), ("edge", 72, 100)]),
    "block64_ue8m0": (
        dict(weight_block_size=(64, 64), scale_fmt="ue8m0"),
        [("plain", 128, 192), ("edge", 72, 100)],
    ),
    "tensor": (dict(weight_block_size=None), [("plain", 48, 80), ("zero", 16, 32)]),
    "tensor_static": (
        dict(weight_block_size=None, activation_scheme="static"),
        [("plain", 48, 80), ("other", 32, 48)],
    ),
    "block1x32_bytes": (
        dict(weight_block_size=(1, 32), scale_fmt="ue8m0"),
        [("plain", 24, 96), ("other", 40, 64)],
    ),
    "rows": (dict(weight_block_size=None), [("plain", 48, 80), ("other", 33, 64)]),
    "tensor_renamed": (
        dict(weight_block_size=None, activation_scheme="static"),
        [("plain", 40, 96), ("other", 32, 48)],
    ),
}
SCALES = ("weight_scale_inv", "weight_scale", "scale")


def by_hand(weight, scale, block):
    """The dense weight from the bytes of the file, without the float8 types of torch."""
    code = weight.view(torch.uint8).numpy().astype(np.int64)
    exponent, mantissa = code >> 3 & 15, code & 7
    value = np.where(exponent == 0, mantissa * 2.0**-9, (8 + mantissa) * 2.0 ** (exponent - 10.0))
    value = np.where(code >= 128, -value, value).astype(np.float32)
    if scale.dtype in (E8M0, torch.uint8):
        scale = 2.0 ** (scale.view(torch.uint8).numpy().astype(np.float32) - 127)
    else:
        scale = scale.to(F32).numpy().reshape(scale.shape if scale.ndim == 2 else (-1, 1))
    rows, columns = block or (-(-weight.shape[0] // scale.shape[0]), weight.shape[1])
    full = scale.astype(np.float32).repeat(rows, 0).repeat(columns, 1)
    return value * full[: weight.shape[0], : weight.shape[1]]


def finish(folder, block):
    """Writes expected.safetensors from the saved file."""
    stored = load_file(folder / "model.safetensors")
    expected = {}
    for name, weight in stored.items():
        if weight.dtype != F8:
            continue
        module = name.removesuffix("weight")
        scale = next(stored[module + key] for key in SCALES if module + key in stored)
        # As the loader of transformers does where it finds plain bytes.
        typed = scale.view(E8M0) if scale.dtype == torch.uint8 else scale
        column = typed.reshape(-1, 1) if typed.ndim == 1 else typed
        dense = _dequantize_fp8_weight(weight, column, block, F32)
        # What transformers does when it loads a checkpoint densely; it needs whole blocks.
        if block is None or not any(size % b for size, b in zip(weight.shape, block)):
            again = Fp8Dequantize(None)._dequantize_one(weight, column, F32)
            assert torch.equal(again, dense), name
        assert np.array_equal(by_hand(weight, scale, block), dense.numpy()), name
        expected[name] = dense
    save_file(expected, folder / "expected.safetensors")
    for file in folder.iterdir():
        file.chmod(0o644)


def make_model(case, block, layers, seed, **changes):
    folder = fresh("schemes", "fp8", case)
    llama = AutoModelForCausalLM.from_config(LlamaConfig(**LLAMA, **changes, num_hidden_layers=layers), dtype=F32)
    randomize(llama, seed)
    config = FineGrainedFP8Config(weight_block_size=block)
    with tempfile.TemporaryDirectory() as source:
        llama.to(BF16).save_pretrained(source)
        model = AutoModelForCausalLM.from_pretrained(
            source, dtype=BF16, quantization_config=config, device_map={"": "cpu"}
        )
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    again = AutoModelForCausalLM.from_pretrained(folder, device_map={"": "cpu"}).state_dict()
    stored = load_file(folder / "model.safetensors")
    assert stored.keys() == again.keys()
    assert all(torch.equal(value.float(), again[key].float()) for key, value in stored.items())
    finish(folder, block)


def dense_layer(layer, rows, columns, block, gen):
    weight = torch.randn(rows, columns, generator=gen) * 0.05
    if layer == "zero":
        return torch.zeros(rows, columns, dtype=BF16)
    weight[3, 5], weight[-1, -1], weight[7] = 30.0, -7.0, 1e-4 * weight[7]
    if layer == "plain" and block:
        weight[-block[0] :, -block[1] :] = 0.0
    return weight.to(BF16)


def make_layers(case, seed):
    options, layers = LAYERS[case]
    config = FineGrainedFP8Config(**options)
    block = config.weight_block_size
    quantizer = Fp8Quantize(SimpleNamespace(quantization_config=config))
    gen = generator(seed)
    tensors, sources = {}, {}
    for layer, rows, columns in layers:
        weight = dense_layer(layer, rows, columns, block, gen)
        if layer not in ("edge", "dense"):
            sources[f"{layer}.weight"] = weight
        if layer == "edge":
            weight = torch.nn.functional.pad(weight, (0, -columns % block[1], 0, -rows % block[0]))
        made = quantizer.convert({f"{layer}.weight": weight})
        if case == "rows":
            each = [quantizer.convert({f"{layer}.weight": row[None]}) for row in weight]
            made = {key: torch.cat([one[key] for one in each]) for key in made}
        made[f"{layer}.weight"] = made[f"{layer}.weight"][:rows, :columns]
        assert (len(made) == 1) == (layer == "dense")
        if layer == "dense":
            made["dense.weight_scale_inv"] = torch.full([-(-size // b) for size, b in zip(weight.shape, block)], 1e30)
        if layer == "plain":
            made["plain.bias"] = torch.randn(rows, generator=gen).to(BF16)
        if case == "block64_bf16":
            made[f"{layer}.weight_scale_inv"] = made[f"{layer}.weight_scale_inv"].to(BF16)
        if case == "tensor_static":
            made[f"{layer}.weight_scale_inv"] = made[f"{layer}.weight_scale_inv"].reshape(())
            made[f"{layer}.activation_scale"] = torch.rand((), generator=gen) * 0.02
        scale = made.pop(f"{layer}.weight_scale_inv", None)
        if case == "block1x32_bytes":
            made[f"{layer}.scale"] = scale.view(torch.uint8)
        elif case == "rows":
            made[f"{layer}.weight_scale"] = scale if layer == "plain" else scale.reshape(-1)
        elif case == "tensor_renamed":
            made[f"{layer}.weight_scale"] = scale.reshape(1)
            made[f"{layer}.input_scale"] = torch.rand((), generator=gen) * 0.02
        elif scale is not None:
            made[f"{layer}.weight_scale_inv"] = scale
        tensors |= {key: value.contiguous() for key, value in made.items()}
    folder = fresh("schemes", "fp8", case)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    save_file(sources, folder / "source.safetensors")
    values = {"quantization_config": config.to_dict()}
    if case == "tensor_renamed":
        values["quantization_config"] = {"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["lm_head"]}
    (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n")
    finish(folder, block)


def main():
    transformers.utils.logging.disable_progress_bar()
    torch.cuda.is_available, torch.cuda.get_device_capability = lambda: True, lambda *_: (9, 0)
    small = dict(hidden_size=64, intermediate_size=96, num_key_value_heads=2)
    make_model("block32", (32, 32), 2, 400, **small)
    make_model("block128", (128, 128), 1, 401, hidden_size=128, intermediate_size=256, num_key_value_heads=4)
    for number, case in enumerate(LAYERS):
        make_layers(case, 410 + number)


if __name__ == "__main__":
    main()

"""data/schemes/hqq/<case>: checkpoints quantized by HQQ (half-quadratic quantization) on the CPU.

Each folder holds
  config.json, model.safetensors  as transformers' save_pretrained writes them, or hqq's own
                                  save_to_safetensors (`own_*`: no quantization_config in the config;
                                  `own_sharded` has an index) or save_quantized (`qmodel_pt`: qmodel.pt)
  expected.safetensors            the weights `<layer>.weight` as HQQLinear.dequantize() gives them from the
                                  file, in the dtype of the scales (two roundings: code - zero, then
                                  * scale), cast to f32
  source.safetensors              some cases: the weights they were quantized from, as f32 (with f16 scales they
                                  are f16 values, because transformers casts the model before)

`int4_axis1_g64`, `int2_axis1_g16` and `own_int3_axis0_g64` are whole llama models with f32 scales, and so
are the small `own_sharded` and `qmodel_pt`. All others are sets of linear layers:
`<bits>_axis<axis>_g<group size>_<dtype of scales, zeros and biases>`; `gnone` is group_size null (one group
is a row with axis 1, a column with axis 0), `view` is view_as_float, `dynamic` has another setting for
each linear.

transformers 4.57 gives all its HQQ layers f32 scales. Its earlier versions took the dtype of the model,
through the hook that `follow_dtype` restores for the layer cases.
"""

from common import fresh, generator, random_rows
from hqq_reader import layer_states, unpack
from scheme_models import Layers, llama

import json
import tempfile

import numpy as np
import torch
from hqq.core.quantize import BaseQuantizeConfig, HQQLinear
from hqq.models.hf.base import AutoHQQHFModel
from safetensors.torch import save_file
from transformers import HqqConfig, PretrainedConfig
from transformers.quantizers.quantizer_hqq import HqqHfQuantizer

F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
DTYPES = {"f32": F32, "f16": F16, "bf16": BF16}

ATTENTION = "model.layers.0.self_attn."
MLP = "model.layers.0.mlp."
# N, K and bias. With groups of 64, in this order: groups within rows, groups that straddle two rows,
# groups of four rows, groups that straddle up to three rows. The numbers of groups are 48, 24, 8 and 40, so
# that ten 3-bit codes a word need padding in three of the four.
SHAPES = {
    ATTENTION + "q_proj": (24, 128, True),
    ATTENTION + "k_proj": (16, 96, False),
    MLP + "up_proj": (32, 16, False),
    MLP + "down_proj": (64, 40, True),
}

# case: (nbits, axis, group size, dtype, further settings)
LAYERS = {
    "int8_axis1_g64_f16": (8, 1, 64, "f16", {}),
    "int8_axis0_g32_f32": (8, 0, 32, "f32", {}),
    "int6_axis1_g64_bf16": (6, 1, 64, "bf16", {}),
    "int5_axis0_g64_f16": (5, 0, 64, "f16", {}),
    "int4_axis1_g64_f32": (4, 1, 64, "f32", {}),
    "int4_axis1_g64_f16": (4, 1, 64, "f16", {}),
    "int4_axis1_g64_bf16": (4, 1, 64, "bf16", {}),
    "int4_axis1_g64_f16_view": (4, 1, 64, "f16", dict(view_as_float=True)),
    "int4_axis0_g64_f16": (4, 0, 64, "f16", {}),
    "int4_axis1_gnone_f16": (4, 1, None, "f16", {}),
    "int4_axis0_gnone_f32": (4, 0, None, "f32", {}),
    "int3_axis1_g64_bf16": (3, 1, 64, "bf16", {}),
    "int3_axis1_g16_f16_view": (3, 1, 16, "f16", dict(view_as_float=True)),
    "int3_axis0_g32_f16": (3, 0, 32, "f16", {}),
    "int3_axis1_gnone_f32": (3, 1, None, "f32", {}),
    "int2_axis1_g16_f16": (2, 1, 16, "f16", {}),
    "int2_axis0_g16_f32": (2, 0, 16, "f32", {}),
    "int2_axis1_g64_f32_view": (2, 1, 64, "f32", dict(view_as_float=True)),
    "int158_axis1_g64_f16": (1.58, 1, 64, "f16", {}),
    "int1_axis1_g64_f16": (1, 1, 64, "f16", {}),
    "int1_axis0_g8_bf16": (1, 0, 8, "bf16", {}),
}
SOURCES = [
    "int8_axis1_g64_f16",
    "int8_axis0_g32_f32",
    "int6_axis1_g64_bf16",
    "int5_axis0_g64_f16",
    "int4_axis1_g64_f32",
    "int4_axis1_g64_f16",
    "int4_axis1_g64_bf16",
    "int4_axis0_gnone_f32",
    "int3_axis1_g16_f16_view",
    "int3_axis0_g32_f16",
    "int2_axis0_g16_f32",
    "int2_axis1_g64_f32_view",
    "int158_axis1_g64_f16",
    "int1_axis0_g8_bf16",
]

# linear: nbits, axis, group size
DYNAMIC = {
    "self_attn.q_proj": (4, 1, 64),
    "self_attn.k_proj": (8, 0, 16),
    "mlp.up_proj": (2, 1, 8),
    "mlp.down_proj": (3, 0, 64),
}


def follow_dtype(quantizer, dtype):
    quantizer.dtype = dtype
    return dtype


def fill(model, seed):
    """Random weights with rows of zeros, of one value, of tiny values and of one sign, and large values."""
    gen = generator(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            value = 0.2 * torch.randn(parameter.shape, generator=gen)
            if parameter.dim() == 2:
                value *= 0.3 + torch.rand((len(value), 1), generator=gen)
                value[1:5] = 0.0
                value[5] = 0.7
                value[6] *= 1e-4  # the whole range below 1e-4
                value[7] *= 1e-3  # the inverse of the scale is clamped
                value[8:12] = value[8:12].abs() + 0.5
                value[12:16] = -value[12:16].abs() - 0.5
                value.view(-1)[torch.randint(value.numel(), (3,), generator=gen)] *= 50.0
            parameter.copy_(value)
    return model


def by_transformers(case, model, config, dtype):
    """Quantizes `model` and saves it; checks that transformers loads the same weights again."""
    folder = fresh("schemes", "hqq", case)
    load = type(model).from_pretrained
    with tempfile.TemporaryDirectory() as source:
        model.save_pretrained(source)
        quantized = load(source, quantization_config=config, dtype=dtype, device_map="cpu")
    quantized.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    again = dict(load(folder, dtype=dtype, device_map="cpu").named_modules())
    for name, module in quantized.named_modules():
        if isinstance(module, HQQLinear):
            assert torch.equal(module.dequantize(), again[name].dequantize()), name
    write_expected(folder)
    return folder


def by_hqq(model, dtype, **settings):
    config = BaseQuantizeConfig(group_size=64, **settings)
    return AutoHQQHFModel.quantize_model(model, quant_config=config, compute_dtype=dtype, device="cpu")


def write_expected(folder):
    expected = {}
    for name, state in layer_states(folder).items():
        dtype = state["scale"].dtype
        linear = HQQLinear(linear_layer=None, quant_config=None, compute_dtype=dtype, device="cpu")
        reference = unpack(state)
        linear.load_state_dict(state)
        weight = linear.dequantize()
        assert weight.dtype == dtype
        expected[name + ".weight"] = weight.to(F32).contiguous()
        assert np.array_equal(expected[name + ".weight"].numpy(), reference), (folder.name, name)
    save_file(expected, folder / "expected.safetensors")
    for path in folder.iterdir():
        path.chmod(0o644)
    print(f"{folder.name:26} {len(expected):2} layers")


def write_source(folder, model, config, dtype):
    """Writes the dense weights, and checks that HQQ makes the same layers from them."""
    source = {}
    for name, state in layer_states(folder).items():
        linear = model.get_submodule(name)
        linear.weight.data = linear.weight.data.to(dtype).to(F32)
        source[name + ".weight"] = linear.weight.data
        again = HQQLinear(linear, config.quant_config, compute_dtype=dtype, device="cpu", del_orig=False)
        for key in ("W_q", "scale", "zero"):
            # Codes that are stored as floats can be NaN.
            made, stored = (tensor.contiguous().view(torch.uint8) for tensor in (again.state_dict()[key], state[key]))
            assert torch.equal(made, stored), (name, key)
    save_file(source, folder / "source.safetensors")
    (folder / "source.safetensors").chmod(0o644)


def make_layers():
    follow, HqqHfQuantizer.update_dtype = HqqHfQuantizer.update_dtype, follow_dtype
    for number, (case, (nbits, axis, group, dtype, more)) in enumerate(LAYERS.items()):
        model = fill(Layers(PretrainedConfig(layers=SHAPES)), 300 + number)
        config = HqqConfig(nbits=nbits, axis=axis, group_size=group, **more)
        folder = by_transformers(case, model, config, DTYPES[dtype])
        if case in SOURCES:
            write_source(folder, model, config, DTYPES[dtype])
    settings = {tag: dict(nbits=b, axis=a, group_size=g) for tag, (b, a, g) in DYNAMIC.items()}
    model = fill(Layers(PretrainedConfig(layers=SHAPES)), 350)
    by_transformers("dynamic_bf16", model, HqqConfig(dynamic_config=settings), BF16)
    HqqHfQuantizer.update_dtype = follow


def make_models():
    by_transformers("int4_axis1_g64", llama(2, 96, 360), HqqConfig(nbits=4, group_size=64), F32)
    by_transformers("int2_axis1_g16", llama(1, 128, 361), HqqConfig(nbits=2, group_size=16), F32)

    folder = fresh("schemes", "hqq", "own_int3_axis0_g64")
    model = by_hqq(llama(1, 128, 362), F32, nbits=3, axis=0)
    folder.rmdir()
    AutoHQQHFModel.save_to_safetensors(model, str(folder))
    write_expected(folder)

    small = dict(hidden_size=32, num_key_value_heads=4)
    folder = fresh("schemes", "hqq", "own_sharded")
    model = by_hqq(llama(2, 48, 363, **small), F16, nbits=4)
    folder.rmdir()
    AutoHQQHFModel.save_to_safetensors(model, str(folder), num_blocks_per_file=1, verbose=False)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps(json.loads(index.read_text()), sort_keys=True))  # hqq writes it in random order
    write_expected(folder)

    folder = fresh("schemes", "hqq", "qmodel_pt")
    model = by_hqq(llama(1, 64, 364, **small), F16, nbits=4)
    AutoHQQHFModel.save_quantized(model, str(folder))
    (folder / "generation_config.json").unlink(missing_ok=True)
    again = AutoHQQHFModel.from_quantized(str(folder), compute_dtype=F16, device="cpu", cache_dir=None)
    ids = torch.tensor(random_rows([9], 96, 365))
    assert torch.equal(model(ids).logits, again(ids).logits)
    write_expected(folder)


if __name__ == "__main__":
    make_layers()
    make_models()

"""data/schemes/aqlm/<case>: checkpoints in the format of AQLM (additive quantization).

Each folder holds
  config.json, model.safetensors  as transformers' save_pretrained writes the layers of the aqlm package. `2x8_g8`
                                  has the config.json of AQLM's own converter: the keys of transformers 4, and
                                  the tensors that are not quantized by their full names, norms included. Other
                                  cases have module names there
  expected.safetensors            the weights `<layer>.weight` as the aqlm package dequantizes them when the
                                  checkpoint is loaded with dtype float32: codebooks and scales are upcast to
                                  f32, the vectors are summed in the order of the codebooks in f32, and the sum
                                  is multiplied by the scale in f32

`2x8_g8` and `1x10_g4` are whole llama models, and each has a linear layer that is not quantized. All others
are sets of linear layers: `<codebooks>x<bits>_g<inputs a code>`, `og2` for two outputs a code, and the dtype of
codebooks, scales and biases where it is not f16.

`permuted` cases are saved after a forward on the CPU, which turns the codes of 256-entry codebooks into
[K / group, N, codebooks]. Where N = K / group this shows in no shape: `up_proj` of `2x8_g8_f32_permuted_square`
can only be told from the other layer of the file. transformers cannot load these cases.

The aqlm package cannot quantize. Codebooks are fitted here by residual k-means on the groups of a random weight,
divided by the norm of their outputs; the package packs the codes. Entries that no code uses are zeros in codebooks
with more than 256 entries.
"""

import os

os.environ["NUMBA_NUM_THREADS"] = "1"  # the kernel adds from several threads without a lock

from common import fresh, generator, random_rows, write_json
from scheme_models import Layers, llama

import json

import numpy as np
import torch
from aqlm import QuantizedLinear
from aqlm.utils import _dequantize_weight, pack_int_data, unpack_int_data
from safetensors.torch import load_file, save_file
from transformers import AqlmConfig, LlamaForCausalLM, PretrainedConfig
from transformers.quantizers.quantizer_aqlm import replace_with_aqlm_linear

F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16

ATTENTION = "model.layers.0.self_attn."
MLP = "model.layers.0.mlp."
# N, K and bias.
SMALL = {
    ATTENTION + "q_proj": (24, 128, True),
    ATTENTION + "k_proj": (16, 96, False),
    MLP + "up_proj": (16, 128, False),
    MLP + "down_proj": (40, 64, True),
}
PERMUTED = {name: SMALL[name] for name in (ATTENTION + "q_proj", ATTENTION + "k_proj", MLP + "down_proj")}
SQUARE = {name: SMALL[name] for name in (MLP + "up_proj", MLP + "down_proj")}
ONE = {MLP + "down_proj": (20, 64, True)}

# case: (codebooks, bits, inputs a code, outputs a code, dtype, layers)
LAYERS = {
    "1x16_g8": (1, 16, 8, 1, F16, ONE),
    "1x15_g2": (1, 15, 2, 1, F16, ONE),
    "2x12_g4_og2": (2, 12, 4, 2, F16, ONE),
    "8x8_g32": (8, 8, 32, 1, F16, ONE),
    "1x8_g8": (1, 8, 8, 1, F16, SMALL),
    "2x8_g8_bf16": (2, 8, 8, 1, BF16, SMALL),
    "2x8_g8_f32": (2, 8, 8, 1, F32, SMALL),
    "3x5_g4_og4": (3, 5, 4, 4, F16, SMALL),
    "2x8_g8_f32_permuted": (2, 8, 8, 1, F32, PERMUTED),
    "2x8_g8_f32_permuted_square": (2, 8, 8, 1, F32, SQUARE),
}


def fill(model, seed):
    """Random weights with rows of zeros, of tiny and of large values."""
    gen = generator(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=gen))
            if parameter.dim() == 2:
                parameter[4:8] = 0.0
                parameter[8] *= 1e-5
                parameter[9] *= 300.0


def kmeans(vectors, size, gen):
    """(table of `size` vectors, index of each vector). Used entries are scattered, with both ends among them."""
    count = min(size, len(vectors) // 2)
    centres = vectors[torch.randperm(len(vectors), generator=gen)[:count]].clone()
    for _ in range(10):
        index = (0.5 * (centres**2).sum(1) - vectors @ centres.T).argmin(1)
        total = torch.zeros_like(centres).index_add_(0, index, vectors)
        members = torch.bincount(index, minlength=count)
        centres = torch.where(members[:, None] > 0, total / members.clamp(min=1)[:, None], centres)
    index = (0.5 * (centres**2).sum(1) - vectors @ centres.T).argmin(1)
    used = index.bincount(minlength=count).argsort(descending=True, stable=True)
    ends = torch.tensor([0, size - 1, size // 2, size // 2 - 1])
    places = torch.randperm(size, generator=gen)
    places = torch.cat([ends, places[~torch.isin(places, ends)]])[:count]
    place = torch.empty(count, dtype=torch.int64)
    place[used] = places
    table = torch.zeros(size, vectors.shape[1])
    if size <= 256:
        table = 0.1 * torch.randn(table.shape, generator=gen)
    table[place] = centres
    return table, place[index]


def quantize(linear, weight, gen, dtype):
    """Fills a QuantizedLinear."""
    og, ig, bits = linear.out_group_size, linear.in_group_size, linear.nbits_per_codebook
    n, k = weight.shape
    scales = weight.reshape(n // og, -1).norm(dim=1) + 1e-9
    groups = weight.reshape(n // og, og, k // ig, ig).swapaxes(1, 2)
    residual = (groups / scales.view(-1, 1, 1, 1)).reshape(-1, og * ig)
    codebooks, codes = [], []
    for _ in range(linear.num_codebooks):
        table, index = kmeans(residual, 2**bits, gen)
        residual = residual - table[index]
        codebooks.append(table.view(-1, og, ig))
        codes.append(index.view(n // og, k // ig))
    put = lambda value: torch.nn.Parameter(value.contiguous(), requires_grad=False)
    linear.codes = put(pack_int_data(torch.stack(codes, dim=-1), bits))
    linear.codebooks = put(torch.stack(codebooks).to(dtype))
    linear.scales = put(scales.view(-1, 1, 1, 1).to(dtype))


@torch.no_grad()
def dequantize(linear):
    return _dequantize_weight(unpack_int_data(linear.codes, linear.nbits_per_codebook), linear.codebooks, linear.scales)


def quantized_layers(model):
    return {name: module for name, module in model.named_modules() if isinstance(module, QuantizedLinear)}


def convert(model, settings, dtype, skip, seed):
    """Quantizes all linear layers but those in `skip`."""
    codebooks, bits, ig, og = settings
    config = AqlmConfig(ig, og, codebooks, bits, skip)
    dense = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    replace_with_aqlm_linear(model, skip, config)
    gen = generator(seed)
    for name, linear in quantized_layers(model).items():
        quantize(linear, dense[name].weight.data, gen, dtype)
        linear.bias = dense[name].bias
    model.to(dtype).eval()
    model.config.quantization_config = config
    model.config.dtype = dtype
    return model


def reload(folder):
    """The model as transformers loads it with dtype float32. It knows skipped layers by module names only."""
    kind = Layers if "layers" in json.loads((folder / "config.json").read_text()) else LlamaForCausalLM
    config = kind.config_class.from_pretrained(folder)
    names = config.quantization_config["linear_weights_not_to_quantize"]
    config.quantization_config["linear_weights_not_to_quantize"] = [name.removesuffix(".weight") for name in names]
    return kind.from_pretrained(folder, config=config, dtype=F32)


def unpack(tensors, layer, bits, permuted):
    """The weight of a layer by numpy, from the stored bytes."""
    codes, codebooks = tensors[layer + ".codes"].numpy(), tensors[layer + ".codebooks"].to(F32).numpy()
    codes = codes.swapaxes(0, 1) if permuted else codes
    scales = tensors[layer + ".scales"].to(F32).numpy()
    weight = np.zeros((*codes.shape[:2], *codebooks.shape[2:]), np.float32)
    for number, table in enumerate(codebooks):
        weight += table[codes[..., number].astype(np.int64) & (2**bits - 1)]
    weight = (weight * scales).swapaxes(1, 2)
    return weight.reshape(weight.shape[0] * weight.shape[1], -1)


def write_expected(folder, model, bits, permuted=False):
    """Writes expected.safetensors from a model in f32, and checks it."""
    tensors = load_file(folder / "model.safetensors")
    expected = {name + ".weight": dequantize(linear) for name, linear in quantized_layers(model).items()}
    for name in quantized_layers(model):
        reference = unpack(tensors, name, bits, permuted)
        assert np.array_equal(expected[name + ".weight"].numpy(), reference), (folder.name, name)
    assert len(expected) == sum(key.endswith(".codes") for key in tensors)
    save_file(expected, folder / "expected.safetensors")
    for path in folder.iterdir():
        path.chmod(0o644)
    print(f"{folder.name:28} {len(expected):2} layers")
    return expected


def forward(model, expected):
    """Runs each layer once, which permutes codes, and compares the output with the dense weight."""
    for name, linear in quantized_layers(model).items():
        x = torch.randn((3, linear.in_features), generator=generator(1))
        reference = torch.nn.functional.linear(x, expected[name + ".weight"], linear.bias)
        torch.testing.assert_close(linear(x), reference, rtol=1e-4, atol=1e-4 * reference.abs().max().item())


def make_layers():
    for number, (case, (*settings, dtype, layers)) in enumerate(LAYERS.items()):
        folder = fresh("schemes", "aqlm", case)
        model = Layers(PretrainedConfig(layers=layers))
        fill(model, 400 + number)
        model = convert(model, settings, dtype, [], 420 + number)
        if "permuted" in case:
            expected = {name + ".weight": dequantize(linear) for name, linear in quantized_layers(model).items()}
            before = {name: linear.codes.data for name, linear in quantized_layers(model).items()}
            forward(model, expected)
            model.save_pretrained(folder)
            for name, linear in quantized_layers(model).items():
                assert linear.codes.shape[0] == linear.in_features // 8, name
                linear.codes.data = before[name]
            write_expected(folder, model, settings[1], permuted=True)
        else:
            model.save_pretrained(folder)
            again = reload(folder)
            forward(again, write_expected(folder, again, settings[1]))


def converter_config(folder):
    """Turns config.json into what AQLM's converter wrote."""
    config = json.loads((folder / "config.json").read_text())
    tensors = load_file(folder / "model.safetensors")
    quantization = config.pop("quantization_config")
    kept = [name for name in tensors if name.endswith(".weight")]
    quantization["linear_weights_not_to_quantize"] = kept
    config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    config["torch_dtype"] = config.pop("dtype")
    del config["transformers_version"]
    write_json(folder / "config.json", config | {"quantization_config": quantization})


def make_model(case, model, settings, skip, seed, old):
    folder = fresh("schemes", "aqlm", case)
    model = convert(model, settings, F16, skip, seed)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if old:
        converter_config(folder)
    again = reload(folder)
    expected = write_expected(folder, again, settings[1])
    dense = llama(model.config.num_hidden_layers, model.config.intermediate_size, 0)
    stored = {name: value.to(F32) for name, value in load_file(folder / "model.safetensors").items()}
    dense.load_state_dict({name: value for name, value in (stored | expected).items() if name in dense.state_dict()})
    ids = torch.tensor(random_rows([9], 96, 440))
    torch.testing.assert_close(again(ids).logits, dense(ids).logits, rtol=1e-4, atol=1e-4)


if __name__ == "__main__":
    make_layers()
    make_model("2x8_g8", llama(2, 96, 430), (2, 8, 8, 1), ["lm_head", "model.layers.1.self_attn.k_proj"], 431, True)
    make_model("1x10_g4", llama(1, 128, 432), (1, 10, 4, 1), ["lm_head", "model.layers.0.mlp.up_proj"], 433, False)

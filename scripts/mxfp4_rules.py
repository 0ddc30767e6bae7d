"""Which library's MXFP4 equals ours: shares of equal scales and codes, and the mean square error of each.

A scale is a power of two for 32 weights of a row, and libraries choose it by different rules. The linear layers
of a dense model are quantized by those libraries that are there (torchao and compressed-tensors; NVIDIA's
modelopt, and Microsoft's `mx`, which only has a repository: microsoft/microxcaling) and by qoft. DENSE is in
bfloat16, in which some of them compute:

    for S in mxfp4 compressed-tensors,num_bits=4,type=float,group_size=32 mlx,mode=mxfp4; do
        qoft quantize --model DENSE --scheme $S --output OUT/${S%%,*}
    done
    python mxfp4_rules.py DENSE OUT/mxfp4 OUT/compressed-tensors OUT/mlx

OpenAI's rule, which transformers has for gpt-oss on GPUs, is written out below: its library is on no registry.
"""

import pathlib
import sys

import torch
from safetensors import safe_open

F32 = torch.float32


def openai(weight):
    """`downcast_to_mxfp_torch` of triton_kernels, ROUND_UP: the power of two that is not below a / 6."""
    groups = weight.to(F32).unflatten(-1, (-1, 32))
    scale = groups.abs().amax(-1) / 6
    exponent = (scale.view(torch.int32) + 0x007FFFFF) >> 23
    return exponent.to(torch.uint8), codes(groups, exponent)


def codes(groups, exponent):
    """Nearest numbers, ties to the even code; two in a byte."""
    scaled = groups / torch.exp2(exponent.to(F32) - 127).unsqueeze(-1)
    bounds = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0])
    size = scaled.abs()
    up = torch.searchsorted(bounds, size.contiguous(), right=True)
    down = torch.searchsorted(bounds, size.contiguous(), right=False)
    code = torch.where(up % 2 == 0, up, down) | (scaled.signbit().to(torch.int64) << 3)
    code = code.flatten(-2)
    return (code[:, ::2] | code[:, 1::2] << 4).to(torch.uint8)


def torchao(rule):
    from torchao.prototype.mx_formats.config import ScaleCalculationMode
    from torchao.prototype.mx_formats.mx_tensor import to_mx

    def quantize(weight):
        scale, code = to_mx(weight.contiguous(), torch.float4_e2m1fn_x2, 32, ScaleCalculationMode[rule])
        return scale.view(torch.uint8), code.view(torch.uint8)

    return quantize


def compressed_tensors():
    from compressed_tensors.compressors.nvfp4.helpers import pack_fp4_to_uint8
    from compressed_tensors.quantization.utils.mxfp_utils import generate_mx_scales
    from compressed_tensors.quantization import QuantizationArgs
    from compressed_tensors.quantization.quant_args import round_to_quantized_type_args

    args = QuantizationArgs(num_bits=4, type="float", strategy="group", group_size=32)

    def quantize(weight):
        groups = weight.unflatten(-1, (-1, 32))
        exponent = generate_mx_scales(groups.abs().amax(-1))
        scaled = groups.to(F32) / torch.exp2(exponent.to(F32) - 127).unsqueeze(-1)
        rounded = round_to_quantized_type_args(scaled.to(weight.dtype), args, -6.0, 6.0)
        return exponent.to(torch.uint8), pack_fp4_to_uint8(rounded.flatten(-2))

    return quantize


def modelopt():
    from modelopt.torch.quantization.qtensor import MXFP4QTensor

    def quantize(weight):
        made, scale = MXFP4QTensor.quantize(weight, 32)
        return scale.view(weight.shape[0], -1), made._quantized_data.view(weight.shape[0], -1)

    return quantize


def microxcaling():
    """The library returns weights; scales and codes are found again from them."""
    from mx.mx_ops import _quantize_mx
    from mx.formats import _get_format_params

    largest = _get_format_params("fp4_e2m1")[2]

    def quantize(weight):
        weight = weight.to(F32)
        groups = weight.unflatten(-1, (-1, 32))
        exponent = torch.floor(torch.log2(groups.abs().amax(-1))) - largest + 127
        values = _quantize_mx(weight, 8, "fp4_e2m1", axes=[-1], block_size=32, round="even")
        return exponent.to(torch.uint8), codes(values.unflatten(-1, (-1, 32)), exponent)

    return quantize


LIBRARIES = {f"torchao {rule}": lambda rule=rule: torchao(rule) for rule in ("RCEIL", "FLOOR", "EVEN", "CEIL")} | {
    "OpenAI, ROUND_UP": lambda: openai,
    "compressed-tensors": compressed_tensors,
    "modelopt": modelopt,
    "microxcaling": microxcaling,
}
# The names of codes and scales.
NAMES = [("weight_blocks", "weight_scales"), ("weight_packed", "weight_scale"), ("weight", "scales")]


def decoded(scales, packed):
    table = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    table = torch.cat([table, -table])
    values = torch.stack([table[(packed & 15).long()], table[(packed >> 4).long()]], -1).flatten(1)
    return values * torch.exp2(scales.to(F32) - 127).repeat_interleave(32, 1)


def ours(folder):
    file = safe_open(next(pathlib.Path(folder).glob("*.safetensors")), "pt")
    names = set(file.keys())

    def quantize(path):
        codes, scales = next(pair for pair in NAMES if all(f"{path}.{name}" in names for name in pair))
        scales = file.get_tensor(f"{path}.{scales}")
        return scales, file.get_tensor(f"{path}.{codes}").view(torch.uint8).reshape(scales.shape[0], -1)

    return quantize


def main(dense, *folders):
    made = {}
    for name, library in LIBRARIES.items():
        try:
            made[name] = library()
        except ImportError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
    found = {pathlib.Path(folder).name: ours(folder) for folder in folders}
    equal, errors, count, layers = {}, dict.fromkeys(made, 0.0), [0, 0], 0
    for path in sorted(pathlib.Path(dense).glob("*.safetensors")):
        file = safe_open(path, "pt")
        for name in file.keys():
            if not name.endswith("_proj.weight"):
                continue
            weight = file.get_tensor(name).to(torch.bfloat16)
            own = {folder: of(name.removesuffix(".weight")) for folder, of in found.items()}
            layers += 1
            for library, quantize in made.items():
                scales, packed = quantize(weight)
                errors[library] += (decoded(scales, packed) - weight.to(F32)).square().sum().item()
                for folder, (other_scales, other_packed) in own.items():
                    sums = equal.setdefault((library, folder), [0, 0])
                    sums[0] += (scales == other_scales).sum().item()
                    sums[1] += (packed == other_packed).sum().item()
            count[0] += scales.numel()
            count[1] += packed.numel()
    print(f"{layers} layers, {count[0]} groups\n")
    print("| library | mean square error |", " | ".join(found), "|")
    print("|---|---|", "---|" * len(found), sep="")
    for library in made:
        shares = (equal[library, folder] for folder in found)
        shares = (" / ".join(f"{100 * part / whole:.4g} %" for part, whole in zip(sums, count)) for sums in shares)
        print(f"| {library} | {errors[library] / count[1] / 2:.4g} |", " | ".join(shares), "|")


main(*sys.argv[1:])

"""data/schemes/torchao: Llama models as transformers saves them with a TorchAoConfig.

int8             a scale for each row, bfloat16
int8_tensor      one scale for a weight, float32
int8_groups      groups of 32, float16, in several files
int8_dynamic     inputs quantized while computing, which changes no weight; bfloat16
float8           a scale for each row, bfloat16
float8_tensor    one scale, float32
float8_groups    groups of 32, float16
intx_4           4 bits in groups of 32, symmetric, bfloat16
intx_3           3 bits by row, asymmetric, float32
intx_2           2 bits in groups of 16, the larger side decides, float16
mixed            FqnToConfig: 8-bit floats for down_proj, one k_proj dense, int8 elsewhere
head             8-bit floats, also in the output head
named            the same with names of layers and weights, several expressions and no default
int4             Int4Tensor in groups of 32, quantized by FBGEMM's functions, which are now mslk's
int4_whole       the same with groups of 96, which the library leaves out where they do not fit
int4_tiles       Int4TilePackedTo4dTensor of three layers
int4_tiles_hqq   the same with scales by HQQ

Nothing of torchao's quantizers is written anew here but the last step of the tiles, which PyTorch has for GPUs
only: the words are put together by the layout of its CUDA kernel.

source.safetensors: the dense weights of the quantized layers.
expected.safetensors: `dequantize()` of the library's tensors, in f32; for Int4, which has none, the product with
the scale and the sum with the zero point, each rounded to bfloat16.
"""

from common import LLAMA, fresh, randomize

import tempfile

import torch
from fbgemm_gpu.experimental.gen_ai.quantize import int4_row_quantize_zp, pack_int4
from safetensors.torch import save_file
from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict
from torchao.quantization import (
    Float8WeightOnlyConfig,
    FqnToConfig,
    Int4Tensor,
    Int4TilePackedTo4dTensor,
    Int4WeightOnlyConfig,
    Int8DynamicActivationInt8WeightConfig,
    Int8WeightOnlyConfig,
    IntxWeightOnlyConfig,
)
from torchao.quantization.granularity import PerAxis, PerGroup, PerTensor
from torchao.quantization.quant_primitives import MappingType
from torchao.quantization.quantize_.workflows import Int4ChooseQParamsAlgorithm, Int4PackingFormat
from torchao.quantization.quantize_.workflows.int4 import int4_tensor
from transformers import AutoModelForCausalLM, LlamaConfig, TorchAoConfig

BF16, F16, F32 = torch.bfloat16, torch.float16, torch.float32


def intx(dtype, granularity, mapping=MappingType.SYMMETRIC):
    return IntxWeightOnlyConfig(weight_dtype=dtype, granularity=granularity, mapping_type=mapping)


# case: configuration, dtype, whether weights may have rows of zeros, arguments of TorchAoConfig
CASES = {
    "int8": (Int8WeightOnlyConfig(), BF16, True, {}),
    "int8_tensor": (Int8WeightOnlyConfig(granularity=PerTensor()), F32, True, {}),
    "int8_groups": (Int8WeightOnlyConfig(granularity=PerGroup(32)), F16, True, {}),
    "int8_dynamic": (Int8DynamicActivationInt8WeightConfig(), BF16, True, {"modules_to_not_convert": ["lm_head", "q_proj"]}),
    "float8": (Float8WeightOnlyConfig(), BF16, False, {}),
    "float8_tensor": (Float8WeightOnlyConfig(granularity=PerTensor()), F32, False, {}),
    "float8_groups": (Float8WeightOnlyConfig(granularity=PerGroup(32)), F16, False, {}),
    "intx_4": (intx(torch.int4, PerGroup(32)), BF16, True, {}),
    "intx_3": (intx(torch.int3, PerAxis(0), MappingType.ASYMMETRIC), F32, True, {}),
    "intx_2": (intx(torch.int2, PerGroup(16), MappingType.SYMMETRIC_NO_CLIPPING_ERR), F16, True, {}),
    "mixed": (
        FqnToConfig({
            "model.layers.0.self_attn.k_proj": None,
            r"re:.*\.down_proj": Float8WeightOnlyConfig(),
            "_default": Int8WeightOnlyConfig(),
        }),
        BF16, False, {},
    ),
    "head": (Float8WeightOnlyConfig(), BF16, False, {"include_input_output_embeddings": True}),
    "named": (
        FqnToConfig({
            "model.layers.0.self_attn.q_proj.weight": Int8WeightOnlyConfig(granularity=PerTensor()),
            "model.layers.0.self_attn.q_proj": None,
            # config.json has the names in the order of the alphabet, which is to be that of the expressions.
            r"re:(?:model\.layers\.\d\.self_attn\.[kv]_proj)": intx(torch.int4, PerGroup(32)),
            r"re:.*\.(k|up|down)_proj\.weight": Float8WeightOnlyConfig(),
            r"re:.*\.self_attn\..": None,
        }),
        BF16, False, {},
    ),
}


def dense(dtype, seed, zeros, **sizes):
    model = AutoModelForCausalLM.from_config(LlamaConfig(**(LLAMA | dict(num_hidden_layers=1) | sizes)), dtype=F32)
    randomize(model, seed)
    if zeros:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "_proj" in name:
                    parameter[3], parameter[5] = 0.0, parameter[5].abs()
                    parameter[6, ::9] *= 4.0
    return model.to(dtype)


def write(folder, sources, expected):
    save_file({name: sources[name].contiguous() for name in expected}, folder / "source.safetensors")
    save_file(expected, folder / "expected.safetensors")
    (folder / "generation_config.json").unlink(missing_ok=True)
    for file in folder.iterdir():
        file.chmod(0o644)
    print(folder.name, len(expected))


def make(case, seed):
    config, dtype, zeros, options = CASES[case]
    folder = fresh("schemes", "torchao", case)
    model = dense(dtype, seed, zeros, num_hidden_layers=2 if case == "mixed" else 1)
    sources = {name: value.clone() for name, value in model.state_dict().items()}
    with tempfile.TemporaryDirectory() as work:
        model.save_pretrained(work)
        options = TorchAoConfig(config, **options)
        model = AutoModelForCausalLM.from_pretrained(work, quantization_config=options, dtype=dtype)
    shards = {"max_shard_size": "60KB"} if case == "int8_groups" else {}
    model.save_pretrained(folder, **shards)
    expected = {}
    for name, value in model.state_dict().items():
        if hasattr(value, "dequantize") and type(value) is not torch.Tensor:
            expected[name] = value.dequantize().to(F32).contiguous()
    write(folder, sources, expected)


def int4_value(codes, scale, zero, group):
    """The weight of codes from -8 to 7 with scales and zero points of [rows, groups]."""
    scale, zero = (value.repeat_interleave(group, 1) for value in (scale, zero))
    return ((codes.to(BF16) * scale) + zero).to(F32)


def plain_value(tensor):
    packed = tensor.qdata.to(torch.int32)
    codes = torch.stack([(packed & 15 ^ 8) - 8, packed >> 4], -1).flatten(1)
    return int4_value(codes, tensor.scale.T, tensor.zero_point.T, tensor.block_size[1])


def words(packed, inner_tiles):
    """`_convert_weight_to_int4pack` on a CPU, see PyTorch's matrix_to_m16n8k16_Bint4_layout.

    `packed` has two codes in a byte, the first in the high bits.
    """
    assert inner_tiles == 8
    codes = torch.stack([packed >> 4, packed & 15], -1).flatten(1).to(torch.int64)
    rows, columns = codes.shape
    out = torch.zeros(rows // 8, columns // 128, 32, 4, dtype=torch.int64)
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    lane = 4 * (row % 8) + (column % 8) // 2
    place = 4 * ((column % 32) // 16) + 2 * ((column % 16) // 8) + column % 2
    nibble = torch.tensor([0, 4, 1, 5, 2, 6, 3, 7])[place]
    out.index_put_((row // 8, column // 128, lane, column % 128 // 32), codes << (4 * nibble), accumulate=True)
    out = (out - (out >= 2**31).to(torch.int64) * 2**32).to(torch.int32)
    CODES[out.data_ptr()] = codes
    return out


# The codes of words, by the address of these.
CODES = {}


def tiles_value(tensor):
    codes = CODES[tensor.qdata.data_ptr()] - 8
    scale, zero = (part.T for part in tensor.scale_and_zero.unbind(-1))
    rows, columns = tensor.shape
    return int4_value(codes, scale, zero, tensor.block_size[1])[:rows, :columns].contiguous()


def make_int4(case, config, seed, layers=None):
    """As transformers saves it; where `layers` are given, these alone."""
    folder = fresh("schemes", "torchao", case)
    model = dense(BF16, seed, False)
    sources = {name: value.clone() for name, value in model.state_dict().items()}
    with tempfile.TemporaryDirectory() as work:
        model.save_pretrained(work)
        model = AutoModelForCausalLM.from_pretrained(work, quantization_config=TorchAoConfig(config), dtype=BF16)
    state = {name: value for name, value in model.state_dict().items() if layers is None or name.startswith(layers)}
    expected = {}
    for name, value in state.items():
        if isinstance(value, Int4Tensor):
            expected[name] = plain_value(value)
        elif isinstance(value, Int4TilePackedTo4dTensor):
            expected[name] = tiles_value(value)
    if layers is None:
        model.save_pretrained(folder)
    else:
        tensors, metadata = flatten_tensor_state_dict(state)
        save_file(tensors, folder / "model.safetensors", metadata=metadata | {"format": "pt"})
        model.config.save_pretrained(folder)
    write(folder, sources, expected)


def int4(**settings):
    return Int4WeightOnlyConfig(**({"group_size": 32} | settings))


def main():
    for seed, case in enumerate(CASES):
        make(case, 1000 + seed)
    # What torchao imports from mslk, which is on no registry; the functions were FBGEMM's before.
    int4_tensor.int4_row_quantize_zp, int4_tensor.pack_int4 = int4_row_quantize_zp, pack_int4
    # What it demands of a GPU, and PyTorch's operation that only these have.
    torch.cuda.get_device_capability = lambda: (8, 0)
    library = torch.library.Library("aten", "IMPL")
    library.impl("_convert_weight_to_int4pack", words, "CPU")
    make_int4("int4", int4(), 1100)
    make_int4("int4_whole", int4(group_size=96), 1102)
    layers = ("model.layers.0.self_attn.k_", "model.layers.0.mlp.down", "model.layers.0.mlp.up")
    tiles = Int4PackingFormat.TILE_PACKED_TO_4D
    make_int4("int4_tiles", int4(int4_packing_format=tiles), 1101, layers)
    hqq = int4(int4_packing_format=tiles, int4_choose_qparams_algorithm=Int4ChooseQParamsAlgorithm.HQQ)
    make_int4("int4_tiles_hqq", hqq, 1103, layers[0])


if __name__ == "__main__":
    main()

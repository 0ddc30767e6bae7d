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
int4             Int4Tensor, by the formula of its quantizer, whose library needs a GPU
int4_tiles       Int4TilePackedTo4dTensor of three layers, packed by the layout of PyTorch's CUDA kernel

source.safetensors: the dense weights of the quantized layers.
expected.safetensors: `dequantize()` of the library's tensors, in f32; for Int4 the product with the scale and
the sum with the zero point, each rounded to bfloat16.
"""

from common import LLAMA, fresh, randomize

import json
import tempfile

import torch
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


def int4_codes(weight, group):
    """Codes from 0 to 15, scales and zero points of groups; as FBGEMM's int4_row_quantize_zp finds them."""
    groups = weight.to(F32).view(weight.shape[0], -1, group)
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    scale = torch.clamp(high - low, min=1e-6) / 15
    zero = low + 8 * scale
    codes = torch.clamp(torch.round((groups - low) / scale), 0, 15)
    return codes.view(weight.shape).to(torch.int32), scale[..., 0].to(BF16), zero[..., 0].to(BF16)


def int4_value(codes, scale, zero, group):
    scale, zero = (value.repeat_interleave(group, 1) for value in (scale, zero))
    return (((codes - 8).to(BF16) * scale) + zero).to(F32)


def plain(weight, group):
    codes, scale, zero = int4_codes(weight, group)
    signed = (codes - 8).to(torch.int8)
    packed = ((signed[:, 1::2] << 4) | (signed[:, ::2] & 0xF)).to(torch.int8).contiguous()
    tensor = Int4Tensor(
        packed, scale.T.contiguous(), zero.T.contiguous(), [1, group], weight.shape
    )
    return tensor, int4_value(codes, scale, zero, group)


def tiles(weight, group):
    """Words of a padded matrix, see PyTorch's matrix_to_m16n8k16_Bint4_layout."""
    n, k = weight.shape
    rows, columns = -(-n // 8) * 8, -(-k // 1024) * 1024
    padded = torch.nn.functional.pad(weight, (0, columns - k, 0, rows - n))
    codes, scale, zero = int4_codes(padded, group)
    words = torch.zeros(rows // 8, columns // 128, 32, 4, dtype=torch.int64)
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    lane = 4 * (row % 8) + (column % 8) // 2
    place = 4 * ((column % 32) // 16) + 2 * ((column % 16) // 8) + column % 2
    nibble = torch.tensor([0, 4, 1, 5, 2, 6, 3, 7])[place]
    index = (row // 8, column // 128, lane, column % 128 // 32)
    words.index_put_(index, codes.to(torch.int64) << (4 * nibble), accumulate=True)
    words = words.to(torch.int32) if words.max() < 2**31 else (words - (words >= 2**31).to(torch.int64) * 2**32).to(torch.int32)
    both = torch.stack([scale, zero], -1).transpose(0, 1).contiguous()
    tensor = Int4TilePackedTo4dTensor(words, both, [1, group], weight.shape)
    return tensor, int4_value(codes, scale, zero, group)[:n, :k].contiguous()


def make_int4(case, pack, seed, only):
    folder = fresh("schemes", "torchao", case)
    model = dense(BF16, seed, False)
    state, sources, expected = {}, {}, {}
    for name, value in model.state_dict().items():
        if "_proj.weight" in name and name.startswith(only):
            sources[name] = value
            state[name], expected[name] = pack(value, 32)
        elif only == "model":
            state[name] = value
    tensors, metadata = flatten_tensor_state_dict(state)
    save_file(tensors, folder / "model.safetensors", metadata=metadata | {"format": "pt"})
    values = model.config.to_dict()
    values["quantization_config"] = TorchAoConfig(Int4WeightOnlyConfig(group_size=32)).to_dict()
    (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n")
    write(folder, sources, expected)


def main():
    for seed, case in enumerate(CASES):
        make(case, 1000 + seed)
    make_int4("int4", plain, 1100, "model")
    make_int4("int4_tiles", tiles, 1101, ("model.layers.0.self_attn.k_", "model.layers.0.mlp.down", "model.layers.0.mlp.up"))


if __name__ == "__main__":
    main()

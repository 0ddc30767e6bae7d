"""data/schemes/modelopt: checkpoints of NVIDIA's modelopt, quantized and exported on a CPU.

nvfp4        NVFP4 weights and inputs, bfloat16; q, k, v and gate, up share `weight_scale_2`
nvfp4_w4a16  NVFP4 weights only, float16
fp8          FP8 by tensor, with static scales of inputs; the second layer's down_proj stays dense
fp8_rows     FP8 by row (FP8_PER_CHANNEL_PER_TOKEN)
fp8_blocks   FP8 in blocks of 128 (FP8_PB_WO)
mixed        NVFP4 in the MLPs and FP8 elsewhere (MIXED_PRECISION); hf_quant_config.json is the only file that
             says so, as in older exports

source.safetensors: the dense weights of the quantized layers.
expected.safetensors: NVFP4 by modelopt's own dequantizer in f32, FP8 as the product with the scale in f32.
"""

from common import LLAMA, fresh, generator, randomize

import copy
import json
import warnings

import modelopt.torch.quantization as mtq
import torch
from modelopt.torch.export import export_hf_checkpoint
from modelopt.torch.quantization.qtensor import NVFP4QTensor
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig

BF16, F16, F32, F8 = torch.bfloat16, torch.float16, torch.float32, torch.float8_e4m3fn


def dequantize(stored, path):
    """The f32 weight of a layer; None where it is dense."""
    weight, scale = stored[f"{path}.weight"], stored.get(f"{path}.weight_scale")
    if weight.dtype == torch.uint8:
        shape = torch.Size([weight.shape[0], weight.shape[1] * 2])
        tensor = NVFP4QTensor(shape, F32, weight)
        return tensor.dequantize(
            dtype=F32, scale=scale, double_scale=stored[f"{path}.weight_scale_2"], block_sizes={-1: 16}
        )
    if weight.dtype != F8:
        return None
    if scale.dim() == 4:
        rows, columns = weight.shape
        scale = scale.expand(-1, 128, -1, 128).reshape(scale.shape[0] * 128, -1)[:rows, :columns]
    elif scale.dim() == 1 and scale.numel() > 1:
        scale = scale[:, None]
    return weight.to(F32) * scale


def make(case, config, dtype, seed, only_file=False, **sizes):
    folder = fresh("schemes", "modelopt", case)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**(LLAMA | sizes)), dtype=F32)
    randomize(model, seed)
    model.to(dtype)
    sources = {name: value.clone() for name, value in model.state_dict().items() if "_proj.weight" in name}
    rows = torch.randint(3, 96, (4, 16), generator=generator(seed))
    model = mtq.quantize(model, config, lambda model: model(rows))
    with torch.inference_mode():
        export_hf_checkpoint(model, dtype=dtype, export_dir=folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    values = json.loads((folder / "config.json").read_text())
    if only_file:
        del values["quantization_config"]
        (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n")
    stored, expected = load_file(folder / "model.safetensors"), {}
    for name in sources:
        weight = dequantize(stored, name.removesuffix(".weight"))
        if weight is not None:
            expected[name] = weight.contiguous()
    save_file({name: sources[name].contiguous() for name in expected}, folder / "source.safetensors")
    save_file(expected, folder / "expected.safetensors")
    for file in folder.iterdir():
        file.chmod(0o644)
    print(case, json.loads((folder / "hf_quant_config.json").read_text())["quantization"]["quant_algo"], len(expected))


def main():
    warnings.simplefilter("ignore")
    make("nvfp4", mtq.NVFP4_DEFAULT_CFG, BF16, 801)
    make("nvfp4_w4a16", mtq.W4A16_NVFP4_CFG, F16, 802)
    fp8 = copy.deepcopy(mtq.FP8_DEFAULT_CFG)
    dense = {"quantizer_name": "*layers.1.mlp.down_proj*", "enable": False}
    fp8["quant_cfg"].append(dense)
    make("fp8", fp8, BF16, 803)
    make("fp8_rows", mtq.FP8_PER_CHANNEL_PER_TOKEN_CFG, BF16, 804)
    sizes = dict(hidden_size=128, intermediate_size=256, num_hidden_layers=1)
    make("fp8_blocks", mtq.FP8_2D_BLOCKWISE_WEIGHT_ONLY_CFG, BF16, 805, **sizes)
    mixed = copy.deepcopy(mtq.FP8_DEFAULT_CFG)
    mixed["quant_cfg"] += [
        entry | {"quantizer_name": "*mlp" + entry["quantizer_name"]}
        for entry in mtq.NVFP4_DEFAULT_CFG["quant_cfg"]
        if entry["quantizer_name"] in ("*weight_quantizer", "*input_quantizer")
    ]
    make("mixed", mixed, BF16, 806, only_file=True)


if __name__ == "__main__":
    main()

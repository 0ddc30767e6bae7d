"""data/schemes/mxfp4: Llama models whose layers are stored as gpt-oss stores its experts, and data/packed/gpt_oss.

ceil     all layers but the output head, scales by the rule that transformers' quantizer uses: torchao's RCEIL
floor    OCP's rule, which clips (torchao's FLOOR), in float16; q_proj and the first down_proj stay dense
data/packed/gpt_oss: a small gpt-oss, whose experts alone are quantized

source.safetensors: the dense weights of the quantized layers.
expected.safetensors: the weights by transformers' convert_moe_packed_tensors, in f32; for gpt-oss the dense
parameters of the model that transformers loads with Mxfp4Config(dequantize=True), in f32.
"""

from common import LLAMA, fresh, randomize, write_json

import torch
from safetensors.torch import save_file
from torchao.prototype.mx_formats.config import ScaleCalculationMode
from torchao.prototype.mx_formats.mx_tensor import to_mx
from transformers import AutoModelForCausalLM, GptOssConfig, LlamaConfig, Mxfp4Config
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

BF16, F16, F32 = torch.bfloat16, torch.float16, torch.float32


def pack(weight, mode):
    """Blocks and scales of rows of bfloat16."""
    scales, codes = to_mx(weight.contiguous(), torch.float4_e2m1fn_x2, 32, mode)
    *rows, groups = scales.shape
    return codes.view(torch.uint8).reshape(*rows, groups, 16), scales.view(torch.uint8)


def dequantize(blocks, scales):
    """The f32 weight of a linear layer: one expert, turned back."""
    return convert_moe_packed_tensors(blocks[None], scales[None], dtype=F32)[0].T.contiguous()


def make_llama(case, mode, dtype, skips, seed):
    folder = fresh("schemes", "mxfp4", case)
    config = LlamaConfig(**LLAMA)
    model = AutoModelForCausalLM.from_config(config, dtype=F32)
    randomize(model, seed)
    model.to(BF16)
    tensors, source, expected = {}, {}, {}
    for name, value in model.state_dict().items():
        if "_proj.weight" not in name or any(skip in name for skip in skips):
            tensors[name] = value.to(dtype).contiguous()
            continue
        if "layers.0.self_attn.k_proj" in name:
            # Groups of zeros, of negative zeros, of tiny weights and of large ones.
            value[0, :32], value[1, :32] = 0.0, -0.0
            value[2, :32] *= 2.0**-100
            value[3, :32] *= 2.0**20
        blocks, scales = pack(value, mode)
        tensors[f"{name}_blocks"], tensors[f"{name}_scales"] = blocks, scales
        source[name], expected[name] = value.contiguous(), dequantize(blocks, scales)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    save_file(source, folder / "source.safetensors")
    save_file(expected, folder / "expected.safetensors")
    config.dtype = dtype
    values = config.to_dict()
    values["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": skips}
    write_json(folder / "config.json", values)
    print(case, len(expected))


def make_gpt_oss(seed):
    folder = fresh("packed", "gpt_oss")
    config = GptOssConfig(
        architectures=["GptOssForCausalLM"],
        vocab_size=96,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        num_local_experts=3,
        num_experts_per_tok=2,
        layer_types=["sliding_attention", "full_attention"],
        pad_token_id=0,
        dtype=BF16,
    )
    model = AutoModelForCausalLM.from_config(config, dtype=F32)
    randomize(model, seed)
    model.to(BF16)
    tensors, packed = {}, []
    for name, value in model.state_dict().items():
        if name.endswith(("gate_up_proj", "down_proj")):
            blocks, scales = pack(value.transpose(1, 2), ScaleCalculationMode.RCEIL)
            tensors[f"{name}_blocks"], tensors[f"{name}_scales"] = blocks, scales
            packed.append(name)
        else:
            tensors[name] = value.contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    values = config.to_dict()
    values["quantization_config"] = {
        "quant_method": "mxfp4",
        "modules_to_not_convert": [
            "model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head",
        ],
    }
    write_json(folder / "config.json", values)
    loaded = AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=Mxfp4Config(dequantize=True), dtype=F32
    ).state_dict()
    save_file({name: loaded[name].to(F32).contiguous() for name in packed}, folder / "expected.safetensors")
    print("gpt_oss", packed[0], tuple(loaded[packed[0]].shape), loaded[packed[0]].dtype)


def main():
    make_llama("ceil", ScaleCalculationMode.RCEIL, BF16, ["lm_head"], 901)
    make_llama("floor", ScaleCalculationMode.FLOOR, F16, ["lm_head", "q_proj", "layers.0.mlp.down_proj"], 902)
    make_gpt_oss(903)


if __name__ == "__main__":
    main()

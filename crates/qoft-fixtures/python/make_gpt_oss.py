"""data/models/gpt_oss*: tiny random models with sinks of attention and experts in one tensor, in f32; files as in
make_models.py. In gpt_oss_mxfp4 the experts are packed as OpenAI's are, and expected.json has the values of the
model with the same numbers in f32.

gpt_oss has default_rope.json: its configuration without rotary positions, and the loss that it has then.
"""

from common import random_rows, randomize, write_json
from make_models import BASE, VOCAB, expected, load, save

import json

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

YARN = {"rope_type": "yarn", "factor": 4.0, "beta_fast": 8.0, "beta_slow": 1.0, "truncate": False}
# case: changes to BASE
CASES = {
    "gpt_oss": dict(
        num_hidden_layers=3,
        head_dim=12,
        sliding_window=7,
        num_local_experts=5,
        num_experts_per_tok=2,
        max_position_embeddings=128,
        rope_parameters=YARN | {"rope_theta": 150.0, "original_max_position_embeddings": 32},
        swiglu_limit=1.5,
    ),
    "gpt_oss_options": dict(
        head_dim=8,
        num_key_value_heads=4,
        layer_types=["full_attention", "sliding_attention"],
        sliding_window=5,
        num_local_experts=3,
        num_experts_per_tok=3,
        attention_bias=False,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
        swiglu_alpha=1.1,
        swiglu_limit=0.75,
        tie_word_embeddings=True,
        rms_norm_eps=1e-3,
    ),
    "gpt_oss_mxfp4": dict(
        intermediate_size=64,
        sliding_window=9,
        num_local_experts=4,
        num_experts_per_tok=2,
        rope_parameters=YARN | {"rope_theta": 150.0, "original_max_position_embeddings": 16},
    ),
}
# Twice the numbers E2M1 from 0 on.
FP4 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])


def pack(weight):
    """Blocks and scales of `[experts, in, out]`: the nearest numbers, with scales that cut off nothing."""
    rows = weight.transpose(1, 2).contiguous()
    groups = rows.reshape(*rows.shape[:2], -1, 32)
    exponents = torch.ceil(torch.log2(groups.abs().amax(-1, keepdim=True) / 6.0))
    scaled = groups / 2.0**exponents
    codes = (scaled.abs()[..., None] - FP4).abs().argmin(-1) + 8 * (scaled < 0)
    blocks = codes[..., ::2] + 16 * codes[..., 1::2]
    return blocks.to(torch.uint8), (exponents[..., 0] + 127).to(torch.uint8)


def make_packed(folder):
    """Packs the experts of a folder, and gives it the numbers that they stand for. What was packed."""
    tensors = load_file(folder / "model.safetensors")
    packed = {}
    for name in [name for name in tensors if name.endswith(("gate_up_proj", "down_proj"))]:
        blocks, scales = pack(tensors[name])
        packed |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        dense = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32).contiguous()
        assert (dense - tensors[name]).abs().max() < 0.5
        tensors[name] = dense
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    others = {name: value for name, value in tensors.items() if f"{name}_blocks" not in packed}
    return others | packed


def main():
    for number, (case, changes) in enumerate(CASES.items()):
        config = AutoConfig.for_model("gpt_oss", **(BASE | changes))
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
        randomize(model, 450 + number)
        with torch.no_grad():
            for layer in model.model.layers:
                # Sinks that matter; biases of experts are matrices, one row for each.
                layer.self_attn.sinks.mul_(5.0)
        folder = save(model, case)
        packed = make_packed(folder) if case == "gpt_oss_mxfp4" else None
        rows = random_rows([61, 43, 6], VOCAB, 750 + number)
        values = expected(load(folder), rows)
        assert max(values["logits_row0_last"]) - min(values["logits_row0_last"]) > 1.0
        write_json(folder / "expected.json", values)
        print(f"{case:24} loss {values['loss']:.4f}")
        config = json.loads((folder / "config.json").read_text())
        if packed:
            save_file(packed, folder / "model.safetensors", metadata={"format": "pt"})
            skips = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
            config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": skips}
            write_json(folder / "config.json", config)
        if case == "gpt_oss":
            rope = config.pop("rope_parameters")
            config |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope}
            config["torch_dtype"] = config.pop("dtype")
            write_json(folder / "config_legacy.json", config)
            legacy = AutoConfig.from_pretrained(folder / "config_legacy.json")
            assert expected(load(folder, config=legacy), rows) == values
            config = {key: value for key, value in config.items() if not key.startswith("rope")}
            write_json(folder / "default_rope.json", config)
            default = AutoConfig.from_pretrained(folder / "default_rope.json")
            assert default.rope_parameters["factor"] == 32.0 and default.rope_parameters["rope_theta"] == 150000.0
            loss = expected(load(folder, config=default), rows)["loss"]
            assert abs(loss - values["loss"]) > 1e-3
            write_json(folder / "default_rope.json", {"config": config, "loss": loss})


if __name__ == "__main__":
    main()

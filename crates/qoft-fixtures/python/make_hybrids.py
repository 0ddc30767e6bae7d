"""data/models/{lfm2,qwen3_5}*: tiny random models whose layers are of several kinds, in f32; files as in
make_models.py. Rows are longer than two chunks of the delta rule.

qwen3_5 and qwen3_5_moe are folders of models that read pictures as well, of which text is computed only, with
tensors of a head for several tokens at once, which transformers does not read.
"""

from common import random_rows, randomize, write_json
from make_models import BASE, VOCAB, expected, load, rope, save

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    Qwen3_5MoeConfig,
    Qwen3_5MoeForConditionalGeneration,
)

QWEN = dict(
    head_dim=16,
    linear_num_key_heads=2,
    linear_num_value_heads=4,
    linear_key_head_dim=8,
    linear_value_head_dim=6,
)
EXPERTS = dict(
    moe_intermediate_size=24,
    shared_expert_intermediate_size=40,
    num_experts=6,
    num_experts_per_tok=2,
)
# case: (model_type, changes to BASE)
CASES = {
    "lfm2": (
        "lfm2",
        dict(
            num_hidden_layers=4,
            layer_types=["conv", "conv", "full_attention", "conv"],
            intermediate_size=70,
            conv_L_cache=4,
            block_multiple_of=8,
            block_ffn_dim_multiplier=1.3,
            norm_eps=1e-3,
        ),
    ),
    "lfm2_options": (
        "lfm2",
        dict(
            num_hidden_layers=3,
            full_attn_idxs=[0, 2],
            head_dim=12,
            conv_bias=True,
            conv_L_cache=2,
            block_ff_dim=48,
            block_auto_adjust_ff_dim=False,
            tie_embedding=False,
        )
        | rope("linear", 300.0, factor=4.0),
    ),
    "qwen3_5_text": ("qwen3_5_text", QWEN | dict(num_hidden_layers=4)),
    "qwen3_5_text_options": (
        "qwen3_5_text",
        QWEN
        | dict(
            num_hidden_layers=3,
            layer_types=["full_attention", "linear_attention", "linear_attention"],
            linear_num_key_heads=3,
            linear_num_value_heads=3,
            linear_key_head_dim=5,
            linear_value_head_dim=12,
            linear_conv_kernel_dim=2,
            hidden_act="gelu_pytorch_tanh",
            attention_bias=True,
            tie_word_embeddings=True,
            rms_norm_eps=1e-3,
        )
        | rope("linear", 300.0, factor=4.0, partial_rotary_factor=0.5),
    ),
    "qwen3_5_moe_text": ("qwen3_5_moe_text", QWEN | EXPERTS | dict(num_hidden_layers=2, full_attention_interval=2)),
}
PARTS = {
    "qwen3_5": (Qwen3_5Config, Qwen3_5ForConditionalGeneration, QWEN),
    "qwen3_5_moe": (Qwen3_5MoeConfig, Qwen3_5MoeForConditionalGeneration, QWEN | EXPERTS),
}
VISION = dict(
    depth=1,
    hidden_size=16,
    intermediate_size=24,
    num_heads=2,
    patch_size=4,
    temporal_patch_size=1,
    out_hidden_size=32,
    num_position_embeddings=16,
)


def make(case, model, number):
    folder = save(model, case)
    lengths = [57, 21, 6] if case.startswith("lfm2") else [139, 70, 9]
    rows = random_rows(lengths, VOCAB, 1200 + number)
    values = expected(load(folder), rows)
    assert max(values["logits_row0_last"]) - min(values["logits_row0_last"]) > 1.0
    write_json(folder / "expected.json", values)
    print(f"{case:24} loss {values['loss']:.4f}")
    return folder, values


def randomized(model, seed):
    """As in other models; norms with a unit offset near one, and decays from fast to slow."""
    randomize(model, seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "visual" in name or "lfm2" in model.config.model_type:
                continue
            if "norm" in name and "linear_attn" not in name:
                parameter -= 1.0
            if name.endswith("A_log"):
                parameter -= torch.linspace(0.0, 4.0, len(parameter))
    return model


def make_part(case, number):
    kind, of_class, options = PARTS[case]
    kinds = ["linear_attention", "full_attention", "linear_attention"]
    text = BASE | options | dict(num_hidden_layers=3, layer_types=kinds)
    config = kind(text_config=text, vision_config=VISION, image_token_id=60, video_token_id=61)
    config._attn_implementation = "eager"
    folder, values = make(case, randomized(of_class(config), 920 + number), 20 + number)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors["mtp.norm.weight"] = torch.ones(32)
    tensors["mtp.layers.0.self_attn.q_proj.weight"] = torch.ones(128, 32)
    save_file(tensors, file, metadata={"format": "pt"})
    assert expected(load(folder), values["rows"]) == values


def main():
    for number, (case, (kind, changes)) in enumerate(CASES.items()):
        config = AutoConfig.for_model(kind, **(BASE | changes))
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
        make(case, randomized(model, 900 + number), number)
    for number, case in enumerate(PARTS):
        make_part(case, number)


if __name__ == "__main__":
    main()

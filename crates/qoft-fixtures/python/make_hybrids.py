"""data/models/{lfm2,qwen3_5,gemma4}*: tiny random models whose layers are of several kinds, in f32; files as in
make_models.py. Rows are longer than two chunks of the delta rule.

qwen3_5 and qwen3_5_moe are folders of models that read pictures as well, of which text is computed only, with
tensors of a head for several tokens at once, which transformers does not read. gemma4_text has config_hub.json, the
same configuration as files of the Hub have it, and tensors of keys and values that no layer reads.
"""

from common import random_rows, randomize, write_json
from make_models import BASE, VOCAB, expected, load, rope, save

import json

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma4Config,
    Gemma4ForConditionalGeneration,
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
GEMMA = dict(
    num_hidden_layers=6,
    layer_types=["sliding_attention", "full_attention"] * 3,
    sliding_window=5,
    head_dim=8,
    global_head_dim=16,
    num_kv_shared_layers=2,
    vocab_size_per_layer_input=64,
    hidden_size_per_layer_input=8,
)
CASES["gemma4_text"] = (
    "gemma4_text",
    GEMMA
    | dict(
        num_global_key_value_heads=1,
        attention_k_eq_v=True,
        use_double_wide_mlp=True,
        final_logit_softcapping=2.5,
        rope_parameters={
            "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.375, "rope_theta": 300.0, "factor": 2.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
        },
    ),
)
CASES["gemma4_text_options"] = (
    "gemma4_text",
    GEMMA
    | dict(
        num_hidden_layers=3,
        layer_types=["full_attention", "sliding_attention", "sliding_attention"],
        num_kv_shared_layers=0,
        hidden_size_per_layer_input=0,
        attention_bias=True,
        hidden_activation="silu",
        tie_word_embeddings=False,
        rms_norm_eps=1e-3,
    ),
)
PARTS = {
    "qwen3_5": (Qwen3_5Config, Qwen3_5ForConditionalGeneration, QWEN),
    "qwen3_5_moe": (Qwen3_5MoeConfig, Qwen3_5MoeForConditionalGeneration, QWEN | EXPERTS),
    "gemma4": (Gemma4Config, Gemma4ForConditionalGeneration, GEMMA),
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
GEMMA_VISION = dict(
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=2,
    head_dim=8,
    patch_size=4,
    position_embedding_size=64,
)


def make(case, model, number):
    folder = save(model, case)
    lengths = [139, 70, 9] if case.startswith("qwen") else [57, 21, 6]
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
            if "visual" in name or "gemma4" in model.config.model_type or "lfm2" in model.config.model_type:
                continue
            if "norm" in name and "linear_attn" not in name:
                parameter -= 1.0
            if name.endswith("A_log"):
                parameter -= torch.linspace(0.0, 4.0, len(parameter))
        # A head's scores are not divided by anything.
        for name, parameter in model.named_parameters():
            if "gemma4" in model.config.model_type and name.endswith("q_norm.weight"):
                parameter *= 0.4
        for number, (name, buffer) in enumerate(model.named_buffers()):
            if name.endswith("layer_scalar"):
                buffer.fill_(0.8 + 0.05 * (number % 7))
    return model


def make_hub(folder, values):
    """The configuration under other keys, and tensors of layers that read those of others."""
    config = json.loads((folder / "config.json").read_text())
    del config["per_layer_config"]
    write_json(folder / "config_hub.json", config | dict(global_head_dim=16, num_global_key_value_heads=1))
    again = load(folder, config=AutoConfig.from_pretrained(folder / "config_hub.json"))
    assert expected(again, values["rows"]) == values
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.5.self_attn.k_proj.weight"] = torch.ones(16, 32)
    tensors["model.layers.5.self_attn.k_norm.weight"] = torch.ones(16)
    save_file(tensors, file, metadata={"format": "pt"})
    assert expected(load(folder), values["rows"]) == values


def make_part(case, number):
    kind, of_class, options = PARTS[case]
    kinds = ["linear_attention", "full_attention", "linear_attention"]
    text = BASE | options | dict(num_hidden_layers=3, layer_types=kinds)
    if case == "gemma4":
        # Tokens of pictures have the embedding of the padding: none of the rows has one.
        config = kind(text_config=BASE | options, vision_config=GEMMA_VISION)
    else:
        config = kind(text_config=text, vision_config=VISION, image_token_id=60, video_token_id=61)
    config._attn_implementation = "eager"
    folder, values = make(case, randomized(of_class(config), 920 + number), 20 + number)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    if case == "gemma4":
        return
    tensors["mtp.norm.weight"] = torch.ones(32)
    tensors["mtp.layers.0.self_attn.q_proj.weight"] = torch.ones(128, 32)
    save_file(tensors, file, metadata={"format": "pt"})
    assert expected(load(folder), values["rows"]) == values


def main():
    for number, (case, (kind, changes)) in enumerate(CASES.items()):
        config = AutoConfig.for_model(kind, **(BASE | changes))
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
        made = make(case, randomized(model, 900 + number), number)
        if case == "gemma4_text":
            make_hub(*made)
    for number, case in enumerate(PARTS):
        make_part(case, number)


if __name__ == "__main__":
    main()

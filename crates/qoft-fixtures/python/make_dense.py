"""data/models/{seed_oss,olmo3,glm4,exaone4,hunyuan_v1_dense,ministral3,cohere2,granitemoehybrid,starcoder2}*: tiny
random models, dense but for granitemoehybrid_experts, in f32; files as in make_models.py.

config_legacy.json of olmo3 has one `rope_theta` and one `rope_scaling` for layers of both kinds; those of olmo3,
exaone4 and cohere2 leave out the kinds of the layers.
"""

from common import random_rows, randomize, write_json
from make_models import BASE, VOCAB, expected, legacy, load, rope, save

import json

import torch
from transformers import AutoConfig, AutoModelForCausalLM

YARN = dict(
    rope_type="yarn",
    factor=8.0,
    original_max_position_embeddings=8,
    attention_factor=1.2,
    beta_fast=16.0,
    beta_slow=1.0,
)
LLAMA3 = dict(factor=16.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)
GRANITE = dict(
    shared_intermediate_size=48,
    embedding_multiplier=6.0,
    attention_multiplier=0.25,
    residual_multiplier=0.4,
    logits_scaling=1.7,
    # Of layers that there are none of.
    mamba_n_heads=4,
)
# case: (seed, model_type, changes to BASE)
CASES = {
    "seed_oss": (400, "seed_oss", dict(head_dim=12, **rope("default", 2000.0))),
    "seed_oss_options": (
        401,
        "seed_oss",
        dict(
            head_dim=None,
            attention_bias=False,
            attention_out_bias=True,
            mlp_bias=True,
            attention_dropout=0.0,
            residual_dropout=0.0,
            tie_word_embeddings=True,
        ),
    ),
    "olmo3": (
        402,
        "olmo3",
        dict(
            num_hidden_layers=4,
            sliding_window=9,
            # As older files have it, whose base counts in layers that see everything.
            rope_parameters={
                "sliding_attention": {"rope_type": "default", "rope_theta": 500000.0},
                "full_attention": dict(YARN, rope_theta=3000.0),
            },
        ),
    ),
    "olmo3_options": (
        403,
        "olmo3",
        dict(
            num_hidden_layers=3,
            layer_types=["full_attention", "sliding_attention", "full_attention"],
            sliding_window=5,
            attention_bias=True,
            tie_word_embeddings=True,
            rope_parameters={
                "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
                "full_attention": {"rope_type": "linear", "factor": 3.0, "rope_theta": 700.0},
            },
        ),
    ),
    "glm4": (404, "glm4", dict(head_dim=12)),
    "glm4_options": (
        405,
        "glm4",
        dict(
            head_dim=8,
            num_key_value_heads=4,
            attention_bias=False,
            tie_word_embeddings=True,
            **rope("linear", 500.0, factor=2.0, partial_rotary_factor=1.0),
        ),
    ),
    "exaone4": (
        406,
        "exaone4",
        dict(num_hidden_layers=4, sliding_window=7, **rope("llama3", 5000.0, **LLAMA3)),
    ),
    "exaone4_types": (
        407,
        "exaone4",
        dict(
            num_hidden_layers=3,
            sliding_window=5,
            sliding_window_pattern="LG",
            layer_types=["sliding_attention", "full_attention", "full_attention"],
            head_dim=12,
            num_key_value_heads=1,
            tie_word_embeddings=True,
        ),
    ),
    "exaone4_full": (
        408,
        "exaone4",
        dict(sliding_window=None, layer_types=["full_attention", "full_attention"], **rope("default", 300.0)),
    ),
    "hunyuan": (409, "hunyuan_v1_dense", dict(head_dim=12, **rope("dynamic", 50.0, factor=1.0, alpha=8.0))),
    "hunyuan_options": (
        410,
        "hunyuan_v1_dense",
        dict(
            head_dim=8,
            num_key_value_heads=4,
            attention_bias=True,
            tie_word_embeddings=True,
            **rope("linear", 700.0, factor=2.0),
        ),
    ),
    "ministral3": (
        411,
        "ministral3",
        dict(
            head_dim=12,
            **rope(
                "yarn",
                3000.0,
                factor=16.0,
                original_max_position_embeddings=8,
                max_position_embeddings=64,
                beta_fast=32.0,
                beta_slow=1.0,
                mscale=1.0,
                mscale_all_dim=1.0,
                llama_4_scaling_beta=0.4,
            ),
        ),
    ),
    "ministral3_options": (
        412,
        "ministral3",
        dict(
            head_dim=8,
            sliding_window=11,
            tie_word_embeddings=True,
            **rope("default", 100.0, original_max_position_embeddings=10, llama_4_scaling_beta=0.2),
        ),
    ),
    "cohere2": (
        413,
        "cohere2",
        dict(num_hidden_layers=5, sliding_window=9, logit_scale=0.75, **rope("linear", 3000.0, factor=2.0)),
    ),
    "cohere2_options": (
        414,
        "cohere2",
        dict(
            num_hidden_layers=3,
            layer_types=["full_attention", "sliding_attention", "sliding_attention"],
            sliding_window=5,
            num_key_value_heads=4,
            attention_bias=True,
            layer_norm_eps=1e-2,
            logit_scale=1.3,
            tie_word_embeddings=False,
            **rope("linear", 300.0, factor=2.0),
        ),
    ),
    "granitemoehybrid": (
        415,
        "granitemoehybrid",
        GRANITE
        | dict(
            layer_types=["attention", "attention"],
            num_local_experts=0,
            position_embedding_type="rope",
            tie_word_embeddings=True,
            **rope("default", 500.0),
        ),
    ),
    "granitemoehybrid_experts": (
        416,
        "granitemoehybrid",
        GRANITE
        | dict(
            layer_types=["full_attention", "full_attention"],
            num_local_experts=6,
            num_experts_per_tok=3,
            attention_bias=True,
        ),
    ),
    "starcoder2": (417, "starcoder2", dict(sliding_window=9)),
    "starcoder2_options": (
        418,
        "starcoder2",
        dict(
            num_key_value_heads=4,
            use_bias=False,
            hidden_act="relu",
            norm_epsilon=1e-2,
            tie_word_embeddings=False,
            **rope("linear", 300.0, factor=3.0),
        ),
    ),
}


def by_layer_type(config):
    """config.json of olmo3 before version 5; the base is that of layers that see everything."""
    config = dict(config)
    full = dict(config.pop("rope_parameters")["full_attention"])
    config["rope_theta"] = full.pop("rope_theta")
    config["rope_scaling"] = full
    config["torch_dtype"] = config.pop("dtype")
    return config


def main():
    for case, (seed, kind, changes) in CASES.items():
        config = AutoConfig.for_model(kind, **(BASE | changes))
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
        randomize(model, seed)
        folder = save(model, case)
        rows = random_rows([45, 21, 6], VOCAB, 500 + seed)
        values = expected(load(folder), rows)
        assert max(values["logits_row0_last"]) - min(values["logits_row0_last"]) > 1.0
        write_json(folder / "expected.json", values)
        config = json.loads((folder / "config.json").read_text())
        old = None
        if kind != "olmo3":
            old = legacy(config)
        elif case == "olmo3":
            old = by_layer_type(config)
        if old is not None:
            if case in ("olmo3", "exaone4", "cohere2"):
                del old["layer_types"]
            write_json(folder / "config_legacy.json", old)
            again = expected(load(folder, config=AutoConfig.from_pretrained(folder / "config_legacy.json")), rows)
            assert again == values, case
        print(f"{case:24} loss {values['loss']:.4f}")


if __name__ == "__main__":
    main()

"""data/models/{qwen3_moe,qwen2_moe,mixtral,olmoe,glm4_moe}*: tiny random mixtures of experts, in f32; files as in
make_models.py.

Folders whose name ends in _fused have the same model with the weights of all experts of a layer in one tensor,
as transformers holds them in memory; the others have each expert by itself, as on the Hub.
"""

from common import generator, random_rows, randomize, write_json
from make_models import BASE, VOCAB, expected, load, save

import torch
from transformers import AutoConfig, AutoModelForCausalLM

# case: (model_type, changes to BASE, whether there is a folder with fused tensors)
CASES = {
    "qwen3_moe": (
        "qwen3_moe",
        dict(
            head_dim=12,
            num_hidden_layers=3,
            mlp_only_layers=[1],
            moe_intermediate_size=24,
            num_experts=6,
            num_experts_per_tok=2,
            norm_topk_prob=True,
        ),
        True,
    ),
    "qwen3_moe_options": (
        "qwen3_moe",
        dict(
            num_hidden_layers=4,
            decoder_sparse_step=2,
            moe_intermediate_size=16,
            num_experts=8,
            num_experts_per_tok=3,
            attention_bias=True,
            use_sliding_window=True,
            sliding_window=7,
            tie_word_embeddings=True,
        ),
        False,
    ),
    "mixtral": ("mixtral", dict(num_local_experts=4, num_experts_per_tok=2, sliding_window=6), True),
    "qwen2_moe": (
        "qwen2_moe",
        dict(
            num_hidden_layers=4,
            num_key_value_heads=4,
            moe_intermediate_size=24,
            shared_expert_intermediate_size=48,
            num_experts=5,
            num_experts_per_tok=2,
            mlp_only_layers=[3],
            use_sliding_window=True,
            sliding_window=5,
            max_window_layers=3,
        ),
        True,
    ),
    "qwen2_moe_options": (
        "qwen2_moe",
        dict(
            moe_intermediate_size=16,
            shared_expert_intermediate_size=24,
            num_experts=6,
            num_experts_per_tok=4,
            norm_topk_prob=True,
            qkv_bias=False,
        ),
        False,
    ),
    "olmoe": ("olmoe", dict(num_experts=8, num_experts_per_tok=3, clip_qkv=1.25), False),
    "olmoe_options": (
        "olmoe",
        dict(num_experts=4, num_experts_per_tok=1, norm_topk_prob=True, attention_bias=True, num_key_value_heads=4),
        False,
    ),
    "glm4_moe": (
        "glm4_moe",
        dict(
            num_hidden_layers=3,
            head_dim=12,
            moe_intermediate_size=24,
            n_routed_experts=8,
            num_experts_per_tok=3,
            n_group=4,
            topk_group=2,
            n_shared_experts=2,
            routed_scaling_factor=1.7,
            use_qk_norm=True,
            rope_parameters={"rope_type": "default", "rope_theta": 300.0, "partial_rotary_factor": 0.5},
        ),
        True,
    ),
    "glm4_moe_options": (
        "glm4_moe",
        dict(
            moe_intermediate_size=16,
            n_routed_experts=6,
            num_experts_per_tok=2,
            first_k_dense_replace=0,
            norm_topk_prob=False,
            attention_bias=True,
            tie_word_embeddings=True,
        ),
        False,
    ),
}
# What routers add where experts are chosen.
CORRECTION = "e_score_correction_bias"


def main():
    for number, (case, (kind, changes, fused)) in enumerate(CASES.items()):
        config = AutoConfig.for_model(kind, **(BASE | changes))
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
        randomize(model, 400 + number)
        for name, buffer in model.named_buffers():
            if name.endswith(CORRECTION):
                buffer.copy_(0.2 * torch.randn(buffer.shape, generator=generator(470 + number)))
        folder = save(model, case)
        rows = random_rows([43, 13, 6], VOCAB, 700 + number)
        values = expected(load(folder), rows)
        assert max(values["logits_row0_last"]) - min(values["logits_row0_last"]) > 1.0
        write_json(folder / "expected.json", values)
        print(f"{case:24} loss {values['loss']:.4f}")
        if fused:
            folder = save(model, f"{case}_fused", save_original_format=False)
            assert expected(load(folder), rows) == values
            write_json(folder / "expected.json", values)


if __name__ == "__main__":
    main()

"""data/models/lfm2*: tiny random models whose layers are of several kinds, in f32; files as in
make_models.py.
"""

from common import random_rows, randomize, write_json
from make_models import BASE, VOCAB, expected, load, rope, save

import torch
from transformers import AutoConfig, AutoModelForCausalLM

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
}


def make(case, model, number):
    folder = save(model, case)
    rows = random_rows([57, 21, 6], VOCAB, 1200 + number)
    values = expected(load(folder), rows)
    assert max(values["logits_row0_last"]) - min(values["logits_row0_last"]) > 1.0
    write_json(folder / "expected.json", values)
    print(f"{case:24} loss {values['loss']:.4f}")
    return folder, values


def main():
    for number, (case, (kind, changes)) in enumerate(CASES.items()):
        config = AutoConfig.for_model(kind, **(BASE | changes))
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
        make(case, randomized(model, 900 + number), number)


def randomized(model, seed):
    randomize(model, seed)
    return model


if __name__ == "__main__":
    main()

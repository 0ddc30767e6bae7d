"""data/models/gemma*: tiny random models of the Gemma family, in f32; files as in make_models.py.

gemma3_text has config_legacy.json: the same configuration as transformers before version 5 wrote it.
gemma3 is a folder of a model that reads pictures as well, of which text is computed only; gemma3_named
is the same with the names that the tensors have in the model, as some versions of transformers wrote
them.
"""

from common import fresh, random_rows, randomize, write_json
from make_models import BASE, VOCAB, expected, load, save

import json

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, Gemma3Config, Gemma3ForConditionalGeneration

ROPES = {
    "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5000.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
}
TEXT = dict(
    head_dim=12,
    num_hidden_layers=4,
    layer_types=["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
    sliding_window=4,
    query_pre_attn_scalar=20,
    rope_parameters=ROPES,
)
# case: (model_type, changes to BASE)
CASES = {
    "gemma": ("gemma", dict(head_dim=12, num_key_value_heads=1, hidden_act="gelu")),
    "gemma2": (
        "gemma2",
        dict(
            head_dim=12,
            num_hidden_layers=3,
            sliding_window=5,
            query_pre_attn_scalar=20,
            attn_logit_softcapping=1.5,
            final_logit_softcapping=2.5,
        ),
    ),
    "gemma2_options": (
        "gemma2",
        dict(
            head_dim=8,
            num_key_value_heads=4,
            layer_types=["full_attention", "sliding_attention"],
            sliding_window=6,
            attn_logit_softcapping=None,
            final_logit_softcapping=None,
            attention_bias=True,
            hidden_activation="relu",
            tie_word_embeddings=False,
        ),
    ),
    "gemma3_text": ("gemma3_text", TEXT),
}
VISION = dict(
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=1,
    num_attention_heads=2,
    image_size=8,
    patch_size=4,
)
# Names as files have them, and as the model has them.
NAMES = {
    "language_model.model.": "model.language_model.",
    "vision_tower.": "model.vision_tower.",
    "multi_modal_projector.": "model.multi_modal_projector.",
}


def random(model, seed):
    """As in other models, with norms near one: their weights are the differences from that."""
    randomize(model, seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name and "vision" not in name:
                parameter -= 1.0
    return model


def make(case, model, seed):
    folder = save(random(model, seed), case)
    rows = random_rows([21, 13, 6], VOCAB, 500 + seed)
    values = expected(load(folder), rows)
    assert max(values["logits_row0_last"]) - min(values["logits_row0_last"]) > 1.0
    write_json(folder / "expected.json", values)
    print(f"{case:24} loss {values['loss']:.4f}")
    return folder, rows, values


def make_legacy(folder, rows, values):
    config = json.loads((folder / "config.json").read_text())
    ropes = config.pop("rope_parameters")
    full = ropes["full_attention"]
    config["rope_theta"] = full.pop("rope_theta")
    config["rope_scaling"] = full
    config["rope_local_base_freq"] = ropes["sliding_attention"]["rope_theta"]
    config["torch_dtype"] = config.pop("dtype")
    config.pop("layer_types")
    config["sliding_window_pattern"] = 3
    write_json(folder / "config_legacy.json", config)
    again = expected(load(folder, config=AutoConfig.from_pretrained(folder / "config_legacy.json")), rows)
    assert again == values


def make_named(folder, values):
    named = fresh("models", "gemma3_named")
    write_json(named / "config.json", json.loads((folder / "config.json").read_text()))

    def name(tensor):
        prefix = next(prefix for prefix in NAMES if tensor.startswith(prefix))
        return NAMES[prefix] + tensor[len(prefix) :]

    tensors = {name(k): v for k, v in load_file(folder / "model.safetensors").items()}
    save_file(tensors, named / "model.safetensors", metadata={"format": "pt"})
    assert expected(load(named), values["rows"]) == values
    write_json(named / "expected.json", values)


def main():
    for number, (case, (kind, changes)) in enumerate(CASES.items()):
        config = AutoConfig.for_model(kind, **(BASE | changes))
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
        made = make(case, model, 300 + number)
        if case == "gemma3_text":
            make_legacy(*made)
    config = Gemma3Config(text_config=BASE | TEXT, vision_config=VISION, mm_tokens_per_image=4, image_token_index=60)
    config._attn_implementation = "eager"
    folder, _, values = make("gemma3", Gemma3ForConditionalGeneration(config), 310)
    make_named(folder, values)


if __name__ == "__main__":
    main()

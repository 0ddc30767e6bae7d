"""data/models/mistral3*: tiny random models that read pictures as well, of which text is computed only, in f32; files
as in make_models.py. The text part is a ministral3 in mistral3, a mistral in mistral3_mistral, and a llama in
mistral3_llama, which has the names that the tensors have in the model.
"""

from common import random_rows, randomize, write_json
from make_models import BASE, VOCAB, expected, load, save

import torch
from safetensors.torch import load_file, save_file
from transformers import Mistral3Config, Mistral3ForConditionalGeneration

VISION = dict(
    model_type="pixtral",
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=1,
    num_attention_heads=2,
    head_dim=8,
    image_size=8,
    patch_size=4,
)
YARN = dict(
    rope_type="yarn",
    rope_theta=150.0,
    factor=4.0,
    beta_fast=8.0,
    beta_slow=1.0,
    mscale=1.0,
    mscale_all_dim=1.0,
    original_max_position_embeddings=16,
    llama_4_scaling_beta=0.3,
)
# case: (changes to BASE, whether head and embedding table are one)
CASES = {
    "mistral3": (dict(model_type="ministral3", head_dim=12, num_hidden_layers=3, rope_parameters=YARN), True),
    "mistral3_mistral": (dict(model_type="mistral", sliding_window=9, num_key_value_heads=1), False),
    "mistral3_llama": (dict(model_type="llama", attention_bias=True, mlp_bias=True), False),
}
# Names as files have them, and as the model has them.
NAMES = {
    "language_model.model.": "model.language_model.",
    "language_model.lm_head.": "lm_head.",
    "vision_tower.": "model.vision_tower.",
    "multi_modal_projector.": "model.multi_modal_projector.",
}


def rename(folder):
    file = folder / "model.safetensors"

    def name(tensor):
        prefix = next(prefix for prefix in NAMES if tensor.startswith(prefix))
        return NAMES[prefix] + tensor[len(prefix) :]

    tensors = {name(k): v for k, v in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})


def main():
    for number, (case, (changes, tied)) in enumerate(CASES.items()):
        text = BASE | changes
        config = Mistral3Config(
            text_config=text, vision_config=VISION, image_token_index=60, tie_word_embeddings=tied, spatial_merge_size=2
        )
        config._attn_implementation = "eager"
        model = Mistral3ForConditionalGeneration(config).to(torch.float32)
        randomize(model, 480 + number)
        folder = save(model, case)
        assert all(name.startswith(tuple(NAMES)) for name in load_file(folder / "model.safetensors"))
        if case == "mistral3_llama":
            rename(folder)
        rows = random_rows([61, 43, 6], VOCAB, 780 + number)
        rows = [[token if token != 60 else 61 for token in row] for row in rows]
        values = expected(load(folder), rows)
        assert values == expected(model.eval(), rows)
        assert max(values["logits_row0_last"]) - min(values["logits_row0_last"]) > 1.0
        write_json(folder / "expected.json", values)
        print(f"{case:24} loss {values['loss']:.4f}")


if __name__ == "__main__":
    main()

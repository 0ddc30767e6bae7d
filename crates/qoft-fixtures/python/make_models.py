"""data/models/<case>: tiny random causal language models of the supported families, in f32.

Each folder holds config.json, the weights, and expected.json:
  rows              token ids, rows of different length
  input_ids         the same rows padded on the right with 0, and
  attention_mask    the mask that goes with them
  loss              mean next-token cross entropy over all predicted tokens of the padded batch
  row_losses        the mean of each row
  logits_row0_last  logits at the last position of row 0, the longest row

Models with rotary scaling also have config_legacy.json: the same configuration with `rope_theta`
and `rope_scaling` as transformers before version 5 wrote them.

gpt2_bare is saved as OpenAI's GPT-2 is: without the prefix `transformer.`, and with the buffers that
transformers wrote before version 4.
"""

from common import fresh, losses, pad, random_rows, randomize, write_json

import json

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, GPT2Config

VOCAB = 64
BASE = dict(
    vocab_size=VOCAB,
    hidden_size=32,
    intermediate_size=40,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
)


def rope(kind, theta=10000.0, **values):
    return {"rope_parameters": {"rope_type": kind, "rope_theta": theta} | values}


LONG = [1.0, 1.5, 2.0, 3.5]
SHORT = [1.0, 1.05, 1.1, 1.2]

# case: (model_type, changes to BASE)
CASES = {
    "llama": ("llama", dict(tie_word_embeddings=True)),
    "llama_head_dim": ("llama", dict(head_dim=12, num_key_value_heads=1, **rope("default", 5000.0))),
    "llama_bias": ("llama", dict(attention_bias=True, mlp_bias=True, num_key_value_heads=4)),
    "llama_rope_llama3": (
        "llama",
        dict(tie_word_embeddings=True)
        | rope(
            "llama3",
            500000.0,
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=16,
        ),
    ),
    "llama_rope_linear": ("llama", rope("linear", factor=4.0)),
    # The rows are longer than max_position_embeddings, so that the base of the whole batch grows.
    "llama_rope_dynamic": ("llama", dict(max_position_embeddings=12) | rope("dynamic", factor=2.0)),
    "llama_rope_yarn": ("llama", rope("yarn", factor=4.0, original_max_position_embeddings=16)),
    "llama_rope_yarn_options": (
        "llama",
        rope(
            "yarn",
            factor=8.0,
            original_max_position_embeddings=8,
            attention_factor=1.3,
            beta_fast=16.0,
            beta_slow=2.0,
        ),
    ),
    "mistral": ("mistral", dict(sliding_window=5)),
    "qwen2": ("qwen2", dict(tie_word_embeddings=True)),
    "qwen2_sliding": (
        "qwen2",
        dict(use_sliding_window=True, sliding_window=4, max_window_layers=1, num_hidden_layers=3),
    ),
    "qwen3": ("qwen3", dict(head_dim=12, tie_word_embeddings=True)),
    "smollm3": ("smollm3", dict(num_hidden_layers=3, no_rope_layers=[1, 0, 1], tie_word_embeddings=True)),
    "olmo2": ("olmo2", dict(num_key_value_heads=4)),
    "granite": (
        "granite",
        dict(
            embedding_multiplier=6.0,
            attention_multiplier=0.25,
            residual_multiplier=0.4,
            logits_scaling=1.7,
            tie_word_embeddings=True,
        ),
    ),
    "phi3": ("phi3", {}),
    # Row 0 is longer than the original 16 positions, so the whole batch takes the long factors.
    "phi3_partial_longrope": (
        "phi3",
        dict(num_attention_heads=2, num_key_value_heads=1, original_max_position_embeddings=16)
        | rope("longrope", long_factor=LONG, short_factor=SHORT, partial_rotary_factor=0.5),
    ),
    "phi3_partial": ("phi3", dict(sliding_window=6) | rope("default", partial_rotary_factor=0.5)),
}

# GPT-2's configuration has names of its own: case: (seed, changes to GPT2).
GPT2 = dict(
    vocab_size=VOCAB,
    n_embd=32,
    n_layer=2,
    n_head=4,
    n_positions=32,
    resid_pdrop=0.0,
    embd_pdrop=0.0,
    attn_pdrop=0.0,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
)
GPT2_CASES = {
    "gpt2": (200, dict(n_inner=40)),
    "gpt2_bare": (201, dict(activation_function="gelu")),
    "gpt2_options": (
        202,
        dict(
            n_inner=48,
            n_layer=3,
            activation_function="relu",
            layer_norm_epsilon=1e-3,
            scale_attn_weights=False,
            scale_attn_by_inverse_layer_idx=True,
            reorder_and_upcast_attn=True,
            tie_word_embeddings=False,
        ),
    ),
    "gpt2_silu": (203, dict(activation_function="silu", n_inner=24, n_layer=1)),
    "gpt2_tanh": (204, dict(activation_function="tanh", n_inner=24, n_layer=1)),
}


def legacy(config):
    """config.json as transformers 4 wrote it, or None when nothing is scaled."""
    config = dict(config)
    parameters = dict(config.pop("rope_parameters"))
    kind = parameters.get("rope_type", "default")
    if kind == "default" and "partial_rotary_factor" not in parameters:
        return None
    config["rope_theta"] = parameters.pop("rope_theta")
    if "partial_rotary_factor" in parameters:
        config["partial_rotary_factor"] = parameters.pop("partial_rotary_factor")
    config["torch_dtype"] = config.pop("dtype")
    config["rope_scaling"] = None
    if kind != "default":
        if config["model_type"] == "phi3":
            parameters.pop("original_max_position_embeddings", None)
            parameters["type"] = parameters.pop("rope_type")
        config["rope_scaling"] = parameters
    return config


def expected(model, rows):
    loss, row_losses, logits = losses(model, rows)
    ids, mask, _ = pad(rows)
    return {
        "rows": rows,
        "input_ids": ids.tolist(),
        "attention_mask": mask.tolist(),
        "loss": loss,
        "row_losses": row_losses,
        "logits_row0_last": logits[0, len(rows[0]) - 1].tolist(),
    }


def save(model, case, **options):
    folder = fresh("models", case)
    model.save_pretrained(folder, **options)
    (folder / "generation_config.json").unlink(missing_ok=True)
    return folder


def auto_class(config):
    """The class that loads a model: some that read pictures as well are no causal language models."""
    texts = type(config) in AutoModelForCausalLM._model_mapping
    return AutoModelForCausalLM if texts else AutoModelForImageTextToText


def load(folder, **options):
    kind = auto_class(options.get("config") or AutoConfig.from_pretrained(folder))
    return kind.from_pretrained(folder, attn_implementation="eager", **options).eval()


def save_bare(model, case):
    folder = fresh("models", case)
    model.transformer.save_pretrained(folder)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    size = model.config.n_positions
    for layer in range(model.config.n_layer):
        tensors[f"h.{layer}.attn.bias"] = torch.ones(1, 1, size, size, dtype=torch.uint8).tril()
        tensors[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


def make_gpt2(case, seed, changes):
    config = GPT2Config(**(GPT2 | changes))
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
    randomize(model, seed)
    folder = save_bare(model, case) if case == "gpt2_bare" else save(model, case)
    rows = random_rows([21, 13, 6], VOCAB, 500 + seed)
    values = expected(load(folder), rows)
    assert values == expected(model.eval(), rows)
    assert max(values["logits_row0_last"]) - min(values["logits_row0_last"]) > 1.0
    write_json(folder / "expected.json", values)
    print(f"{case:24} loss {values['loss']:.4f}")


def main():
    for case, (seed, changes) in GPT2_CASES.items():
        make_gpt2(case, seed, changes)
    for number, (case, (kind, changes)) in enumerate(CASES.items()):
        config = AutoConfig.for_model(kind, **(BASE | changes))
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
        randomize(model, 100 + number)
        folder = save(model, case)
        rows = random_rows([21, 13, 6], VOCAB, 500 + number)
        values = expected(load(folder), rows)
        assert max(values["logits_row0_last"]) - min(values["logits_row0_last"]) > 1.0
        write_json(folder / "expected.json", values)

        old = legacy(json.loads((folder / "config.json").read_text()))
        if old is not None:
            write_json(folder / "config_legacy.json", old)
            again = expected(load(folder, config=AutoConfig.from_pretrained(folder / "config_legacy.json")), rows)
            assert again == values, case

        if case == "llama_bias":
            sharded = save(model, "llama_sharded", max_shard_size="40KB")
            assert (sharded / "model.safetensors.index.json").exists()
            write_json(sharded / "expected.json", values)
        print(f"{case:24} loss {values['loss']:.4f}")


if __name__ == "__main__":
    main()

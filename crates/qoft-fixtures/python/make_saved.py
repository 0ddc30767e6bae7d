"""data/saved: adapters that `qoft train` saved, and what PEFT makes of them.

The environment variable QOFT names the program. Each case is trained for two steps with the options
in CASES on the rows of ROWS, and its folder is loaded by PEFT. The script fails if PEFT misses a
value, finds one too many, or adapts other layers than those in the file.

  <case>          adapter_config.json and adapter_model.safetensors as they were saved, but for the path
                  of the model
  expected.json
    data          the rows that were trained on, below data/
    rows          token ids of the evaluation rows
    cases         {case: values}
      model, options  below data/models, and the options of `qoft train`
      base            the mean loss over all predicted tokens without the adapter
      loss            with the adapter, by PEFT; merge_and_unload gives the same but for NOT_MERGED
"""

from common import DATA, fresh, losses, plain_4bit_forward, random_rows, write_json

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from peft import PeftConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

plain_4bit_forward()

TRAINED = "train/qwen2_own_decay/rows.jsonl"
ROWS = random_rows([24, 17, 9], 64, 902)

# Model types without a default in PEFT: the saved folder has to name the layers.
DEFAULTS = {f"default_{model}": (model, []) for model in ("smollm3", "olmo2", "granite", "phi3")}

CASES = DEFAULTS | {
    "default_llama": ("llama", []),
    "default_hra": ("qwen3", ["--peft-type", "hra"]),
    "all_linear": ("llama", ["--target-modules", "all-linear"]),
    "all_linear_hra": ("phi3", ["--peft-type", "hra", "--target-modules", "all-linear"]),
    "all_linear_nf4": ("llama_nf4", ["--target-modules", "all-linear", "--oft-block-size", "16"]),
    # Two layers have fewer linear layers than PEFT begins to shorten lists at.
    "all_linear_layers": (
        "mistral",
        ["--target-modules", "all-linear", "--adapter-option", "layers_to_transform=[1]"],
    ),
    "all_linear_exclude": (
        "qwen2",
        [
            "--target-modules",
            "all-linear",
            "--adapter-option",
            'exclude_modules=["down_proj","model.layers.0.self_attn.o_proj"]',
        ],
    ),
    "names": ("llama", ["--target-modules", "q_proj,layers.1.mlp.down_proj", "--use-cayley-neumann", "false"]),
    "names_layers": (
        "llama",
        ["--target-modules", "q_proj,v_proj", "--adapter-option", "layers_to_transform=0"],
    ),
    "expression": ("olmo2", ["--target-modules", r".*\.layers\.1\..*(up|gate)_proj", "--block-share"]),
    "head_coft": ("llama", ["--target-modules", "lm_head,k_proj", "--coft", "--eps", "0.5"]),
    "embedding": ("llama", ["--target-modules", "embed_tokens,o_proj", "--oft-block-size", "8"]),
    "bias_all": ("llama_bias", ["--bias", "all"]),
    "bias_targets": ("qwen2", ["--bias", "oft_only", "--oft-r", "4"]),
    "bias_hra": ("qwen2", ["--bias", "hra_only", "--peft-type", "hra", "--adapter-option", "apply_GS=true"]),
    "whole": ("qwen2", ["--modules-to-save", "lm_head,model.norm", "--bias", "all"]),
    "whole_block": ("granite", ["--modules-to-save", "layers.1", "--target-modules", "all-linear"]),
}

# PEFT's merge rounds 4-bit weights, changes both layers where a head shares the weight of the table,
# and fails where a whole block is trained.
NOT_MERGED = ("all_linear_nf4", "head_coft", "embedding", "whole_block")


def load(name):
    model = AutoModelForCausalLM.from_pretrained(
        DATA / "models" / name, dtype=torch.float32, device_map="cpu", attn_implementation="eager"
    )
    # A quantized checkpoint keeps the dtype of its dense tensors.
    for parameter in model.parameters():
        if type(parameter) is torch.nn.Parameter and parameter.dtype.is_floating_point:
            parameter.data = parameter.data.float()
    return model.eval()


def train(case):
    model, options = CASES[case]
    with tempfile.TemporaryDirectory() as work:
        out = Path(work, "out")
        command = [os.environ["QOFT"], "train", "--model", DATA / "models" / model, "--data", DATA / TRAINED]
        command += ["--output", out, "--max-steps", "2", "--batch-size", "4", "--learning-rate", "0.05"]
        subprocess.run([*command, *options], check=True, capture_output=True)
        folder = fresh("saved", case)
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            shutil.copy(out / name, folder / name)
    config = folder / "adapter_config.json"
    config.write_text(config.read_text().replace(str(DATA), "../.."))
    return folder


def adapt(name, folder):
    """The model with the adapter; every value has to find its place."""
    model = get_peft_model(load(name), PeftConfig.from_pretrained(folder))
    values = load_file(folder / "adapter_model.safetensors")
    result = set_peft_model_state_dict(model, values)
    assert not result.unexpected_keys, (folder, result.unexpected_keys)
    expected = get_peft_model_state_dict(model)
    # With `bias: all` PEFT's files repeat the biases of modules that are saved whole, and those with an
    # adapter of the embedding or the head repeat the model's table. Ours do not.
    repeated = ("original_module.bias", "base_layer.weight")
    expected = {key: value for key, value in expected.items() if not key.endswith(repeated)}
    assert set(expected) == set(values), (folder, set(expected) ^ set(values))
    for key, value in values.items():
        assert torch.equal(expected[key].float(), value), (folder, key)
    return model.eval()


def evaluate(case):
    name, options = CASES[case]
    folder = train(case)
    values = {"model": name, "options": options, "base": losses(load(name), ROWS)[0]}
    model = adapt(name, folder)
    values["loss"] = losses(model, ROWS)[0]
    assert abs(values["loss"] - values["base"]) > 1e-3, (case, values)
    if case not in NOT_MERGED:
        merged = losses(model.merge_and_unload().eval(), ROWS)[0]
        assert abs(values["loss"] - merged) < 1e-5, (case, values, merged)
    return values


def main():
    root = fresh("saved")
    expected = {"data": TRAINED, "rows": ROWS, "cases": {}}
    for case in CASES:
        expected["cases"][case] = evaluate(case)
        print(f"{case:20} {expected['cases'][case]}")
    write_json(root / "expected.json", expected)


if __name__ == "__main__":
    main()

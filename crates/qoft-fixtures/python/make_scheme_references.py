"""data/schemes/<scheme>/<case>: what the whole models among the checkpoints compute.

A case is a whole model where its tensors include the token embedding. The model is built densely in
f32: the weights of quantized layers from expected.safetensors, all other tensors from the checkpoint,
cast to f32. Each such case gets
  adapter/        a PEFT OFT adapter with random non-zero weights on all linear layers but the output head
  trained/        the adapter after the training described in make_train.py
  reference.json  rows, loss, row_losses          token ids of the evaluation rows, the mean loss over all
                                                  predicted tokens of the padded batch and of each row
                  adapted_loss, adapted_row_losses  the same with the adapter of adapter/
                  train                           the training rows and the values of a losses.json of
                                                  make_train.py
In an inc-fp8 case the inputs of the quantized layers are quantized too, by inc_forward.py.

Arguments name the cases to write (`gptq`, `gptq/int4_desc_act`); without any, all are written.
"""

from common import DATA, fresh, losses, random_rows, write_json
from inc_forward import attach
from make_peft import clean_config, randomize_adapter
from make_train import make_rows, train

import json
import sys
import tempfile
from pathlib import Path

import torch
from peft import OFTConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig

OPTIONS = dict(target_modules="all-linear", oft_block_size=16)
LR, ACCUMULATION, CLIP = 2e-3, 1, 1.0
# A quantized input next to the middle of two float8 numbers rounds either way, depending on the order of
# summation, and the whole training goes another way. With the rows of this seed none is so near.
ROW_SEEDS = {"inc-fp8/gaudi3": 4005}
FLOATS = (torch.float32, torch.float16, torch.bfloat16)


def checkpoint(folder):
    """All tensors of the checkpoint, from one file or from shards; none where it has no such file."""
    tensors = {}
    for file in sorted(folder.glob("model*.safetensors")):
        tensors |= load_file(file)
    return tensors


def configuration(folder):
    """(configuration of the model, quantization_config)."""
    values = json.loads((folder / "config.json").read_text())
    quantization = values.pop("quantization_config", None)
    config = LlamaConfig.from_dict(values)
    assert config.rope_parameters["rope_theta"] == values.get("rope_theta", config.rope_parameters["rope_theta"])
    return config, quantization


def load(folder):
    """The dense f32 model of a case. Fails when a parameter is in neither file."""
    config, quantization = configuration(folder)
    stored, expected = checkpoint(folder), load_file(folder / "expected.safetensors")
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
    tensors = {}
    for name, parameter in model.named_parameters():
        value = expected.get(name, stored.get(name))
        assert value is not None, f"{folder}: {name} is missing"
        assert value.shape == parameter.shape and value.dtype in FLOATS, (name, value.shape, value.dtype)
        tensors[name] = value.to(torch.float32)
    unused = [n for n in expected if n.endswith(".weight") and n not in tensors]
    unused += [n for n, value in stored.items() if n.endswith(".bias") and n not in tensors and value.any()]
    assert not unused, f"{folder}: the model has no {unused}"
    model.load_state_dict(tensors, strict=not config.tie_word_embeddings)
    if folder.parent.name == "inc-fp8":
        attach(model, expected, qdq=quantization["use_qdq"] == "True")
    return model


def evaluate(folder, adapt):
    """(rows, loss, row losses) in f32, checked against f64."""
    rows = random_rows([24, 17, 9], configuration(folder)[0].vocab_size, 900)
    loss, row_losses, _ = losses(adapt(load(folder)).eval(), rows)
    exact = losses(adapt(load(folder)).double().eval(), rows)[0]
    assert abs(loss - exact) < 1e-5, (folder, loss, exact)
    return rows, loss, row_losses


def train_case(folder, adapter):
    """The values of eight steps in f32, checked against f64. The trained adapter goes to `adapter`."""
    rows = make_rows(configuration(folder)[0].vocab_size, ROW_SEEDS.get(f"{folder.parent.name}/{folder.name}", 4000))
    with tempfile.TemporaryDirectory() as unused:
        exact = train(load(folder).double(), rows, OPTIONS, LR, ACCUMULATION, CLIP, Path(unused), "..")
    values = train(load(folder), rows, OPTIONS, LR, ACCUMULATION, CLIP, adapter, "..")
    for key in ("losses", "grad_norms", "final_loss"):
        difference = (torch.tensor(values[key]) - torch.tensor(exact[key])).abs().max().item()
        assert difference < 1e-5, (folder, key, difference)
    return {"rows": rows} | values


def make_case(folder):
    case = folder.relative_to(DATA).parts
    adapter = fresh(*case, "adapter")
    model = get_peft_model(load(folder), OFTConfig(task_type="CAUSAL_LM", **OPTIONS))
    randomize_adapter(model)
    model.save_pretrained(adapter)
    clean_config(adapter, "..")

    rows, loss, row_losses = evaluate(folder, lambda model: model)
    _, adapted_loss, adapted_row_losses = evaluate(folder, lambda model: PeftModel.from_pretrained(model, adapter))
    reference = {
        "rows": rows,
        "loss": loss,
        "row_losses": row_losses,
        "adapted_loss": adapted_loss,
        "adapted_row_losses": adapted_row_losses,
        "train": train_case(folder, fresh(*case, "trained")),
    }
    write_json(folder / "reference.json", reference)
    for file in folder.glob("*/*"):
        file.chmod(0o644)
    steps = reference["train"]["losses"]
    print(f"{'/'.join(case[1:]):36} {loss:.5f}, adapted {adapted_loss:.5f}, trained {steps[0]:.5f} -> {steps[-1]:.5f}")


def main():
    schemes = DATA / "schemes"
    for config in sorted(schemes.glob("*/*/config.json")):
        folder = config.parent
        names = {folder.parent.name, f"{folder.parent.name}/{folder.name}"}
        if "model.embed_tokens.weight" in checkpoint(folder) and (not sys.argv[1:] or names & set(sys.argv[1:])):
            make_case(folder)


if __name__ == "__main__":
    main()

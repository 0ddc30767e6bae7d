"""data/boft: butterfly adapters, made by PEFT.

PEFT multiplies butterflies with a CUDA extension, and takes one factor instead of several where that
cannot be built. Here a function of torch takes its place (`BlockDiagonal`), everything else is PEFT's own
code; with one factor the script checks that PEFT computes the same without it.

  <case>            a PEFT folder with random weights, on data/models/<model>
  layers/<case>     a PEFT folder with random weights for `layer` of a model of one layer, whose weights
                    are in <case>/model.safetensors, and expected.safetensors, computed in float64:
    input           what the layer is given
    base, adapted   its output without the adapter and with it
    merged          its weight after a merge
    grad.boft_R, grad.boft_s   the gradients of sum(adapted * numbers(adapted.shape))
                    A case whose name ends with _alone is made as PEFT makes it where it cannot build its extension:
                    with one factor, whatever the configuration says
  train             the adapter after STEPS steps from its start, and rows.jsonl, whose rows it saw in order
  saved/<case>      adapters that `qoft train` saved, if QOFT names the program: PEFT finds a place for
                    every value
  expected.json
    rows            token ids of the evaluation rows
    cases           {case: {model, base, loss}}: the mean losses over all predicted tokens without and with
                    the adapter; merge_and_unload gives the same
    pairs           the loss with two adapters at once
    selections      what PEFT makes of a configuration: {model, config} with the modules that are `adapted` and
                    the `biases` that train, or `refused`
    train           settings, and for each step the loss before it and the norm of the gradients
    saved           {case: {model, options, loss}}
"""

from common import DATA, fresh, generator, losses, pad, random_rows, write_json

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from make_custom import numbers
from make_peft import clean_config
from make_train import BATCH, make_rows
from peft import BOFTConfig, PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.boft import layer as boft
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM

ROWS = random_rows([24, 17, 9], 64, 903)
STEPS = 6

CASES = {
    "size": ("llama", dict(target_modules=["q_proj", "down_proj"], boft_block_size=4)),
    "number": ("llama", dict(target_modules="all-linear", boft_block_size=0, boft_block_num=4)),
    "two_factors": ("llama", dict(target_modules="all-linear", boft_block_size=4, boft_n_butterfly_factor=2)),
    "three_factors": (
        "qwen3",
        dict(target_modules=["o_proj", "up_proj"], boft_block_size=0, boft_block_num=8, boft_n_butterfly_factor=3),
    ),
    "biases": (
        "llama_bias",
        dict(target_modules="all-linear", boft_block_size=2, boft_n_butterfly_factor=2, bias="boft_only"),
    ),
    "head": ("qwen3", dict(target_modules=["lm_head", "k_proj"], boft_block_size=8)),
    "other": ("llama", dict(target_modules="all-linear", boft_block_size=4, boft_n_butterfly_factor=2)),
}
PAIRS = [("two_factors", "other"), ("other", "two_factors")]

LAYERS = {
    "linear_size": (nn.Linear(48, 10), dict(boft_block_size=4)),
    "linear_odd_size": (nn.Linear(48, 10), dict(boft_block_size=3)),
    "linear_of_ones": (nn.Linear(6, 4), dict(boft_block_size=1)),
    "linear_number": (nn.Linear(48, 10), dict(boft_block_size=0, boft_block_num=3)),
    "linear_one_block": (nn.Linear(12, 7), dict(boft_block_size=0, boft_block_num=1)),
    "linear_two_factors": (nn.Linear(48, 10), dict(boft_block_size=4, boft_n_butterfly_factor=2)),
    "linear_three_factors": (nn.Linear(48, 10), dict(boft_block_size=4, boft_n_butterfly_factor=3)),
    "linear_four_factors": (
        nn.Linear(48, 10, bias=False),
        dict(boft_block_size=0, boft_block_num=8, boft_n_butterfly_factor=4),
    ),
    "linear_alone": (nn.Linear(48, 10), dict(boft_block_size=16, boft_n_butterfly_factor=3)),
    "conv_alone": (nn.Conv2d(3, 4, 2), dict(boft_block_size=4, boft_n_butterfly_factor=2)),
    "conv_size": (nn.Conv2d(4, 6, 3, stride=2, padding=1), dict(boft_block_size=4)),
    "conv_two_factors": (nn.Conv2d(8, 5, 2), dict(boft_block_size=4, boft_n_butterfly_factor=2)),
    "conv_number": (nn.Conv2d(6, 4, 1, bias=False), dict(boft_block_size=0, boft_block_num=3)),
}

SELECTIONS = [
    ("llama_bias", dict()),
    ("llama_bias", dict(target_modules="all-linear", bias="boft_only")),
    ("llama_bias", dict(target_modules=["o_proj"], bias="all")),
    ("llama_bias", dict(target_modules=["o_proj"], bias="some")),
    ("qwen3", dict(target_modules=["k_proj", "layers.1.mlp.up_proj"], exclude_modules=["layers.0.self_attn.k_proj"])),
    ("qwen3", dict(target_modules="all-linear", exclude_modules=".*mlp.*")),
    ("qwen3", dict(target_modules=["q_proj", "v_proj"], layers_to_transform=1)),
    ("qwen3", dict(target_modules=["q_proj"], layers_to_transform=[0], layers_pattern="layers")),
    ("qwen3", dict(target_modules=["q_proj"], layers_pattern="layers")),
    # The other families refuse these two.
    ("qwen3", dict(target_modules=".*v_proj", layers_to_transform=[0])),
    ("qwen3", dict(target_modules="all-linear", layers_to_transform=[0])),
    ("qwen3", dict(target_modules=["embed_tokens"])),
    ("qwen3", dict(target_modules=["norm"])),
    ("qwen3", dict(target_modules=["q_proj"], modules_to_save=["lm_head"])),
    ("qwen3", dict(target_modules=["q_proj"], modules_to_save=["q_proj"])),
    ("qwen3", dict(target_modules=["nothing"])),
    ("qwen3", dict(target_modules=["q_proj"], boft_block_size=5)),
    ("qwen3", dict(target_modules=["q_proj"], boft_block_size=0)),
    ("qwen3", dict(target_modules=["q_proj"], boft_block_num=2)),
    ("qwen3", dict(target_modules=["q_proj"], boft_n_butterfly_factor=0)),
    ("qwen3", dict(target_modules=["q_proj"], boft_block_size=4, boft_n_butterfly_factor=9)),
    ("qwen3", dict(target_modules=["q_proj"], boft_block_size=1, boft_n_butterfly_factor=2)),
    ("qwen3", dict(target_modules=["q_proj"], init_weights="gaussian")),
]

SAVED = {
    "blocks": ("llama", ["--peft-type", "boft"]),
    "butterfly": (
        "qwen2",
        ["--peft-type", "BOFT", "--target-modules", "all-linear", "--bias", "boft_only"]
        + ["--adapter-option", "boft_n_butterfly_factor=2", "--adapter-option", "boft_dropout=0.3"],
    ),
    "nf4": ("llama_nf4", ["--peft-type", "boft", "--target-modules", "all-linear"]),
}


class BlockDiagonal:
    """What PEFT's extension computes: block diagonal matrices of blocks [n, d, h, h]."""

    @staticmethod
    def forward(blocks):
        return [torch.stack([torch.block_diag(*factor) for factor in blocks])]

    @staticmethod
    def backward(gradient, blocks):
        n, d, h, _ = blocks.shape
        gradient = gradient.view(n, d, h, d, h)
        return [torch.stack([gradient[:, i, :, i, :] for i in range(d)], dim=1)]


class Extension:
    """Puts a function in the place of PEFT's extension."""

    def __init__(self, extension):
        self.extension = extension

    def __enter__(self):
        boft.get_fbd_cuda = lambda: self.extension

    def __exit__(self, *_):
        boft.get_fbd_cuda = lambda: BlockDiagonal


boft.get_fbd_cuda = lambda: BlockDiagonal


def load(name):
    model = AutoModelForCausalLM.from_pretrained(
        DATA / "models" / name, dtype=torch.float32, device_map="cpu", attn_implementation="eager"
    )
    # A quantized checkpoint keeps the dtype of its dense tensors.
    for parameter in model.parameters():
        if type(parameter) is torch.nn.Parameter and parameter.dtype.is_floating_point:
            parameter.data = parameter.data.float()
    return model.eval()


def randomize(model, seed):
    """As with `init_weights: false`, but larger, and with biases that moved."""
    gen = generator(seed)
    with torch.no_grad():
        for key, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=gen)
            if "boft_R" in key:
                parameter.copy_(0.4 * noise)
            elif "boft_s" in key:
                parameter.copy_(1.0 + 0.1 * noise)
            elif parameter.requires_grad:
                parameter.add_(0.1 * noise)


def make(case):
    name, options = CASES[case]
    model = get_peft_model(load(name), BOFTConfig(task_type="CAUSAL_LM", **options))
    randomize(model, 12 if case == "other" else 11)
    folder = fresh("boft", case)
    model.save_pretrained(folder)
    clean_config(folder, f"../../models/{name}")


def evaluate(case):
    make(case)
    name, options = CASES[case]
    adapted = lambda: PeftModel.from_pretrained(load(name), DATA / "boft" / case).eval()
    values = {"model": name, "base": losses(load(name), ROWS)[0], "loss": losses(adapted(), ROWS)[0]}
    merged = losses(adapted().merge_and_unload().eval(), ROWS)[0]
    # The head shares its weight with the table, and PEFT's merge changes both.
    assert case == "head" or abs(merged - values["loss"]) < 1e-5, (case, merged, values)
    assert abs(values["loss"] - values["base"]) > 1e-3, (case, values)
    if options.get("boft_n_butterfly_factor", 1) == 1:
        with Extension(None):
            assert abs(losses(adapted(), ROWS)[0] - values["loss"]) < 1e-6, case
    return values


def pair(first, second):
    model = PeftModel.from_pretrained(load("llama"), DATA / "boft" / first, adapter_name="first")
    model.load_adapter(DATA / "boft" / second, adapter_name="second")
    model.base_model.set_adapter(["first", "second"])
    values = {"first": first, "second": second, "loss": losses(model.eval(), ROWS)[0]}
    merged = losses(model.merge_and_unload().eval(), ROWS)[0]
    assert abs(merged - values["loss"]) < 1e-5, (values, merged)
    return values


class One(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)


def select(name, options):
    row = {"model": name, "config": options}
    try:
        model = get_peft_model(load(name), BOFTConfig(**options)).base_model.model
    except (ValueError, TypeError, NotImplementedError, RuntimeError):
        return row | {"refused": True}
    adapted = [path for path, module in model.named_modules() if isinstance(module, boft.BOFTLayer)]
    biases = [path for path, p in model.named_parameters() if path.endswith("bias") and p.requires_grad]
    return row | {"adapted": adapted, "biases": [path.replace("base_layer.", "") for path in biases]}


def make_layer(case):
    with Extension(None if case.endswith("_alone") else BlockDiagonal):
        make_one_layer(case)


def make_one_layer(case):
    layer, options = LAYERS[case]
    gen = generator(len(case))
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=gen))
    folder = fresh("boft", "layers", case)
    plain = {key: value.detach().clone().float() for key, value in layer.state_dict().items()}
    save_file({f"layer.{key}": value for key, value in plain.items()}, folder / "model.safetensors")

    def base():
        layer.load_state_dict(plain)
        return One(layer).double().eval()

    model = get_peft_model(base(), BOFTConfig(target_modules=["layer"], **options))
    randomize(model, 13)
    model.float().save_pretrained(folder)
    clean_config(folder, "layer")
    is_conv = isinstance(layer, nn.Conv2d)
    shape = [2, layer.in_channels, 6, 6] if is_conv else [5, layer.in_features]
    x = torch.randn(shape, generator=gen).double()
    expected = {"input": x, "base": base()(x)}
    model = PeftModel.from_pretrained(base(), folder, is_trainable=True).eval()
    y = model(x)
    (y * numbers(y.shape)).sum().backward()
    adapter = model.base_model.model.layer
    expected |= {f"grad.{name}": getattr(adapter, name)["default"].grad for name in ("boft_R", "boft_s")}
    expected["adapted"] = y
    merged = PeftModel.from_pretrained(base(), folder).eval().merge_and_unload()
    torch.testing.assert_close(merged(x), y, rtol=1e-9, atol=1e-9)
    expected["merged"] = merged.layer.weight
    save_file({key: v.detach().clone().contiguous().float() for key, v in expected.items()}, folder / "expected.safetensors")
    print(f"{case:24} changes the output by {(y - expected['base']).abs().max():.4f}")


def train():
    """AdamW from the start of a new adapter, with a constant rate."""
    options = dict(target_modules=["q_proj", "up_proj", "down_proj"], boft_block_size=4, boft_n_butterfly_factor=2)
    lr, clip = 0.02, 1.0
    folder, rows = fresh("boft", "train"), make_rows(64)[: STEPS * BATCH]
    model = get_peft_model(load("llama"), BOFTConfig(task_type="CAUSAL_LM", **options)).train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, eps=1e-8, weight_decay=0.0)
    values = {"model": "llama", "lr": lr, "batch_size": BATCH, "max_grad_norm": clip, "losses": [], "grad_norms": []}
    for step in range(STEPS):
        ids, mask, labels = pad(rows[step * BATCH : (step + 1) * BATCH])
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        values["losses"].append(loss.item())
        values["grad_norms"].append(torch.nn.utils.clip_grad_norm_(parameters, clip).item())
        optimizer.step()
    model.save_pretrained(folder)
    clean_config(folder, "../../models/llama", inference_mode=False)
    (folder / "rows.jsonl").write_text("".join(json.dumps({"input_ids": row}) + "\n" for row in rows))
    values["final_loss"] = losses(model.eval(), rows)[0]
    print(f"{'train':24} {values['losses'][0]:.5f} -> {values['losses'][-1]:.5f}, norms {values['grad_norms']}")
    return values


def saved(case):
    """Has the program train an adapter, and PEFT load it."""
    name, options = SAVED[case]
    folder = fresh("boft", "saved", case)
    with tempfile.TemporaryDirectory() as work:
        out = Path(work, "out")
        command = [os.environ["QOFT"], "train", "--model", DATA / "models" / name, "--output", out]
        command += ["--data", DATA / "boft/train/rows.jsonl", "--max-steps", "2", "--batch-size", "4"]
        subprocess.run([*command, "--learning-rate", "0.05", *options], check=True, capture_output=True)
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            shutil.copy(out / file, folder / file)
    config = folder / "adapter_config.json"
    config.write_text(config.read_text().replace(str(DATA), "../../.."))
    model = get_peft_model(load(name), PeftConfig.from_pretrained(folder))
    values = load_file(folder / "adapter_model.safetensors")
    result = set_peft_model_state_dict(model, values)
    assert not result.unexpected_keys, (folder, result.unexpected_keys)
    expected = get_peft_model_state_dict(model)
    assert set(expected) == set(values), (folder, set(expected) ^ set(values))
    for key, value in values.items():
        assert torch.equal(expected[key].float(), value), (folder, key)
    return {"model": name, "options": options, "loss": losses(model.eval(), ROWS)[0]}


def main():
    root = DATA / "boft"
    expected = {"rows": ROWS, "cases": {}}
    for case in CASES:
        expected["cases"][case] = evaluate(case)
        print(f"{case:24} {expected['cases'][case]}")
    expected["pairs"] = [pair(first, second) for first, second in PAIRS]
    print(expected["pairs"])
    expected["selections"] = [select(*selection) for selection in SELECTIONS]
    print(*expected["selections"], sep="\n")
    for case in LAYERS:
        make_layer(case)
    expected["train"] = train()
    if "QOFT" in os.environ:
        expected["saved"] = {case: saved(case) for case in SAVED}
        print(expected["saved"])
    else:
        print("kept saved: QOFT does not name the program")
        expected["saved"] = json.loads((root / "expected.json").read_text())["saved"]
    write_json(root / "expected.json", expected)


if __name__ == "__main__":
    main()

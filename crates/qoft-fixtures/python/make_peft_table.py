"""data/peft_table.json: what PEFT makes of a configuration, for hundreds of configurations.

  peft        the version
  defaults    {model type: target_modules}, PEFT's own table for OFT (those of HRA and BOFT are the same)
  models      {name: {type, head, tied, modules}}: small models, of transformers or made here. `modules`
              has every module but the root in PEFT's order, as "<path> <kind>" with " bias" behind it
              if it has one. Kinds: linear, conv1d (GPT-2's, [in, out]), embedding, conv2d, norm, list
              (a ModuleList), and other. `head` is the output embedding of a model of transformers
  rows        one per model and configuration:
    model, family, config   `config` has the keys that are not PEFT's defaults
    matched     the modules that the configuration means, when it can be resolved: indices, as in "0 3-5"
    whole       the modules with tensors of their own that `modules_to_save` trains, if any
    bias        the modules whose bias trains beside that, if any
    resolved    the `target_modules` that PEFT writes when it saves, if not those of `config`
    error       why PEFT refuses it, if it does:
      expression    a regular expression cannot be compiled
      config        keys that contradict each other
      bias          `bias` is none of the known words
      no_default    no target_modules, and no default for the model type
      nothing       no module is meant
      unsupported   a module is meant whose kind the family has no adapter for: `module`
      not_whole     a module cannot train whole: one that has an adapter, or a list of modules
  Where the error is `unsupported`, `matched` tells what PEFT would have adapted.

Of Python's regular expressions the rows leave out names of characters (`\\N{...}`), which the engine
of our rules does not have, and lookbehinds of several widths, which it has and Python has not.
"""

from common import DATA

import copy
import itertools
import json
import re
import sys
import warnings

import peft
import torch
from peft import BOFTConfig, HRAConfig, OFTConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, NoMatchingPeftModuleError, check_target_module_exists
from peft.utils import TRANSFORMERS_MODELS_TO_BOFT_TARGET_MODULES_MAPPING as BOFT_DEFAULTS
from peft.utils import TRANSFORMERS_MODELS_TO_HRA_TARGET_MODULES_MAPPING as HRA_DEFAULTS
from peft.utils import TRANSFORMERS_MODELS_TO_OFT_TARGET_MODULES_MAPPING as OFT_DEFAULTS
from peft.utils.other import ModulesToSaveWrapper
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    Phi3Config,
)
from transformers.pytorch_utils import Conv1D

warnings.simplefilter("ignore")

NORMS = (nn.LayerNorm, nn.BatchNorm2d, nn.GroupNorm)
WIDTH = 4


class Plain(nn.Module):
    """A module that only holds others."""


def put(root, path, module):
    """Puts a module at a path; numbered parts are kept in a ModuleList."""
    *parents, name = path.split(".")
    at = root
    for part, following in zip(parents, [*parents[1:], name]):
        if part not in at._modules:
            new = nn.ModuleList() if following.isdigit() else Plain()
            at.append(new) if isinstance(at, nn.ModuleList) else setattr(at, part, new)
        at = at._modules[part]
    if isinstance(at, nn.ModuleList):
        assert name == str(len(at)), path
        at.append(module)
    else:
        setattr(at, name, module)


def linear(bias=False):
    return nn.Linear(WIDTH, WIDTH, bias=bias)


def conv(bias=False):
    return nn.Conv2d(WIDTH, WIDTH, 2, bias=bias)


def skeleton(layers, model_type="custom"):
    root = Plain()
    for path, module in layers:
        put(root, path, module)
    # A dictionary: PEFT reads model_type from it, and asks for no conversions of weights.
    root.config = {"model_type": model_type}
    return root


def experts():
    """Two kinds of numbers in one path, as mixtures of experts have them."""
    layers = [("model.embed_tokens", nn.Embedding(8, WIDTH))]
    for layer in range(3):
        at = f"model.layers.{layer}"
        layers += [(f"{at}.self_attn.{name}", linear()) for name in ("q_proj", "v_proj")]
        layers += [(f"{at}.mlp.gate", linear())]
        for expert, name in itertools.product(range(2), ("up_proj", "down_proj")):
            layers.append((f"{at}.mlp.experts.{expert}.{name}", linear()))
        layers.append((f"{at}.norm", nn.LayerNorm(WIDTH)))
    return skeleton([*layers, ("lm_head", linear())])


def at_root():
    """Blocks that are numbered right at the root, and some below two names of lists."""
    layers = []
    for layer in range(3):
        layers += [(f"layers.{layer}.attn.{name}", linear(name == "q")) for name in ("q", "k")]
        layers += [(f"layers.{layer}.ln", nn.LayerNorm(WIDTH))]
    for block in range(2):
        layers += [(f"dec.blocks.{block}.q", linear(True)), (f"dec.blocks.{block}.h.0.k", linear())]
    return skeleton([("q", linear(True)), *layers, ("head", linear(True))])


def vision():
    """Convolutions, numbered stages, an activation and a head."""
    layers = [("stem.conv", conv()), ("stem.bn", nn.BatchNorm2d(WIDTH))]
    for stage, block in itertools.product(range(2), range(2)):
        at = f"encoder.stages.{stage}.blocks.{block}"
        layers += [(f"{at}.conv1", conv(True)), (f"{at}.bn1", nn.BatchNorm2d(WIDTH)), (f"{at}.act", nn.ReLU())]
        layers += [(f"{at}.conv2", conv()), (f"{at}.fc", linear(True))]
    return skeleton([*layers, ("norm", nn.GroupNorm(2, WIDTH)), ("classifier", linear(True))], "vision")


def named(model_type):
    """A linear layer under each name that PEFT's defaults have, beside others."""
    names = {name for names in OFT_DEFAULTS.values() if isinstance(names, list) for name in names}
    names |= {"gate_proj", "wte", "proj", "xq_proj", "qkv", "o", "dense"}
    layers = [(f"blocks.{i}.{name}", linear()) for i in range(2) for name in sorted(names)]
    layers += [(f"vision.tower.{name}", linear()) for name in ("q_proj", "v_proj")]
    layers += [(f"language_model.layers.0.{name}", linear()) for name in ("q_proj", "k_proj", "v_proj")]
    return skeleton(layers, model_type)


LLAMA = dict(
    vocab_size=16, hidden_size=8, intermediate_size=8, num_attention_heads=2, num_key_value_heads=1
)


def causal(config):
    return AutoModelForCausalLM.from_config(config)


def gpt2():
    return causal(GPT2Config(vocab_size=16, n_positions=8, n_embd=8, n_layer=2, n_head=2))


def gpt2_linear():
    """GPT-2 as it would be with Linear in place of Conv1D, which PEFT's OFT, HRA and BOFT do not know."""
    model = gpt2()
    for path, module in list(model.named_modules()):
        if isinstance(module, Conv1D):
            parent, _, name = path.rpartition(".")
            width_in, width_out = module.weight.shape
            setattr(model.get_submodule(parent), name, nn.Linear(width_in, width_out))
    return model


MODELS = {
    # 14 linear layers in blocks, and 21: PEFT condenses lists of 20 names or more.
    "llama": lambda: causal(LlamaConfig(num_hidden_layers=2, tie_word_embeddings=False, **LLAMA)),
    "llama3": lambda: causal(
        LlamaConfig(num_hidden_layers=3, tie_word_embeddings=True, attention_bias=True, **LLAMA)
    ),
    "phi3": lambda: causal(Phi3Config(num_hidden_layers=2, pad_token_id=0, **LLAMA)),
    "gpt2": gpt2,
    "gpt2_linear": gpt2_linear,
    "experts": experts,
    "at_root": at_root,
    "vision": vision,
}

FAMILIES = {
    "OFT": (OFTConfig, dict(oft_block_size=2), "oft_only"),
    "HRA": (HRAConfig, dict(r=2), "hra_only"),
    "BOFT": (BOFTConfig, dict(boft_block_size=2), "boft_only"),
}


def kind(module):
    kinds = [
        (nn.Linear, "linear"),
        (Conv1D, "conv1d"),
        (nn.Embedding, "embedding"),
        (nn.Conv2d, "conv2d"),
        (NORMS, "norm"),
        (nn.ModuleList, "list"),
    ]
    for classes, name in kinds:
        if isinstance(module, classes):
            return name
    return "norm" if "Norm" in type(module).__name__ else "other"


def describe(model):
    modules = []
    for path, module in model.named_modules():
        if path:
            bias = " bias" if getattr(module, "bias", None) is not None else ""
            modules.append(f"{path} {kind(module)}{bias}")
    config = BaseTuner.get_model_config(model)
    head = getattr(model, "get_output_embeddings", lambda: None)()
    return {
        "type": config.get("model_type", ""),
        "head": next((path for path, module in model.named_modules() if module is head), None),
        "tied": bool(config.get("tie_word_embeddings")),
        "modules": modules,
    }


def plain(path):
    """A path without what PEFT puts into it."""
    parts = path.removeprefix("base_model.model.").split(".")
    kept, skip = [], 0
    for at, part in enumerate(parts):
        if skip:
            skip -= 1
        elif part == "modules_to_save":
            skip = 1
        elif part not in ("base_layer", "original_module"):
            kept.append(part)
    return ".".join(kept)


def whole(model):
    """The modules with tensors of their own that train as a copy."""
    found = set()
    for path, module in model.named_modules():
        if isinstance(module, ModulesToSaveWrapper):
            copied = module.modules_to_save["default"]
            for below, part in copied.named_modules():
                # A module may hold a layer that has an adapter; that trains with the copy.
                is_adapter = re.search(r"(^|\.)(b?oft|hra)_", below)
                if not is_adapter and any(True for _ in part.parameters(recurse=False)):
                    found.add(plain(f"{path}.{below}" if below else path))
    return found


def biases(model):
    found = set()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and name.endswith(".bias") and ".modules_to_save." not in name:
            found.add(plain(name.removesuffix(".bias")))
    return found


def error_of(error, model_modules):
    text = str(error)
    if isinstance(error, re.error):
        return "expression"
    if isinstance(error, NoMatchingPeftModuleError):
        return "nothing"
    if isinstance(error, NotImplementedError) and text.startswith("Requested bias"):
        return "bias"
    if isinstance(error, TypeError) and text.startswith("modules_to_save cannot be applied"):
        return "not_whole"
    if isinstance(error, TypeError) and "is not supported" in text:
        return "unsupported"
    if isinstance(error, ValueError) and "specify `target_modules`" in text:
        return "no_default"
    if isinstance(error, ValueError) and re.search("layers_(to_transform|pattern)", text):
        return "config"
    raise error


def ranges(indices):
    """Indices in short: "0 3-5"."""
    found = []
    for index in sorted(indices):
        if found and found[-1][1] == index - 1:
            found[-1][1] = index
        else:
            found.append([index, index])
    return " ".join(str(a) if a == b else f"{a}-{b}" for a, b in found)


def outcome(model, family, options):
    """What PEFT does with a configuration on a model."""
    make, sizes, _ = FAMILIES[family]
    paths = [path for path, _ in model.named_modules() if path]
    index = {path: at for at, path in enumerate(paths)}
    row, config = {}, None
    try:
        config = make(**sizes, **copy.deepcopy(options))
        adapted = get_peft_model(copy.deepcopy(model), config)
    except Exception as error:
        row["error"] = error_of(error, paths)
    if "error" not in row or row["error"] in ("unsupported", "not_whole", "bias"):
        # The configuration is the resolved one now.
        matched = [path for path in paths if check_target_module_exists(config, path)]
        row["matched"] = ranges(index[path] for path in matched)
    if row.get("error") == "unsupported":
        kinds = {"linear", "conv2d"} | ({"embedding"} if family == "OFT" else set())
        row["module"] = next(index[path] for path in matched if kind(model.get_submodule(path)) not in kinds)
    if "error" not in row:
        layers = [plain(p) for p, m in adapted.named_modules() if isinstance(m, BaseTunerLayer)]
        assert set(layers) == set(matched), (layers, matched)
        for key, paths in (("whole", whole(adapted)), ("bias", biases(adapted))):
            if paths:
                row[key] = ranges(index[path] for path in paths)
        targets = adapted.peft_config["default"].target_modules
        targets = targets if isinstance(targets, str) else sorted(targets)
        given = options.get("target_modules")
        if targets != (sorted(set(given)) if isinstance(given, list) else given):
            row["resolved"] = targets
    return row


def product(**choices):
    """Every combination; a choice of None leaves the key out."""
    keys = list(choices)
    for values in itertools.product(*choices.values()):
        yield {key: value for key, value in zip(keys, values) if value is not None}


LLAMA_TARGETS = [
    None,
    [],
    "",
    "all-linear",
    "ALL-LINEAR",
    ["all-linear"],
    ["q_proj", "v_proj"],
    ["self_attn.q_proj", "model.layers.1.mlp.up_proj"],
    ["model.layers.0.self_attn.q_proj", "v_proj"],
    ["proj"],
    ["no_such_layer"],
    ["lm_head"],
    ["embed_tokens", "q_proj"],
    ["mlp"],
    ["norm", "q_proj"],
    ["act_fn", "q_proj"],
    ["layers.1.self_attn.k_proj"],
    ["1.self_attn.k_proj", "0.mlp.down_proj"],
    ["", "q_proj"],
    ["q_proj", "q_proj"],
]
EXPRESSIONS = [
    r".*\.q_proj",
    r".*q_proj$",
    r"q_proj",
    r"model\.layers\.0\..*(q|v)_proj",
    r"^(?!.*layers\.1\.).*(up|down)_proj",
    r".*\.layers\.(?P<number>\d+)\..*_proj",
    r".*\.(?:gate|up)_proj\Z",
    r".*layers\.[^0]\..*v_proj",
    r".*(?<=self_attn)\.[kv]_proj",
    r".*(?<!self_attn)\.\w+_proj",
    r"(?i).*Q_PROJ",
    r"(?i:MODEL).*k_proj",
    r"(?x) .* \. v_proj  # the values",
    r"model.layers.\d.mlp.(gate|up|down)_proj",
    r".*\.layers\.(\d)\.self_attn\.(q|k)_proj|lm_head",
    r".*(\w)\1.*down_proj",
    r".*\.layers\.\d{1,2}\.mlp\.up_proj",
    r".*\.layers\.\d{,2}\.mlp\.up_proj",
    r".*mlp",
    r".*",
    r"model\.norm|.*q_proj",
    r"lm_head",
    r".*embed_tokens",
    r".*(",
    r"*q_proj",
    r".*[q_proj",
    r".*\.layers\.[[:digit:]].*q_proj",
    r"(?>.*)q_proj",
    r".*?\.q_proj",
    r".*+q_proj",
    r".*\.(?P<a>q|v)_proj(?#values)",
    r"dummy",
    r".*{q_proj",
    r".*[\w]_proj",
    r".*[&&a-z]_proj",
    r".*\.[k\-q]_proj",
    r".*\.[]q]_proj",
    r".*\.[^]q]_proj",
    r".*\p{L}_proj",
    r".*(?<name>q)_proj",
    r".*(?P<name>q)_proj(?P=name)?",
    r".*(?i)Q_proj",
    r".*(?:(q)|k)(?(1)_proj|_pro.)",
    r".*\bq_proj\b",
    r".*\x71_proj",
    r".*\161_proj",
    r".*(?<=attn\.|\.mlp\.)(q|up)_proj",
    r".*\.(q|v)_proj|",
    r".*\.q_proj{1}",
    r".*\.q{2,1}_proj",
    r".*\.q_proj**",
    r"(?s:.)*q_proj",
    r"(?-i:.*)q_proj",
    r".*\z",
    r"^model\..*\.o_proj$|^lm_head$",
]


def rows_of_llama():
    for model, families in (("llama", FAMILIES), ("llama3", ["OFT"])):
        for family in families:
            for options in product(
                target_modules=LLAMA_TARGETS, layers_to_transform=[None, [], 1, [0, 5], 7]
            ):
                yield model, family, options
    for options in product(
        target_modules=[["q_proj", "down_proj"], ["model.layers.1.mlp.up_proj", "k_proj"], "all-linear", ".*q_proj"],
        layers_to_transform=[None, [], 0, [1, 2], -1],
        layers_pattern=["", [], "layers", ["layers"], "h", ["h", "layers"], "(layers|h)", "(lay)(ers)", "(la(y)ers)?"],
    ):
        yield "llama3", "OFT", options
        if options.get("layers_to_transform") in (None, 0):
            yield "llama3", "HRA", options
            yield "llama3", "BOFT", options
    for expression in EXPRESSIONS:
        yield "llama", "OFT", dict(target_modules=expression)
        yield "llama3", "OFT", dict(target_modules="all-linear", exclude_modules=expression)
    for options in product(
        target_modules=["all-linear", ["q_proj", "down_proj", "lm_head"], r".*\.(v|gate)_proj"],
        exclude_modules=[
            [],
            "",
            ["q_proj"],
            ["self_attn.q_proj", "lm_head"],
            ["model.layers.0.mlp.down_proj"],
            ["proj"],
            ["mlp"],
            "all-linear",
            ["all-linear"],
            r".*layers\.1\..*",
            r".*q_proj",
            r"down_proj",
            r".*",
            ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"],
        ],
        layers_to_transform=[None, 0],
    ):
        yield "llama3", "OFT", options
        if options.get("layers_to_transform") is None:
            yield "llama", "HRA", options
            yield "llama", "BOFT", options
    for options in product(
        target_modules=["all-linear", ["q_proj", "up_proj"], ["lm_head", "embed_tokens"]],
        modules_to_save=[
            [],
            ["lm_head"],
            ["embed_tokens"],
            ["lm_head", "embed_tokens"],
            ["norm"],
            ["input_layernorm", "model.norm"],
            ["mlp"],
            ["lp"],
            ["layers.1"],
            ["model.layers.0.mlp.up_proj"],
            ["up_proj"],
            ["_proj"],
            ["roj"],
            ["layers"],
            ["self_attn.k_proj"],
            ["no_such_module"],
            ["act_fn"],
            ["mlp|self_attn"],
            [r"layers\.1"],
            [r"l.*_proj"],
            ["model"],
            ["("],
        ],
    ):
        yield "llama3", "OFT", options
        yield "llama", "HRA" if options["target_modules"] != ["lm_head", "embed_tokens"] else "OFT", options
    for options in product(
        target_modules=["all-linear", ["q_proj", "down_proj"], ["q_proj", "lm_head"]],
        bias=["all", "own", "lora_only", "oft", ""],
        modules_to_save=[None, ["o_proj"], ["norm"]],
    ):
        for family in FAMILIES:
            yield "llama3", family, own_bias(options, family)


def own_bias(options, family):
    if options.get("bias") == "own":
        options = options | {"bias": FAMILIES[family][2]}
    return options


def rows_of_others():
    for options in product(
        target_modules=[None, "all-linear", ["qkv_proj"], ["o_proj", "gate_up_proj"], ["lm_head"]],
        layers_to_transform=[None, [1]],
    ):
        yield "phi3", "OFT", options
    for model in ("gpt2", "gpt2_linear"):
        for family in FAMILIES:
            for options in product(
                target_modules=[None, "all-linear", ["c_attn"], ["attn.c_proj", "c_fc"], ["c_proj"], ["wte"], ["lm_head"]],
                layers_to_transform=[None, 0],
                bias=[None, "all", "own"],
            ):
                yield model, family, own_bias(options, family)
            for options in product(
                target_modules=["all-linear", ["c_attn"]],
                modules_to_save=[["ln_1"], ["ln_f", "lm_head"], ["wte"], ["attn"], ["h.1"], ["c_proj"], ["h"]],
                bias=[None, "all"],
            ):
                yield model, family, options
            yield model, family, dict(target_modules=["c_attn"], layers_to_transform=1, layers_pattern="h")
            yield model, family, dict(target_modules=["c_attn"], layers_to_transform=1, layers_pattern="layers")
            yield model, family, dict(target_modules=["c_attn"], fan_in_fan_out=True) if family == "OFT" else {}
    for family in FAMILIES:
        for options in product(
            target_modules=[["up_proj"], ["q_proj", "down_proj"], ["gate"], ["experts.0.up_proj"], "all-linear", ["0.up_proj"], ["experts"], ["lm_head"]],
            layers_to_transform=[None, 0, 1, [1, 2], 2],
            layers_pattern=[None, "layers", "experts", ["experts", "layers"], ["layers", "experts"], r"layers\.\d\.mlp\.experts", "(layers|experts)", "layers|experts"],
        ):
            few = options["target_modules"] == ["up_proj"]
            if "layers_to_transform" in options and (family == "OFT" or few) or "layers_pattern" not in options:
                yield "experts", family, options
    for options in product(
        target_modules=[["q"], ["q", "k"], ["attn.q"], ["layers.0.attn.q", "k"], "all-linear", ["head"], r".*\.q", r"q|head"],
        layers_to_transform=[None, [], 0, [1]],
        layers_pattern=[None, "layers", "blocks", ["blocks", "layers"], "h", ["h", "blocks"], "layers|blocks"],
    ):
        yield "at_root", "OFT", options
    for options in product(
        target_modules=[["q"], ["attn.k"], "all-linear"],
        bias=["all", "own"],
        modules_to_save=[None, ["head"], ["ln"], ["layers.1"], ["d"], ["layers"]],
    ):
        for family in FAMILIES:
            yield "at_root", family, own_bias(options, family)
    for options in product(
        target_modules=[
            "all-linear", ["conv1"], ["conv1", "conv2"], ["conv"], [".conv"], ["fc", "conv2"], ["classifier"], r".*\.conv\d",
            ["bn1"], ["act"], ["blocks"], r".*stages\.1\..*\.(conv1|fc)",
        ],
        layers_to_transform=[None, 1],
        layers_pattern=[None, "stages", "blocks"],
        exclude_modules=[None, ["1.conv2", "classifier"]],
    ):
        if "layers_to_transform" in options or "layers_pattern" not in options:
            yield "vision", "OFT", options
            if "exclude_modules" not in options:
                yield "vision", "HRA", options
                yield "vision", "BOFT", options
    for options in product(
        target_modules=["all-linear", ["conv1", "fc"]],
        bias=[None, "all", "own"],
        modules_to_save=[["classifier"], ["bn1"], ["norm"], ["stem"], ["stages.1"], ["stages"]],
    ):
        for family in FAMILIES:
            yield "vision", family, own_bias(options, family)


def rows_of_defaults():
    known = [*OFT_DEFAULTS, "smollm3", "olmo2", "granite", "phi3", "custom"]
    for model_type in known:
        yield f"type {model_type}", "OFT", {}
    for model_type in ("llama", "phi", "gemma4", "rwkv7", "phi3"):
        yield f"type {model_type}", "HRA", {}
        yield f"type {model_type}", "BOFT", {}
        yield f"type {model_type}", "OFT", dict(layers_to_transform=[1])
        yield f"type {model_type}", "OFT", dict(exclude_modules=["v_proj"])
        yield f"type {model_type}", "HRA", dict(layers_to_transform=[1], layers_pattern="blocks")
        yield f"type {model_type}", "BOFT", dict(layers_to_transform=[1], layers_pattern="blocks")


def main():
    assert OFT_DEFAULTS == HRA_DEFAULTS == BOFT_DEFAULTS
    torch.manual_seed(0)
    models = {name: make() for name, make in MODELS.items()}
    # All of these have the same modules.
    models["named"] = named("custom")
    described = {name: describe(model) for name, model in models.items()}
    rows, seen = [], set()
    for name, family, options in itertools.chain(rows_of_llama(), rows_of_others(), rows_of_defaults()):
        row = {"model": name, "family": family, "config": options}
        key = json.dumps(row, sort_keys=True)
        if key in seen:
            continue
        seen.add(key)
        if name.startswith("type "):
            row |= {"model": "named", "type": name.removeprefix("type ")}
            model = models["named"]
            model.config = {"model_type": row["type"]}
        else:
            model = models[name]
        try:
            rows.append(row | outcome(model, family, options))
        except Exception:
            print("in", row, file=sys.stderr)
            raise
    table = {"peft": peft.__version__, "defaults": OFT_DEFAULTS, "models": described}
    text = json.dumps(table, indent=1)[:-2]
    compact = [json.dumps(row, separators=(",", ":")) for row in rows]
    text += ',\n "rows": [\n' + ",\n".join(compact) + "\n ]\n}\n"
    assert json.loads(text) == table | {"rows": rows}
    path = DATA / "peft_table.json"
    path.write_text(text, encoding="utf-8")
    errors = {}
    for row in rows:
        errors[row.get("error", "none")] = errors.get(row.get("error", "none"), 0) + 1
    print(f"{len(rows)} rows, {len(text) / 1000:.0f} kB; errors: {errors}")


if __name__ == "__main__":
    main()

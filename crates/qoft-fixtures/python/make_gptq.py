"""data/schemes/gptq/<case>: tiny llamas quantized by GPTQModel, two layers packed by AutoGPTQ.

Each folder holds what the library saves (config.json, quantize_config.json, model.safetensors) and
  expected.safetensors  for each quantized layer `<path>.weight`: the dense weight [out, in] as the
                        library's torch code dequantizes it in the dtype of the scales, then cast to f32

The cases in WHOLE are complete models. The others are cut down to single layers by dropping the token
embedding. Their matrices carry rows with zero point 0 and the largest zero point, a row of zeros and
outliers (`awkward`), and in some the last group is short. Other changes to what was saved:
  int4_config_file   config.json without quantization_config: only quantize_config.json says it
  int4_no_g_idx      without the g_idx tensors, which count up by groups there
  int4_mislabelled   saved as gptq_v2, called "gptq" in both files

`lm_head=True` alone makes GPTQModel take 8 bits and groups of 32 for lm_head, which it notes in
`dynamic`. It always saves f16 scales. The two autogptq cases use the packing and the forward of
AutoGPTQ 0.7.1, which keeps the dtype of the model and adds a bias of zeros to layers that have none.
The grids there are its own, by rounding to nearest.
"""

import os

os.environ["GPTQMODEL_CPU_WORKERS"] = "2"  # one worker, its choice on two cores, is refused by its loader
os.environ["GPTQMODEL_DISABLE_PACK_EXT"] = "1"  # packs in Python: no compiler is needed

from common import DATA, fresh, random_rows, randomize, write_json
from packed import SMALL, TINY, awkward, bits_of, finish

import importlib.util
import json
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from gptqmodel import BACKEND, GPTQModel, QuantizeConfig
from gptqmodel.nn_modules.qlinear.torch import TorchLinear
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

F16, F32, BF16 = torch.float16, torch.float32, torch.bfloat16
V2 = dict(format="gptq_v2")
DYNAMIC = {
    r"-:.*\.k_proj": {},
    r"+:.*\.v_proj": {"bits": 8, "group_size": 64},
    r".*\.down_proj": {"bits": 4, "group_size": 64, "sym": False},
}

# case: (changes to TINY, QuantizeConfig arguments)
CASES = {
    "int4_desc_act": (dict(num_hidden_layers=2, num_key_value_heads=2), dict(desc_act=True)),
    "int3": (dict(num_key_value_heads=2), dict(bits=3, sym=False)),
    "int8_lm_head": ({}, dict(bits=8, group_size=64, lm_head=True)),
    "int4_v1_asym": (SMALL, dict(sym=False)),
    "int4_v2_asym_desc_act": (SMALL, dict(group_size=64, sym=False, desc_act=True) | V2),
    "int4_g128": (SMALL | dict(intermediate_size=160), dict(group_size=128)),
    "int4_no_groups_desc_act": (SMALL, dict(group_size=-1, desc_act=True)),
    "int4_bias": (SMALL | dict(attention_bias=True, mlp_bias=True), {}),
    "int4_dynamic": (SMALL, dict(dynamic=DYNAMIC)),
    "int4_lm_head": (SMALL, dict(lm_head=True)),
    "int4_config_file": (SMALL, {}),
    "int4_no_g_idx": (SMALL, dict(group_size=64)),
    "int4_mislabelled": (SMALL, V2),
    "int2_v1_asym": (SMALL, dict(bits=2, sym=False)),
    "int2_v2": (SMALL, dict(bits=2) | V2),
    "int3_v1_desc_act": (SMALL, dict(bits=3, desc_act=True)),
    "int3_v2_asym": (SMALL, dict(bits=3, group_size=64, sym=False) | V2),
    "int8_v1_asym_desc_act": (SMALL, dict(bits=8, sym=False, desc_act=True)),
    "int8_v2_no_groups": (SMALL, dict(bits=8, group_size=-1, act_group_aware=False) | V2),
    # 36 is not a multiple of the codes in a word, in either direction.
    "int4_padded": (SMALL | dict(intermediate_size=36), dict(sym=False)),
    "int2_padded": (SMALL | dict(intermediate_size=36), dict(bits=2, sym=False, desc_act=True)),
}
WHOLE = ["int4_desc_act", "int3", "int8_lm_head"]


def dense(folder, changes, seed, whole, dtype=F16):
    model = LlamaForCausalLM(LlamaConfig(**(TINY | changes)))
    randomize(model, seed)
    if not whole:
        awkward(model)
    model.to(dtype).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):  # the loader wants some tokenizer
        shutil.copyfile(DATA / "tokenizer" / name, Path(folder) / name)


def run(source, saved, options, rows, dtype=F16):
    config = QuantizeConfig(**options, device="cpu", offload_to_disk=False)
    model = GPTQModel.load(source, config, dtype=dtype)
    model.quantize(rows, batch_size=1, backend=BACKEND.TORCH)
    model.save(saved)


def calibration(vocab, seed):
    rows = random_rows([64] * 16, vocab, seed)
    return [{"input_ids": row, "attention_mask": [1] * len(row)} for row in rows]


def quantize(case, seed):
    changes, options = CASES[case]
    out = fresh("schemes", "gptq", case)
    options = dict(bits=4, group_size=32, desc_act=False, sym=True) | options
    rows = calibration((TINY | changes)["vocab_size"], seed)
    with tempfile.TemporaryDirectory() as source, tempfile.TemporaryDirectory() as saved:
        dense(source, changes, seed, case in WHOLE)
        run(source, saved, options, rows)
        expected = dequantized(saved)
        for name in ("config.json", "quantize_config.json", "model.safetensors"):
            shutil.copyfile(Path(saved, name), out / name)
        save_file(expected, out / "expected.safetensors")
    check(out, expected, options, case)
    edit(case, out)
    finish(out, case in WHOLE)


def dequantized(folder):
    """The weights of a saved model, loaded again by the library for its torch kernel."""
    model = GPTQModel.load(str(folder), device="cpu", backend=BACKEND.GPTQ_TORCH, dtype=F16)
    layers = {n: m for n, m in model.model.named_modules() if isinstance(m, TorchLinear)}
    with torch.no_grad():
        return {f"{n}.weight": m.dequantize_weight().T.to(F32).contiguous() for n, m in layers.items()}


def edit(case, out):
    """Makes the file differ from what was saved, as the docstring says."""
    if case == "int4_config_file":
        config = json.loads((out / "config.json").read_text())
        del config["quantization_config"]
        write_json(out / "config.json", config)
    elif case == "int4_no_g_idx":
        tensors = load_file(out / "model.safetensors")
        tensors = {k: v for k, v in tensors.items() if not k.endswith(".g_idx")}
        save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    elif case == "int4_mislabelled":
        for name in ("config.json", "quantize_config.json"):
            path = out / name
            path.write_text(path.read_text().replace('"gptq_v2"', '"gptq"'))


def unpack(tensors, name, bits, v1):
    """The weight of a layer and its zero points by numpy alone, rounded to the dtype of the scales."""
    scales = tensors[f"{name}.scales"]
    g_idx = tensors[f"{name}.g_idx"].numpy()
    codes = bits_of(tensors[f"{name}.qweight"].numpy().view(np.uint32).T, len(g_idx), bits)
    words = tensors[f"{name}.qzeros"].numpy().view(np.uint32)
    if v1 and bits != 3:
        words = words + np.uint32(sum(1 << s for s in range(0, 32, bits)))  # carries between fields
    zeros = bits_of(words, scales.shape[1], bits)
    if v1 and bits == 3:
        zeros = (zeros + 1) & 7
    exact = scales.to(torch.float64).numpy()[g_idx].T * (codes - zeros[g_idx].T)
    return torch.from_numpy(exact).to(scales.dtype).to(F32), zeros, g_idx


def check(out, expected, options, case):
    """The file against `expected`, and that it holds what the case is for."""
    tensors = load_file(out / "model.safetensors")
    saved = json.loads((out / "config.json").read_text())["quantization_config"]
    assert saved == json.loads((out / "quantize_config.json").read_text())
    names = sorted(k.removesuffix(".qweight") for k in tensors if k.endswith(".qweight"))
    assert sorted(expected) == [f"{n}.weight" for n in names]
    for name in names:
        found = [v for k, v in saved.get("dynamic", {}).items() if re.match(k.removeprefix("+:"), name)]
        own = options | (found[0] if found else {})
        bits, group = own["bits"], own["group_size"]
        weight, zeros, g_idx = unpack(tensors, name, bits, options.get("format") != "gptq_v2")
        assert torch.equal(weight, expected[f"{name}.weight"]), (case, name)
        assert weight.abs().sum() > 0
        if own["sym"]:
            assert (zeros == 1 << (bits - 1)).all(), (case, name)
        elif case not in WHOLE:
            assert zeros.min() == 0 and zeros.max() == (1 << bits) - 1, (case, name)
        counting = np.arange(len(g_idx)) // (group if group > 0 else len(g_idx))
        assert (g_idx.max() > 0 and own["desc_act"]) != (g_idx == counting).all(), (case, name)


def autogptq_module(path):
    """One file of AutoGPTQ; the package itself does not import under current transformers."""
    folder = Path(importlib.util.find_spec("auto_gptq").submodule_search_locations[0])
    spec = importlib.util.spec_from_file_location(Path(path).stem, folder / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def autogptq(case, dtype, seed):
    bits, group = 4, 32
    QuantLinear = autogptq_module("nn_modules/qlinear/qlinear_cuda_old.py").QuantLinear
    Quantizer = autogptq_module("quantization/quantizer.py").Quantizer
    tensors, expected = {}, {}
    for number, (name, n, k, bias) in enumerate([("q_proj", 32, 96, False), ("o_proj", 64, 32, True)]):
        name = f"model.layers.0.self_attn.{name}"
        linear = torch.nn.Linear(k, n, bias=bias)
        randomize(linear, seed + number)
        linear = linear.to(dtype)
        quantizer = Quantizer()
        quantizer.configure(bits, perchannel=True, sym=True)
        grids = []
        for part in linear.weight.data.float().split(group, 1):
            quantizer.find_params(part, weight=True)
            grids.append((quantizer.scale, quantizer.zero))
        scales, zeros = (torch.cat(parts, 1) for parts in zip(*grids))
        packed = QuantLinear(bits, group, k, n, True, weight_dtype=dtype)
        with torch.no_grad():
            packed.pack(linear, scales, zeros, None)
            tensors |= {key: value.contiguous() for key, value in packed.state_dict(prefix=f"{name}.").items()}
            packed.bias = None
            weight = packed(torch.eye(k, dtype=dtype)).T.to(F32).contiguous()
        expected[f"{name}.weight"] = weight
        assert packed.scales.dtype == dtype
        assert torch.equal(unpack(tensors, name, bits, True)[0], weight)
    out = fresh("schemes", "gptq", case)
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    save_file(expected, out / "expected.safetensors")
    config = dict(bits=bits, group_size=group, damp_percent=0.01, desc_act=False, static_groups=False, sym=True)
    config |= dict(true_sequential=True, model_name_or_path=None, model_file_base_name=None)
    config |= dict(is_marlin_format=False, quant_method="gptq")
    (out / "quantize_config.json").write_text(json.dumps(config, indent=2))
    write_json(out / "config.json", {"quantization_config": config})
    finish(out, False)


def main():
    for number, case in enumerate(CASES):
        quantize(case, 3000 + 10 * number)
    autogptq("autogptq_f32", F32, 3500)
    autogptq("autogptq_bf16", BF16, 3510)


if __name__ == "__main__":
    main()

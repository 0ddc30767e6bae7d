"""data/schemes/gptq/auto_round*, data/schemes/awq/auto_round*: checkpoints of AutoRound (`quant_method: "auto-round"`).

Models of one layer, rounded to the nearest code on a CPU and saved in the library's packings:
  gptq/auto_round            auto_round:auto_gptq, symmetric 4 bits; one layer has 8 bits, one is dense
  gptq/auto_round_asym       auto_round:auto_gptq, asked for with zero points
  gptq/auto_round_gptqmodel  zero points as they are, and a g_idx
  gptq/auto_round_int<bits>  the plain packing, with zero points as they are, if they are not all in the middle
  awq/auto_round             auto_round:auto_awq

expected.safetensors: the codes and zero points unpacked, subtracted, scaled, and rounded to f16 as the library's
layers do it. They are compared with the weights that the library itself leaves in the model when it does not pack.
"""

from common import DATA, fresh, randomize

import copy
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from auto_round import AutoRound
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

UP, DOWN = "model.layers.0.mlp.up_proj", "model.layers.0.mlp.down_proj"
# case: format, bits, symmetric, settings of single layers
CASES = {
    "gptq/auto_round": ("auto_round:auto_gptq", 4, True, {DOWN: {"bits": 8}, UP: {"bits": 16}}),
    "gptq/auto_round_asym": ("auto_round:auto_gptq", 4, False, {DOWN: {"bits": 2, "group_size": 16}}),
    "gptq/auto_round_gptqmodel": ("auto_round:gptqmodel", 4, False, {}),
    "gptq/auto_round_int2": ("auto_round", 2, False, {}),
    "gptq/auto_round_int3": ("auto_round", 3, True, {}),
    "gptq/auto_round_int5": ("auto_round", 5, False, {}),
    "gptq/auto_round_int6": ("auto_round", 6, False, {}),
    "gptq/auto_round_int7": ("auto_round", 7, False, {}),
    "awq/auto_round": ("auto_round:auto_awq", 4, False, {DOWN: {"group_size": 16}}),
}
GROUP = 32


def model(seed):
    sizes = dict(vocab_size=96, hidden_size=64, intermediate_size=96, num_hidden_layers=1, num_attention_heads=4)
    ids = dict(num_key_value_heads=2, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    made = AutoModelForCausalLM.from_config(LlamaConfig(**sizes, **ids), dtype=torch.float16)
    randomize(made, seed)
    return made


def fields(words, bits, count):
    """Codes of rows of words, as one stream each."""
    stream = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=1, bitorder="little")
    codes = stream[:, : stream.shape[1] // bits * bits].reshape(len(words), -1, bits)
    return (codes * (1 << np.arange(bits))).sum(2)[:, :count]


def dense(tensors, path, bits, size, awq, plus):
    words, zeros, scales = (tensors[f"{path}.{name}"].numpy() for name in ("qweight", "qzeros", "scales"))
    n = scales.shape[1]
    if awq:
        order = [0, 4, 1, 5, 2, 6, 3, 7]
        codes, zeros = (fields(w, 4, n).reshape(len(w), -1, 8)[:, :, order].reshape(len(w), n) for w in (words, zeros))
    else:
        zeros = (fields(zeros, bits, n) + plus) & (2**bits - 1)
        codes = fields(words.T, bits, words.shape[0] * 32 // bits).T
    group = np.arange(len(codes)) // size
    values = (codes - zeros[group]).astype(np.float32) * scales[group].astype(np.float32)
    return torch.from_numpy(values.T.astype(np.float16).astype(np.float32)).contiguous()


def make(case, seed):
    packing, bits, symmetric, single = CASES[case]
    tokenizer = AutoTokenizer.from_pretrained(DATA / "tokenizer")
    options = dict(bits=bits, group_size=GROUP, sym=symmetric, iters=0, disable_opt_rtn=True, device_map="cpu")
    round_to = lambda: AutoRound(model(seed), tokenizer, layer_config=copy.deepcopy(single), **options)
    with tempfile.TemporaryDirectory() as folder:
        round_to().quantize_and_save(folder, format=packing)
        file = next(Path(folder).rglob("model.safetensors"))
        target = fresh("schemes", *case.split("/"))
        for name in ("model.safetensors", "config.json"):
            shutil.copyfile(file.parent / name, target / name)
    tensors = load_file(target / "model.safetensors")
    rounded, _ = round_to().quantize()
    rounded, source = rounded.state_dict(), model(seed).state_dict()
    # The library labels symmetric files as GPTQ's, whatever it was asked for.
    packing = json.loads((target / "config.json").read_text())["quantization_config"]["packing_format"]
    plus = int(packing == "auto_round:auto_gptq")
    expected = {}
    for name in [name for name in tensors if name.endswith(".qweight")]:
        path = name.removesuffix(".qweight")
        own = dict(bits=bits, group_size=GROUP) | single.get(path, {})
        value = dense(tensors, path, own["bits"], own["group_size"], "awq" in packing, plus)
        off = (value - rounded[f"{path}.weight"].float()).abs().max() / value.abs().max()
        assert off < 4e-3, (case, path, off)  # a step of 8 bits is 8e-3
        assert not torch.equal(value, source[f"{path}.weight"].float())
        expected[f"{path}.weight"] = value
    save_file(expected, target / "expected.safetensors")
    print(case, packing, len(expected))


def main():
    for number, case in enumerate(CASES):
        make(case, 500 + number)


if __name__ == "__main__":
    main()

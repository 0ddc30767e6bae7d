"""data/schemes/inc-fp8: FP8 checkpoints of neural-compressor-pt 3.10, weights and inputs quantized.

On a CPU the library writes QDQ checkpoints (`qdq_*`). Those of a Gaudi are made with a stand-in for the
device (inc_gaudi.py).
  qdq_tensor      whole model, powers of two, lm_head quantized
  qdq_channel     whole model, one weight scale an output channel, lm_head not quantized
  gaudi3          whole model, hardware scales, lm_head quantized
The others have only the tensors of the decoder layer (and lm_head), all with biases, one weight row all
zero, and one large weight:
  qdq_e5m2, qdq_arbitrary, gaudi3_arbitrary  (arbitrary scales are no powers of two)
  gaudi3_channel, gaudi3_dynamic and gaudi3_rows (no scales for the input), gaudi2 (at most 240 in magnitude)
  two_cards, two_cards_channel  tensor-parallel layers named as DeepSpeed names them, saved by two processes;
                  the weight scales of the cards differ

expected.safetensors: the weights of the model as the library loads it: float8 times scale in f32, in QDQ
mode rounded to bf16 as the library does. Two cards are loaded onto one: the library takes the larger scale and
requantizes the other card's bytes. `<path>.scale_input` and `.scale_inv`: the static input scales.

source.safetensors, where inputs have no scales: the weights before they were quantized.

`_json_file` in the configurations is a temporary path; it is written as `config.json`.
"""

from common import fresh, generator, randomize, DATA

import json
import os
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from inc_forward import quantize_input

BF16, F32, E4M3, E5M2 = torch.bfloat16, torch.float32, torch.float8_e4m3fn, torch.float8_e5m2
BASE = dict(
    vocab_size=96,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
)
MODEL = BASE | dict(hidden_size=64, intermediate_size=96)
LAYER = BASE | dict(hidden_size=48, intermediate_size=80, attention_bias=True, mlp_bias=True)
NO_HEAD = dict(blocklist={"names": ["lm_head"], "types": []})
CHANNEL_POW2, CHANNEL_HW = (f"act_maxabs_{kind}_weights_pcs_maxabs_pow2" for kind in ("pow2", "hw"))

# case: device, decoder layers (0: one layer on its own), arguments of FP8Config
CASES = {
    "qdq_tensor": ("cpu", 2, dict(scale_method="maxabs_pow2")),
    "qdq_channel": ("cpu", 1, dict(scale_method=CHANNEL_POW2) | NO_HEAD),
    "qdq_e5m2": ("cpu", 0, dict(scale_method="maxabs_pow2", fp8_config="E5M2") | NO_HEAD),
    "qdq_arbitrary": ("cpu", 0, dict(scale_method="maxabs_arbitrary")),
    "gaudi3": ("gaudi3", 1, dict(scale_method="maxabs_hw")),
    "gaudi3_channel": ("gaudi3", 0, dict(scale_method=CHANNEL_HW)),
    "gaudi3_arbitrary": ("gaudi3", 0, dict(scale_method="maxabs_arbitrary") | NO_HEAD),
    "gaudi3_dynamic": ("gaudi3", 0, dict(scale_method="maxabs_pow2", dynamic_quantization=True) | NO_HEAD),
    "gaudi2": ("gaudi2", 0, dict(scale_method="maxabs_hw")),
    "two_cards": ("gaudi3", 0, dict(scale_method="maxabs_hw") | NO_HEAD),
    "two_cards_channel": ("gaudi3", 0, dict(scale_method=CHANNEL_HW) | NO_HEAD),
    "gaudi3_rows": ("gaudi3", 0, dict(scale_method="maxabs_pcs_pow2", dynamic_quantization=True) | NO_HEAD),
}


def dense_llama(case):
    from transformers import AutoModelForCausalLM, LlamaConfig

    layers = CASES[case][1]
    config = LlamaConfig(**(MODEL if layers else LAYER), num_hidden_layers=layers or 1)
    model = AutoModelForCausalLM.from_config(config, dtype=F32)
    randomize(model, 500 + list(CASES).index(case))
    if not layers:
        layer = model.model.layers[0]
        with torch.no_grad():
            layer.mlp.gate_proj.weight[3] = 0.0
            layer.mlp.up_proj.weight[7, 5] = 9.0
            layer.self_attn.q_proj.weight[1, 40] = -6.0
            layer.self_attn.o_proj.weight[:, 30:] *= 5.0
    return model.to(BF16).eval()


class LinearLayer(torch.nn.Module):
    """One card's output features; the name is DeepSpeed's, by which the library knows it."""

    def __init__(self, linear, rank):
        super().__init__()
        self.weight = torch.nn.Parameter(linear.weight.chunk(2)[rank].clone())
        self.bias = torch.nn.Parameter(linear.bias.chunk(2)[rank].clone())

    def forward(self, x):
        return torch.nn.functional.linear(x, self.weight, self.bias)


class LinearAllreduce(torch.nn.Module):
    """One card's input features; the products of the cards are added up."""

    def __init__(self, linear, rank):
        super().__init__()
        self.weight = torch.nn.Parameter(linear.weight.chunk(2, 1)[rank].clone())
        self.bias, self.mp_group = linear.bias, torch.distributed.group.WORLD


def two_cards(rank, rendezvous):
    """Sets up this process as one of two; the library names these variables but does not set them."""
    from inc_gaudi import module

    torch.distributed.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=2)
    reduce = lambda x, group: torch.distributed.all_reduce(x, group=group)
    module("deepspeed.comm", inference_all_reduce=reduce)
    module("deepspeed", comm=sys.modules["deepspeed.comm"])
    import neural_compressor.torch.algorithms.fp8_quant.save_load as save_load

    save_load.world_size, save_load.local_rank = 2, rank


def quantize(case, folder, rank=None):
    """Calibrates, quantizes and saves as a user of the library does."""
    from neural_compressor.torch.quantization import FP8Config, convert, prepare, save

    device, _, options = CASES[case]
    model = dense_llama(case)
    for path, linear in list(model.named_modules()):
        if rank is not None and isinstance(linear, torch.nn.Linear) and path != "lm_head":
            kind = LinearAllreduce if path.endswith(("o_proj", "down_proj")) else LinearLayer
            model.set_submodule(path, kind(linear, rank))
    # Newer transformers write on the first rank only, where all tensors are meant to be whole.
    model.should_save_on_this_rank = lambda _: True
    config = FP8Config(**options, use_qdq=device == "cpu")
    if "dynamic_quantization" not in options:
        model = prepare(model, config)
        with torch.no_grad():
            model(torch.randint(3, BASE["vocab_size"], (4, 24), generator=generator(600)))
    else:
        layers = {path: layer for path, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)}
        source = {f"{path}.weight": layer.weight.detach().clone() for path, layer in layers.items() if path != "lm_head"}
        # Beside the checkpoint the library would load it, too.
        save_file(source, "source.safetensors")
    model = convert(model, config)
    save(model, str(folder), format="huggingface")


def by_hand(weight, scale, qdq):
    """The dense weight from the bytes of the file, without the float8 and bf16 types of torch."""
    bits, bias, infinite = (3, 7, None) if weight.dtype == E4M3 else (2, 15, 31)
    code = weight.view(torch.uint8).numpy().astype(np.int64)
    exponent, mantissa = (code & 127) >> bits, code & 2**bits - 1
    assert not (exponent == infinite).any()
    value = np.where(exponent, mantissa + 2.0**bits, 2.0 * mantissa) * 2.0 ** (exponent - bias - bits)
    value = np.where(code >= 128, -value, value).astype(np.float32)
    scale = (scale.view(torch.int16).numpy().astype(np.uint16).astype(np.uint32) << 16).view(np.float32)
    dense = np.ascontiguousarray((value * scale).T)
    if qdq:
        word = dense.view(np.uint32)
        dense = ((word + 0x7FFF + (word >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)
    return dense


def finish(case, folder):
    """Loads the checkpoint with the library, writes expected.safetensors and cuts a lone layer out."""
    from neural_compressor.torch.quantization import load

    device, layers, options = CASES[case]
    (folder / "generation_config.json").unlink()
    model = load(str(folder), format="huggingface", device="cpu" if device == "cpu" else "hpu")
    stored, expected = load_file(folder / "model.safetensors"), {}
    for path, layer in model.named_modules():
        if not type(layer).__name__.startswith("Patched"):
            continue
        if device == "cpu":
            dense = layer.dequant_weights(layer.weight).detach().t().to(F32).contiguous()
        else:
            dense = (layer.weight.to(F32) * layer.scale_weight).detach().t().contiguous()
        expected[f"{path}.weight"] = dense
        scale = "dequant_weights.scale" if device == "cpu" else "scale_weight"
        if f"{path}.weight" in stored:
            again = by_hand(stored[f"{path}.weight"], stored[f"{path}.{scale}"], device == "cpu")
            assert np.array_equal(again, dense.numpy()), (case, path)
        else:
            # Another scale, a power of two, only changes the numbers that become subnormal.
            parts = [by_hand(stored[f"{path}.weight_{r}_2"], stored[f"{path}.{scale}_{r}_2"], False) for r in range(2)]
            again = np.concatenate(parts, 1 if path.endswith(("o_proj", "down_proj")) else 0)
            step = 2.0**-10 * torch.as_tensor(layer.scale_weight).to(F32).reshape(-1, 1).numpy()
            assert (np.abs(again - dense.numpy()) <= step).all(), (case, path)
            print(f"{case} {path}: {(again != dense.numpy()).sum()} weights changed by the merging")
        if "dynamic_quantization" in options:
            continue
        static = layer.quant_input
        scale = static.scale if device == "cpu" else layer.scale_input
        pair = [torch.tensor(float(value), dtype=F32) for value in (static.scale_inv, scale)]
        expected[f"{path}.scale_inv"], expected[f"{path}.scale_input"] = pair
        check_input(layer, pair, device, layer.weight.dtype)
    save_file(expected, folder / "expected.safetensors")
    if "dynamic_quantization" in options:
        shutil.copy("source.safetensors", folder)
    if not layers:
        kept = {key: value for key, value in stored.items() if ".layers." in key or "lm_head" in key}
        save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    for name in ("config.json", "quantization_config.json"):
        values = json.loads((folder / name).read_text())
        values.get("quantization_config", values)["_json_file"] = "config.json"
        (folder / name).write_text(json.dumps(values, indent=2) + "\n")
    for file in folder.iterdir():
        file.chmod(0o644)


def check_input(layer, scales, device, dtype):
    """quantize_input gives what the layer of the library multiplies with, clamped inputs included."""
    largest = {E5M2: 57344.0, E4M3: 240.0 if device == "gaudi2" else 448.0}[dtype]
    x = torch.randn(64, 48, generator=generator(7)).to(BF16) * largest * scales[1] * 0.5
    mine = quantize_input(x.to(F32), *scales, largest, dtype, device == "cpu")
    real = layer.quant_input(x.to(BF16)).to(F32)
    assert torch.equal(mine, real if device == "cpu" else real * scales[1])


def main():
    if len(sys.argv) == 1:
        fresh("schemes", "inc-fp8")
        for case in CASES:
            (DATA / "schemes" / "inc-fp8" / case).mkdir()
            with tempfile.TemporaryDirectory() as work:
                run = lambda *step: subprocess.Popen([sys.executable, __file__, case, work, *step])
                if case.startswith("two_cards"):
                    assert not any([process.wait() for process in [run("0"), run("1")]]), case
                assert not run().wait(), case
        return
    case, work, *step = sys.argv[1:]
    if CASES[case][0] != "cpu":
        import inc_gaudi

        inc_gaudi.install(CASES[case][0])
    os.chdir(work)
    folder = DATA / "schemes" / "inc-fp8" / case
    if step:
        two_cards(int(step[0]), f"{work}/rendezvous")
        quantize(case, folder, int(step[0]))
        return
    if not case.startswith("two_cards"):
        quantize(case, folder)
    finish(case, folder)


if __name__ == "__main__":
    main()

"""data/quantize_train/hqq_*: PEFT's OFT on a dense model that transformers quantizes with HQQ while it loads it.

The folders have what make_quantize_train.py writes, whose rows these are, too; `given` is the HqqConfig. HQQ needs
transformers 4 (requirements-hqq.txt, and PEFT of requirements.txt), which makes all that it loads float32.
PEFT's `all-linear` does not find HQQ's layers, so they are named.
"""

from common import DATA, fresh, losses, write_json
from make_train import make_rows, train

import torch
from hqq.core.quantize import HQQLinear
from transformers import AutoModelForCausalLM, HqqConfig

MODEL = "llama_f32"
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
OPTIONS = dict(target_modules=LINEAR, oft_block_size=16)
# Groups of 64 are rows, parts of two rows in `down_proj`, and with axis 0 every 96th weight of a matrix and the like.
CASES = {
    "hqq_8": dict(nbits=8, group_size=64),
    "hqq_4": dict(nbits=4, group_size=64),
    "hqq_3_axis0": dict(nbits=3, group_size=64, axis=0),
    "hqq_2": dict(nbits=2, group_size=16),
}


def load(config):
    model = AutoModelForCausalLM.from_pretrained(
        DATA / "quantize" / MODEL,
        quantization_config=config,
        device_map="cpu",
        attn_implementation="eager",
        dtype=torch.float32,
    )
    quantized = [name for name, module in model.named_modules() if isinstance(module, HQQLinear)]
    assert len(quantized) == 14, quantized
    return model.train()


def main():
    rows = make_rows(97)
    for name, settings in CASES.items():
        config = HqqConfig(**settings)
        folder = fresh("quantize_train", name)
        values = {"model": MODEL, "given": config.to_dict(), "base": losses(load(config), rows)[0]}
        path = f"../../quantize/{MODEL}"
        values |= train(load(config), rows, OPTIONS, 2e-3, 1, 1.0, folder, path)
        write_json(folder / "reference.json", values)
        print(f"{name:20} {values['base']:.5f} -> {values['final_loss']:.5f}")


if __name__ == "__main__":
    main()

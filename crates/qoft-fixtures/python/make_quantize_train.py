"""data/quantize_train: PEFT's OFT on a dense model that transformers quantizes while it loads it.

Each case is the model and the BitsAndBytesConfig of the case of its name in data/quantize/cases.json, where
the packed bytes are. rows.jsonl has the rows of all cases.

  <case>/adapter_config.json, adapter_model.safetensors   the adapter after the training of make_train.py
  <case>/reference.json  model, given                     as in cases.json
                         base                             the loss of all rows without an adapter
                         and the values of a losses.json of make_train.py
"""

from common import DATA, check_no_repack, fresh, losses, plain_4bit_forward, write_json
from make_train import make_rows, train

import json

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

plain_4bit_forward()

OPTIONS = dict(target_modules="all-linear", oft_block_size=16)
CASES = ["wide_nf4", "wide_nf4_double", "wide_fp4", "wide_fp4_double", "wide_int8"]


def load(case):
    model = AutoModelForCausalLM.from_pretrained(
        DATA / "quantize" / case["model"],
        quantization_config=BitsAndBytesConfig(**case["given"]),
        device_map="cpu",
        attn_implementation="eager",
    )
    check_no_repack(model)
    # Weights were quantized in the dtype of the file; the model computes in f32.
    for parameter in model.parameters():
        if type(parameter) is torch.nn.Parameter and parameter.dtype.is_floating_point:
            parameter.data = parameter.data.float()
    # Training mode is the forward with dequantized weights. There is no dropout.
    return model.train()


def main():
    root = fresh("quantize_train")
    cases = json.loads((DATA / "quantize" / "cases.json").read_text())
    rows = make_rows(97)
    (root / "rows.jsonl").write_text("".join(json.dumps({"input_ids": row}) + "\n" for row in rows))
    for name in CASES:
        case = cases[name]
        folder = fresh("quantize_train", name)
        values = {"model": case["model"], "given": case["given"], "base": losses(load(case), rows)[0]}
        path = f"../../quantize/{case['model']}"
        values |= train(load(case), rows, OPTIONS, 2e-3, 1, 1.0, folder, path)
        write_json(folder / "reference.json", values)
        print(f"{name:20} {values['base']:.5f} -> {values['final_loss']:.5f}")


if __name__ == "__main__":
    main()

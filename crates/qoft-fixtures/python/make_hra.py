"""data/hra: Householder adapters on data/models/llama, made by PEFT.

data/hra/<case> is a PEFT folder with random weights. data/hra/expected.json:
  rows    token ids of the evaluation rows
  base    the mean loss over all predicted tokens without an adapter
  cases   {case: the loss with the adapter}
  pairs   two of the cases in one model, in the order in which they are active: `first`, `second`,
          the loss with both (`loss`) and after merge_and_unload (`merged`). Of several adapters PEFT
          multiplies the first into the weight first: W H_first H_second
"""

from common import DATA, fresh, losses, random_rows, write_json

import torch
from make_peft import clean_config
from peft import HRAConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

ROWS = random_rows([24, 17, 9], 64, 901)

CASES = {
    "even": dict(target_modules=["q_proj", "down_proj"], r=4),
    "odd": dict(target_modules="all-linear", r=3),
    "gram_schmidt": dict(target_modules=["q_proj", "down_proj"], r=4, apply_GS=True),
    "other": dict(target_modules=["q_proj", "down_proj", "o_proj"], r=6),
}
SEEDS = {"other": 6}
PAIRS = [("even", "other"), ("other", "even"), ("gram_schmidt", "other")]


def load():
    return AutoModelForCausalLM.from_pretrained(
        DATA / "models" / "llama", dtype=torch.float32, device_map="cpu", attn_implementation="eager"
    )


def make(case):
    torch.manual_seed(SEEDS.get(case, 5))
    config = HRAConfig(task_type="CAUSAL_LM", init_weights=False, **CASES[case])
    model = get_peft_model(load(), config)
    folder = fresh("hra", case)
    model.save_pretrained(folder)
    clean_config(folder, "../../models/llama")


def pair(first, second):
    model = PeftModel.from_pretrained(load(), DATA / "hra" / first, adapter_name="first")
    model.load_adapter(DATA / "hra" / second, adapter_name="second")
    model.base_model.set_adapter(["first", "second"])
    values = {"first": first, "second": second, "loss": losses(model.eval(), ROWS)[0]}
    return values | {"merged": losses(model.merge_and_unload().eval(), ROWS)[0]}


def main():
    root = fresh("hra")
    expected = {"rows": ROWS, "base": losses(load().eval(), ROWS)[0], "cases": {}}
    for case in CASES:
        make(case)
        model = PeftModel.from_pretrained(load(), DATA / "hra" / case).eval()
        expected["cases"][case] = losses(model, ROWS)[0]
        print(f"{case:16} {expected['cases'][case]:.6f}")
    expected["pairs"] = [pair(first, second) for first, second in PAIRS]
    print(expected["pairs"])
    write_json(root / "expected.json", expected)


if __name__ == "__main__":
    main()

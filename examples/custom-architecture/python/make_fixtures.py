"""tests/data/<case>: tiny random StableLM models with adapters, and what transformers and PEFT
compute with them.

Each case holds a checkpoint, `adapter/`, `trained/` and reference.json:
  rows, loss             token ids of different length, and the mean loss over all predicted tokens
  logits                 at the last position of row 0, the longest one
  generated              the ids that greedy decoding puts behind the first PROMPT ids of row 0
  adapted_loss           with `adapter/`
  train                  rows, the losses of the steps of transformers' Trainer from the identity, and
                         the loss on all rows with what it trained, `trained/`

Run it with the requirements of crates/qoft-fixtures/python/requirements.txt, whose scripts it uses.
"""

import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / "crates" / "qoft-fixtures" / "python"))

from common import check_no_repack, losses, plain_4bit_forward, random_rows, randomize, write_json
from make_peft import clean_config, randomize_adapter
from make_train import make_rows, train

import torch
from peft import OFTConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, StableLmConfig

plain_4bit_forward()

VOCAB = 96
PROMPT, NEW = 30, 12
LR, ACCUMULATION, CLIP = 2e-3, 1, 1.0
NF4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")

# case: (changes to the configuration, block of the adapters, quantization). bitsandbytes' blocks of
# 64 do not straddle rows.
CASES = {
    "dense": (dict(hidden_size=32, intermediate_size=48), 8, None),
    "options": (
        dict(
            hidden_size=32,
            intermediate_size=40,
            use_parallel_residual=True,
            use_qkv_bias=True,
            hidden_act="relu",
            layer_norm_eps=1e-3,
            tie_word_embeddings=True,
            rope_parameters={
                "rope_type": "linear",
                "rope_theta": 500.0,
                "factor": 3.0,
                "partial_rotary_factor": 0.5,
            },
        ),
        8,
        None,
    ),
    "nf4": (dict(hidden_size=64, intermediate_size=128, tie_word_embeddings=True), 16, NF4),
}


def fresh(*parts):
    folder = HERE.parent.joinpath("tests", "data", *parts)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def load(source, **options):
    """The model in the mode that multiplies with dequantized weights."""
    model = AutoModelForCausalLM.from_pretrained(
        source, dtype=torch.float32, device_map="cpu", attn_implementation="eager", **options
    )
    check_no_repack(model)
    return model.train()


def make_model(case, seed):
    changes, _, quantization = CASES[case]
    config = StableLmConfig(
        vocab_size=VOCAB,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        **changes,
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    randomize(model, seed)
    folder = fresh(case)
    if quantization is None:
        model.save_pretrained(folder)
    else:
        with tempfile.TemporaryDirectory() as source:
            model.save_pretrained(source)
            load(source, quantization_config=quantization).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    return folder


def greedy(model, prompt):
    ids = torch.tensor([prompt])
    out = model.eval().generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, do_sample=False, eos_token_id=None
    )
    return out[0, len(prompt) :].tolist()


def make_case(case, seed):
    folder = make_model(case, seed)
    options = dict(target_modules="all-linear", oft_block_size=CASES[case][1])
    adapter = fresh(case, "adapter")
    model = get_peft_model(load(folder), OFTConfig(task_type="CAUSAL_LM", **options))
    randomize_adapter(model)
    model.save_pretrained(adapter)
    clean_config(adapter, "..")

    rows = random_rows([41, 26, 9], VOCAB, 100 + seed)
    loss, _, logits = losses(load(folder), rows)
    adapted_loss, _, _ = losses(PeftModel.from_pretrained(load(folder), adapter).train(), rows)
    assert abs(adapted_loss - loss) > 1e-3
    training = make_rows(VOCAB)
    trained = train(load(folder), training, options, LR, ACCUMULATION, CLIP, fresh(case, "trained"), "..")
    reference = {
        "rows": rows,
        "loss": loss,
        "logits": logits[0, len(rows[0]) - 1].tolist(),
        "prompt": rows[0][:PROMPT],
        "generated": greedy(load(folder), rows[0][:PROMPT]),
        "adapted_loss": adapted_loss,
        "train": {"rows": training} | trained,
    }
    write_json(folder / "reference.json", reference)
    steps = trained["losses"]
    print(f"{case:8} {loss:.5f}, adapted {adapted_loss:.5f}, trained {steps[0]:.5f} -> {steps[-1]:.5f}")


if __name__ == "__main__":
    for number, case in enumerate(CASES):
        make_case(case, 7000 + number)

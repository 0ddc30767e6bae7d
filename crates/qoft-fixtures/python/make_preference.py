"""data/preference: training on preferences by TRL's trainers with PEFT's OFT.

  model/                     a small Llama with the tokenizer of data/tokenizer
  <rows>.jsonl               the rows: pairs as texts, as messages, or with a prompt that is implied, and
                             answers that are good or bad
  <case>/
    adapter_config.json      the configuration to start from, with weights of zero
    adapter_model.safetensors  the trained weights
    expected.json            the settings: rows, preference (those of the loss, by TRL's names), lr, steps,
                             batch_size, accumulation, max_length; per step losses, grad_norms and metrics (as TRL
                             logs them, means over the batches of the step); eval, the metrics of an evaluation of
                             all rows after training; and examples, the tokens of the rows with 1 where
                             they are learned

Each case takes the rows in order, starting again at the end, `batch_size * accumulation` of them in a step.
AdamW without weight decay, a constant learning rate, gradients clipped to 1. Needs requirements-preference.txt.
"""

from common import DATA, LLAMA, fresh, randomize
from conversations import assistant, system, user, write_rows
from trl_run import ALL, PAIR, logs, run, save

import json
import os
import shutil

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

TEXTS = [
    ("What is 2+2?", " It is 4.", " Five, I think."),
    ("The capital of France is", " Paris.", " a city in the south of Italy"),
    ("Say hello: ", "Hello there!<|im_end|>", "Go away.<|im_end|>"),
    ("Über 3 > 2:", " stimmt 🙂", " falsch"),
    ("Count to three.", " One, two, three.", " One, three."),
    ("The quick brown fox", " jumps over the lazy dog.", " rotates the vector"),
    ("Numbers such as 12,", " 345 and 6789", " naïve café"),
    ("A user asks a question", " and the assistant answers it.", "."),
]
JUDGED = [True, False, False, True, True, True, False, False]


def chat_rows():
    rows = []
    for index, (prompt, chosen, rejected) in enumerate(TEXTS):
        messages = [user(prompt)]
        if index % 3 == 1:
            messages = [system("Be brief.")] + messages
        if index % 3 == 2:
            messages = [user("Hi"), assistant("Hello!")] + messages
        chosen, rejected = (text.replace("<|im_end|>", "").strip() for text in (chosen, rejected))
        rows.append({"prompt": messages, "chosen": [assistant(chosen)], "rejected": [assistant(rejected)]})
    return rows


ROWS = {
    "texts": [dict(prompt=p, chosen=c, rejected=r) for p, c, r in TEXTS],
    "chats": chat_rows(),
    "implied": [
        {"chosen": row["prompt"] + row["chosen"], "rejected": row["prompt"] + row["rejected"]} for row in chat_rows()
    ],
    "judged": [
        dict(prompt=p, completion=c if good else r, label=good) for (p, c, r), good in zip(TEXTS, JUDGED)
    ],
    "judged_chats": [
        {"prompt": row["prompt"], "completion": row["chosen" if good else "rejected"], "label": good}
        for row, good in zip(chat_rows(), JUDGED)
    ],
}

# case: (rows, settings of the loss, adapter, learning rate, batch size, accumulation[, more arguments])
CASES = {
    "dpo": ("texts", {}, ALL, 4e-3, 4, 1),
    "dpo_chats": ("chats", dict(beta=0.3), PAIR, 8e-3, 2, 2),
    "dpo_implied": ("implied", dict(loss_type=["hinge"], beta=0.2), ALL, 4e-3, 4, 1),
    "dpo_ipo": ("texts", dict(loss_type=["ipo"]), ALL, 4e-3, 4, 1),
    "dpo_robust": ("texts", dict(loss_type=["robust"], label_smoothing=0.1), ALL, 4e-3, 4, 1),
    "dpo_exo": ("texts", dict(loss_type=["exo_pair"], label_smoothing=0.01), ALL, 4e-3, 4, 1),
    "dpo_nca": ("chats", dict(loss_type=["nca_pair"]), PAIR, 4e-3, 4, 1),
    "dpo_bco": ("texts", dict(loss_type=["bco_pair"]), PAIR, 4e-3, 4, 1),
    "dpo_sppo": ("texts", dict(loss_type=["sppo_hard"], beta=0.5), PAIR, 5e-4, 4, 1),
    "dpo_aot": ("texts", dict(loss_type=["aot"], label_smoothing=0.1), PAIR, 4e-3, 4, 1),
    "dpo_aot_unpaired": ("texts", dict(loss_type=["aot_unpaired"]), PAIR, 4e-3, 4, 1),
    "dpo_apo": (
        "texts",
        dict(loss_type=["apo_zero", "apo_down"], loss_weights=[0.7, 0.3]),
        PAIR,
        4e-3,
        4,
        1,
    ),
    "dpo_discopop": ("texts", dict(loss_type=["discopop"]), PAIR, 4e-3, 4, 1),
    "dpo_sft": (
        "chats",
        dict(loss_type=["sigmoid", "sft", "sigmoid_norm"], loss_weights=[0.8, 0.4, 1.0]),
        ALL,
        4e-3,
        4,
        1,
    ),
    "dpo_cut": ("chats", {}, ALL, 4e-3, 4, 1, dict(max_length=52)),
    "dpo_ahead": ("texts", dict(precompute_ref_log_probs=True), ALL, 4e-3, 4, 1),
    "orpo": ("texts", dict(stage="orpo"), ALL, 4e-3, 4, 1),
    "orpo_chats": ("chats", dict(stage="orpo", beta=0.5), PAIR, 4e-3, 2, 2),
    "simpo": ("texts", dict(stage="simpo", beta=2.0), ALL, 4e-3, 4, 1),
    "simpo_sft": ("implied", dict(stage="simpo", simpo_gamma=1.0, rpo_alpha=0.7, label_smoothing=0.1), ALL, 4e-3, 4, 1),
    "kto": ("judged", dict(stage="kto"), ALL, 8e-3, 4, 1),
    "kto_chats": (
        "judged_chats",
        dict(stage="kto", beta=0.3, desirable_weight=1.5, undesirable_weight=0.7),
        PAIR,
        8e-3,
        2,
        2,
    ),
    "kto_apo": ("judged", dict(stage="kto", loss_type=["apo_zero_unpaired"]), PAIR, 8e-3, 4, 1),
    "kto_pairs": ("texts", dict(stage="kto", beta=0.5), ALL, 4e-3, 4, 1),
}


TRAINERS = {
    "dpo": (DPOConfig, DPOTrainer),
    "orpo": (ORPOConfig, ORPOTrainer),
    "simpo": (CPOConfig, CPOTrainer),
    "kto": (KTOConfig, KTOTrainer),
}


def arguments(settings):
    settings = dict(settings)
    stage = settings.pop("stage", "dpo")
    if stage == "simpo":
        settings = {"loss_type": "simpo", "cpo_alpha": settings.pop("rpo_alpha", 0.0), **settings}
    if stage == "kto" and "loss_type" in settings:
        (settings["loss_type"],) = settings["loss_type"]
    return stage, settings


def examples(trainer, stage, max_length):
    """The tokens of each row with 1 where they are learned: of pairs first the better answer."""
    found = []
    for row in trainer.train_dataset:
        if stage in ("orpo", "simpo"):
            parts = [(row[f"{name}_input_ids"], row[f"{name}_labels"]) for name in ("chosen", "rejected")]
            parts = [(ids, [int(label != -100) for label in labels]) for ids, labels in parts]
        else:
            names = ["completion_ids"] if stage == "kto" else ["chosen_ids", "rejected_ids"]
            prompt = row["prompt_ids"]
            parts = [(prompt + row[name], [0] * len(prompt) + [1] * len(row[name])) for name in names]
        found.append([{"input_ids": ids[:max_length], "learned": mask[:max_length]} for ids, mask in parts])
    return found


def numbers(metrics, prefix=""):
    names = ("rewards/", "logps/", "nll_loss", "kl", "log_odds", "mean_token_accuracy")
    found = {key.removeprefix(prefix): value for key, value in metrics.items()}
    return {key: float(value) for key, value in found.items() if key.startswith(names)}


def make_case(case):
    rows, settings, adapter, lr, batch, accumulation, *more = CASES[case]
    max_length = more[0]["max_length"] if more else 256
    folder = fresh("preference", case)
    stage, loss = arguments(settings)
    trainer, evaluation, of_run = run(
        *TRAINERS[stage], ROWS[rows], adapter, lr, batch, accumulation, max_length=max_length, **loss
    )
    save(trainer, folder, "../model")
    expected = {
        "rows": rows,
        "preference": {"stage": stage} | settings,
        **{name: of_run.pop(name) for name in ("lr", "steps", "batch_size", "accumulation")},
        "max_length": max_length,
        **of_run,
        "metrics": [numbers(entry) for entry in logs(trainer)],
        "eval": {"loss": float(evaluation["eval_loss"])} | numbers(evaluation, "eval_"),
        "examples": examples(trainer, stage, max_length),
    }
    text = json.dumps(expected, ensure_ascii=False)
    (folder / "expected.json").write_text(text + "\n", encoding="utf-8")
    print(f"{case:18} {[round(x, 5) for x in expected['losses']]} norms {[round(x, 4) for x in expected['grad_norms']]}")


def make_model():
    folder = fresh("preference", "model")
    sizes = dict(vocab_size=320, hidden_size=32, intermediate_size=48, max_position_embeddings=256)
    ids = AutoTokenizer.from_pretrained(DATA / "tokenizer")
    ids = dict(bos_token_id=ids.bos_token_id, eos_token_id=ids.eos_token_id, pad_token_id=ids.pad_token_id)
    model = LlamaForCausalLM(LlamaConfig(**LLAMA | sizes | ids))
    randomize(model, 77)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(DATA / "tokenizer" / name, folder)


def main():
    fresh("preference")
    make_model()
    for name, rows in ROWS.items():
        write_rows(DATA / "preference" / f"{name}.jsonl", rows)
    for case in CASES:
        make_case(case)


if __name__ == "__main__":
    main()

"""data/sft: supervised training by TRL's SFTTrainer with PEFT's OFT, on the model of data/preference.

  <case>/
    rows.jsonl               the rows
    chat_template.jinja      the template of a case with messages, with {% generation %} tags
    adapter_config.json      the configuration to start from, with weights of zero
    expected.json            the settings: lr, steps, batch_size, accumulation; per step losses, grad_norms and
                             accuracies (`mean_token_accuracy` as TRL logs it); and the loss and accuracy of an
                             evaluation of all rows after training

Each case takes the rows in order. AdamW without weight decay, a constant learning rate, gradients clipped
to 1. Needs requirements-preference.txt.
"""

from common import DATA, fresh
from conversations import assistant, user, write_rows
from make_preference import TEXTS
from trl_run import ALL, PAIR, load, logs, run, save

import json
import shutil

import torch
from trl import SFTConfig, SFTTrainer

TEMPLATE = DATA / "chat" / "chatml_generation" / "chat_template.jinja"


def chats():
    for index, (prompt, answer, other) in enumerate(TEXTS):
        answer, other = (text.replace("<|im_end|>", "").strip() for text in (answer, other))
        more = [user("And else?"), assistant(other)] if index % 2 else []
        yield {"messages": [user(prompt), assistant(answer), *more]}


def likely_rows():
    """Rows of ids that the model finds likely, so that it predicts most of them, with some others in between."""
    model = load()
    for row, length in enumerate([9, 14, 23, 11, 30, 18, 12, 26]):
        ids = [3, 40 + 17 * row]
        while len(ids) < length:
            with torch.no_grad():
                likeliest = model(torch.tensor([ids])).logits[0, -1].argmax().item()
            ids.append(likeliest if len(ids) % 4 else (50 + 31 * len(ids)) % 320)
        yield {"input_ids": ids}


# case: (rows, messages, adapter, learning rate, batch size, accumulation)
CASES = {
    "completions": ([dict(prompt=p, completion=c) for p, c, _ in TEXTS], False, ALL, 4e-3, 4, 1),
    "tokens": (list(likely_rows()), False, PAIR, 4e-3, 2, 2),
    "chats": (list(chats()), True, PAIR, 8e-3, 2, 2),
}


def make_case(case):
    rows, messages, adapter, lr, batch, accumulation = CASES[case]
    folder = fresh("sft", case)
    template = None
    if messages:
        template = TEMPLATE.read_text(encoding="utf-8")
        shutil.copy(TEMPLATE, folder)
    trainer, evaluation, numbers = run(
        SFTConfig,
        SFTTrainer,
        rows,
        adapter,
        lr,
        batch,
        accumulation,
        template,
        eval_batch=len(rows),
        assistant_only_loss=messages,
    )
    save(trainer, folder, "../../preference/model")
    (folder / "adapter_model.safetensors").unlink()
    write_rows(folder / "rows.jsonl", rows)
    expected = numbers | {
        "accuracies": [float(entry["mean_token_accuracy"]) for entry in logs(trainer)],
        "eval": {"loss": evaluation["eval_loss"], "accuracy": evaluation["eval_mean_token_accuracy"]},
    }
    (folder / "expected.json").write_text(json.dumps(expected) + "\n", encoding="utf-8")
    print(case, expected)


if __name__ == "__main__":
    fresh("sft")
    for case in CASES:
        make_case(case)

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

from common import fresh
from make_peft import clean_config
from make_preference import ALL, PAIR, TEXTS, assistant, user

import json
import shutil
import tempfile
from pathlib import Path

import torch
from datasets import Dataset
from peft import OFTConfig
from transformers import AutoTokenizer, LlamaForCausalLM
from trl import SFTConfig, SFTTrainer

DATA = Path(__file__).resolve().parent.parent / "data"
TEMPLATE = DATA / "chat" / "chatml_generation" / "chat_template.jinja"
STEPS = 4


def chats():
    for index, (prompt, answer, other) in enumerate(TEXTS):
        answer, other = (text.replace("<|im_end|>", "").strip() for text in (answer, other))
        more = [user("And else?"), assistant(other)] if index % 2 else []
        yield {"messages": [user(prompt), assistant(answer), *more]}


def likely_rows():
    """Rows of ids that the model finds likely, so that it predicts most of them, with some others in between."""
    model = LlamaForCausalLM.from_pretrained(DATA / "preference" / "model", dtype=torch.float32)
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


class Recording(SFTTrainer):
    """Keeps the exact loss of every batch."""

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        self.step_losses.append(loss.item())
        return loss


def make_case(case):
    rows, messages, adapter, lr, batch, accumulation = CASES[case]
    folder = fresh("sft", case)
    model = LlamaForCausalLM.from_pretrained(DATA / "preference" / "model", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(DATA / "preference" / "model")
    if messages:
        tokenizer.chat_template = TEMPLATE.read_text(encoding="utf-8")
        shutil.copy(TEMPLATE, folder)
    with tempfile.TemporaryDirectory() as output:
        args = SFTConfig(
            output_dir=output,
            max_steps=STEPS,
            per_device_train_batch_size=batch,
            per_device_eval_batch_size=len(rows),
            gradient_accumulation_steps=accumulation,
            gradient_checkpointing=False,
            learning_rate=lr,
            lr_scheduler_type="constant",
            max_grad_norm=1.0,
            optim="adamw_torch",
            assistant_only_loss=messages,
            train_sampling_strategy="sequential",
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            bf16=False,
            use_cpu=True,
            dataloader_pin_memory=False,
            disable_tqdm=True,
        )
        data = Dataset.from_list(rows)
        trainer = Recording(
            model=model,
            args=args,
            train_dataset=data,
            eval_dataset=data,
            processing_class=tokenizer,
            peft_config=OFTConfig(task_type="CAUSAL_LM", **adapter),
        )
        trainer.step_losses = []
        trainer.train()
        evaluation = trainer.evaluate()
    losses = torch.tensor(trainer.step_losses, dtype=torch.float64).view(STEPS, accumulation)
    logs = [entry for entry in trainer.state.log_history if "grad_norm" in entry]
    trainer.model.save_pretrained(folder)
    clean_config(folder, "../../preference/model", inference_mode=False)
    for extra in ("README.md", "adapter_model.safetensors"):
        (folder / extra).unlink(missing_ok=True)
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "rows.jsonl").write_text("".join(lines), encoding="utf-8")
    expected = {
        "lr": lr,
        "steps": STEPS,
        "batch_size": batch,
        "accumulation": accumulation,
        "losses": losses.sum(1).tolist(),
        "grad_norms": [float(entry["grad_norm"]) for entry in logs],
        "accuracies": [float(entry["mean_token_accuracy"]) for entry in logs],
        "eval": {"loss": evaluation["eval_loss"], "accuracy": evaluation["eval_mean_token_accuracy"]},
    }
    (folder / "expected.json").write_text(json.dumps(expected) + "\n", encoding="utf-8")
    print(case, expected)


if __name__ == "__main__":
    fresh("sft")
    for case in CASES:
        make_case(case)

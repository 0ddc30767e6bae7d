"""Training by a trainer of TRL with PEFT's OFT, on the model of data/preference, with its exact numbers."""

from common import DATA
from make_peft import clean_config

import tempfile

import torch
from datasets import Dataset
from peft import OFTConfig
from transformers import AutoTokenizer, LlamaForCausalLM

MODEL = DATA / "preference" / "model"
STEPS = 4
ALL = dict(target_modules="all-linear", oft_block_size=8)
PAIR = dict(target_modules=["q_proj", "v_proj"], oft_block_size=8)


def load():
    return LlamaForCausalLM.from_pretrained(MODEL, dtype=torch.float32)


def recording(trainer):
    """The trainer's class, but one that keeps the exact loss of every batch."""

    class Recording(trainer):
        def training_step(self, *args, **kwargs):
            loss = super().training_step(*args, **kwargs)
            self.step_losses.append(loss.item())
            return loss

    return Recording


def run(config, trainer, rows, adapter, lr, batch, accumulation, template=None, eval_batch=None, **settings):
    """Trains on the rows in order, AdamW without weight decay at a constant rate, gradients clipped to 1.

    Returns the trainer, what its evaluation of all rows gives, and its settings and numbers per step.
    """
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    if template:
        tokenizer.chat_template = template
    with tempfile.TemporaryDirectory() as output:
        args = config(
            output_dir=output,
            max_steps=STEPS,
            per_device_train_batch_size=batch,
            per_device_eval_batch_size=eval_batch or batch,
            gradient_accumulation_steps=accumulation,
            gradient_checkpointing=False,
            learning_rate=lr,
            lr_scheduler_type="constant",
            max_grad_norm=1.0,
            optim="adamw_torch",
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            bf16=False,
            use_cpu=True,
            dataloader_pin_memory=False,
            disable_tqdm=True,
            **settings,
        )
        # The configurations of some trainers do not take it.
        args.train_sampling_strategy = "sequential"
        data = Dataset.from_list(rows)
        trainer = recording(trainer)(
            model=load(),
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
    return trainer, evaluation, {
        "lr": lr,
        "steps": STEPS,
        "batch_size": batch,
        "accumulation": accumulation,
        "losses": losses.sum(1).tolist(),
        "grad_norms": [float(entry["grad_norm"]) for entry in logs(trainer)],
    }


def logs(trainer):
    """What the trainer logged of each step."""
    return [entry for entry in trainer.state.log_history if "grad_norm" in entry]


def save(trainer, folder, model):
    """The adapter's folder, with the path of the model from there."""
    trainer.model.save_pretrained(folder)
    clean_config(folder, model, inference_mode=False)
    (folder / "README.md").unlink(missing_ok=True)

"""data/train/<case>: eight steps of training from the identity, by transformers' Trainer.

Each case starts from zero adapter weights on one of the models in data/models and takes the rows
of rows.jsonl in order, starting again at the end: `batch_size * accumulation` rows per step, each
batch of `batch_size` rows padded on the right. AdamW (betas 0.9 and 0.999, eps 1e-8, no weight
decay unless losses.json has one), linear decay to zero without warm-up (the learning rate of step k, counted from 0, is
`lr * (1 - k / steps)`), gradients clipped to `max_grad_norm`
(multiplied by `max_grad_norm / (norm + 1e-6)` where that is below 1).

  rows.jsonl                 {"input_ids": [...]} per line
  adapter_config.json        the configuration to start from; also that of the trained adapter
  adapter_model.safetensors  the trained weights
  losses.json                settings, with router_aux_loss_coef where the loss of training has that part, and
                             label_smoothing where labels are smoothed; per step: losses (before the update; the sum over the predicted
                             tokens of the step divided by their number), grad_norms (before
                             clipping), learning_rates; and final_loss, the mean over all rows in
                             one padded batch after training

Linear layers run with dequantized weights throughout: int8 layers are in training mode.
"""

from common import fresh, losses, pad, random_rows, write_json
from make_peft import VOCAB, clean_config, load

import json
import tempfile

import torch
from peft import OFTConfig, get_peft_model
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainingArguments

STEPS = 8
BATCH = 2
LENGTHS = [12, 7, 18, 5, 9, 16, 11, 20, 6, 14, 8, 10, 17, 13, 19, 15]

PAIR = ["q_proj", "v_proj"]

# case: (model, OFTConfig arguments, learning rate, accumulation, largest gradient norm[, weight decay])
CASES = {
    "nf4_all_linear": ("llama_nf4", dict(target_modules="all-linear", oft_block_size=16), 2e-3, 1, 1.0),
    "nf4_cayley": (
        "llama_nf4",
        dict(target_modules=["q_proj", "v_proj"], oft_block_size=8, use_cayley_neumann=False),
        4e-3,
        1,
        5.0,
    ),
    "nf4_coft_share": (
        "llama_nf4",
        dict(target_modules=["q_proj", "down_proj"], oft_block_size=16, block_share=True, coft=True, eps=0.05),
        4e-3,
        1,
        1.0,
    ),
    "int8_all_linear": ("llama_int8", dict(target_modules="all-linear", oft_block_size=16), 2e-3, 1, 1.0),
    "nf4_accumulate": ("llama_nf4", dict(target_modules="all-linear", oft_block_size=32), 1e-3, 2, 1.0),
    # Biases and whole modules. In these models the output head is the embedding table.
    "qwen2_bias_all": ("qwen2", dict(target_modules=PAIR, oft_block_size=8, bias="all"), 4e-3, 1, 1.0),
    "qwen2_bias_oft_only": ("qwen2", dict(target_modules=PAIR, oft_block_size=8, bias="oft_only"), 4e-3, 1, 5.0),
    "qwen2_own_decay": (
        "qwen2",
        dict(target_modules=PAIR, oft_block_size=8, bias="all", modules_to_save=["embed_tokens", "norm", "mlp"]),
        2e-3,
        2,
        1.0,
        0.5,
    ),
    "nf4_lm_head": ("llama_nf4", dict(target_modules=PAIR, oft_block_size=16, modules_to_save=["lm_head"]), 2e-3, 1, 1.0),
    "llama_bias_head": (
        "llama_bias",
        dict(target_modules="all-linear", oft_block_size=8, bias="all", modules_to_save=["lm_head", "model.norm"]),
        2e-3,
        1,
        1.0,
    ),
    "gemma2_all_linear": ("gemma2", dict(target_modules="all-linear", oft_block_size=8), 4e-3, 1, 1.0),
    "qwen3_moe_all_linear": ("qwen3_moe", dict(target_modules="all-linear", oft_block_size=8), 4e-3, 1, 1.0),
    "mixtral_pair": ("mixtral", dict(target_modules=PAIR, oft_block_size=8), 4e-3, 1, 1.0),
    "qwen2_moe_all_linear": ("qwen2_moe", dict(target_modules="all-linear", oft_block_size=8), 4e-3, 1, 1.0),
    "qwen3_moe_balanced": ("qwen3_moe", dict(target_modules=PAIR, oft_block_size=8), 4e-3, 2, 1.0),
    # The router trains whole.
    "olmoe_router": ("olmoe", dict(target_modules="all-linear", oft_block_size=8, modules_to_save=["mlp.gate"]), 2e-3, 1, 1.0),
    # Layers of several kinds.
    "lfm2_all_linear": ("lfm2_options", dict(target_modules="all-linear", oft_block_size=4), 4e-3, 1, 1.0),
    "lfm2_whole": (
        "lfm2_options",
        dict(target_modules=PAIR, oft_block_size=4, bias="all", modules_to_save=["conv.conv", "feed_forward"]),
        2e-3,
        1,
        1.0,
    ),
    "glm4_moe_all_linear": ("glm4_moe", dict(target_modules="all-linear", oft_block_size=4), 4e-3, 1, 1.0),
    "cohere2_all_linear": ("cohere2", dict(target_modules="all-linear", oft_block_size=4), 4e-3, 1, 1.0),
    "starcoder2_bias_all": (
        "starcoder2",
        dict(target_modules="all-linear", oft_block_size=4, bias="all", modules_to_save=["norm"]),
        2e-3,
        1,
        1.0,
    ),
    "granitemoehybrid_router": (
        "granitemoehybrid_experts",
        dict(target_modules="all-linear", oft_block_size=4, modules_to_save=["router"]),
        2e-3,
        1,
        1.0,
    ),
    # A router that trains whole, under another path than files have.
    "mixtral_router": ("mixtral", dict(target_modules=PAIR, oft_block_size=8, modules_to_save=["mlp.gate"]), 2e-3, 1, 1.0),
    # Biases of experts do not train.
    "gpt_oss_bias_all": ("gpt_oss", dict(target_modules=PAIR, oft_block_size=8, bias="all"), 2e-3, 1, 1.0),
    # Sinks of attention; experts are no modules.
    "gpt_oss_all_linear": ("gpt_oss", dict(target_modules="all-linear", oft_block_size=8), 4e-3, 1, 1.0),
    "qwen3_5_all_linear": ("qwen3_5_text", dict(target_modules="all-linear", oft_block_size=4), 5e-4, 1, 1.0),
    "qwen3_5_moe": (
        "qwen3_5_moe_text",
        dict(target_modules=["in_proj_qkv", "in_proj_a", "q_proj"], oft_block_size=8, modules_to_save=["conv1d"]),
        4e-3,
        1,
        1.0,
    ),
    "nf4_smoothed": ("llama_nf4", dict(target_modules="all-linear", oft_block_size=16), 2e-3, 1, 1.0),
    # Also on what reads pictures.
    "mistral3_all_linear": ("mistral3", dict(target_modules="all-linear", oft_block_size=4), 4e-3, 1, 1.0),
    # transformers loads the text part alone, whose modules have other paths then.
    "qwen3_5_part": ("qwen3_5", dict(target_modules=["q_proj", "in_proj_z", "down_proj"], oft_block_size=4), 2e-3, 1, 1.0),
    "gemma4_all_linear": ("gemma4_text", dict(target_modules="all-linear", oft_block_size=8), 2e-3, 1, 1.0),
    "gemma4_part": ("gemma4", dict(oft_block_size=8), 4e-3, 1, 1.0),
    # The text part of a model that reads pictures as well.
    "gemma3_text_part": (
        "gemma3",
        dict(target_modules=r".*language_model.*\.(q_proj|o_proj|up_proj)", oft_block_size=8, bias="none"),
        4e-3,
        1,
        1.0,
    ),
    # PEFT's OFT takes no Conv1D; whole modules may have some, and their weights are [in, out].
    "gpt2_own": (
        "gpt2",
        dict(target_modules=["wpe"], oft_block_size=8, bias="all", modules_to_save=["c_attn", "c_fc", "ln_f", "wte"]),
        2e-3,
        1,
        1.0,
    ),
}


# Mixtures of experts whose auxiliary loss counts, by this factor.
BALANCED = {"qwen3_moe_balanced": 0.5, "granitemoehybrid_router": 0.2}
# Labels that are smoothed, by this factor.
SMOOTHED = {"nf4_smoothed": 0.2}


def make_rows(vocab, seed=4000):
    """Rows that count up or down by a fixed stride, with some noise: something to learn."""
    rows = []
    for row, noise in zip(range(len(LENGTHS)), random_rows(LENGTHS, vocab, seed)):
        start, stride = 3 + 7 * row, (1, 2, 3, -1)[row % 4]
        ids = [3 + (start + stride * i) % (vocab - 3) for i in range(len(noise))]
        rows.append([n if i % 5 == 4 else v for i, (v, n) in enumerate(zip(ids, noise))])
    return rows


class InOrder(Trainer):
    """Takes the rows in order and keeps the exact loss of every step."""

    step_losses = None

    def _get_train_sampler(self, dataset=None):
        return SequentialSampler(self.train_dataset)

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        self.step_losses.append(loss.item())
        return loss


def collate(rows):
    ids, mask, labels = pad([row["input_ids"] for row in rows])
    # It is never predicted, but transformers 4 counts it.
    labels[:, 0] = -100
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def train(model, rows, options, lr, accumulation, clip, folder, path, decay=0.0, balance=None, smoothing=0.0):
    """Trains a new adapter on `model`, saves it in `folder` and returns the values of losses.json.

    `path` is that of the model's folder, seen from the adapter's.
    """
    torch.manual_seed(0)
    model = get_peft_model(model, OFTConfig(task_type="CAUSAL_LM", **options))
    assert all(not p.any() for n, p in model.named_parameters() if "oft_R" in n)
    with tempfile.TemporaryDirectory() as output:
        trainer = InOrder(
            model=model,
            args=TrainingArguments(
                output_dir=output,
                max_steps=STEPS,
                per_device_train_batch_size=BATCH,
                gradient_accumulation_steps=accumulation,
                learning_rate=lr,
                lr_scheduler_type="linear",
                warmup_steps=0,
                weight_decay=decay,
                max_grad_norm=clip,
                optim="adamw_torch",
                label_smoothing_factor=smoothing,
                logging_steps=1,
                save_strategy="no",
                report_to=[],
                use_cpu=True,
                dataloader_pin_memory=False,
                disable_tqdm=True,
            ),
            train_dataset=[{"input_ids": row} for row in rows],
            data_collator=collate,
        )
        trainer.step_losses = []
        before = losses(model.train(), rows[:BATCH])[0]
        if balance:
            causal = model.get_base_model()
            causal.config.output_router_logits = True
            causal.router_aux_loss_coef = balance
        trainer.train()
        if balance:
            causal.config.output_router_logits = False
    parts = torch.tensor(trainer.step_losses, dtype=torch.float64).view(STEPS, accumulation)
    step_losses = parts.sum(1).tolist()
    if accumulation == 1 and not balance and not smoothing:
        assert abs(step_losses[0] - before) < 1e-5, (step_losses[0], before)
    logs = [entry for entry in trainer.state.log_history if "grad_norm" in entry]
    rates = [entry["learning_rate"] for entry in logs]
    assert all(abs(rate - lr * (1 - k / STEPS)) < 1e-12 for k, rate in enumerate(rates)), rates
    # Saved before the last forward, in which COFT would project the weights once more.
    model.save_pretrained(folder)
    clean_config(folder, path, inference_mode=False)
    return {
        "lr": lr,
        "steps": STEPS,
        "batch_size": BATCH,
        "accumulation": accumulation,
        "max_grad_norm": clip,
        "losses": step_losses,
        "grad_norms": [float(entry["grad_norm"]) for entry in logs],
        "learning_rates": rates,
        "final_loss": losses(model.train(), rows)[0],
    }


def make_case(case, rows):
    name, options, lr, accumulation, clip, *decay = CASES[case]
    folder = fresh("train", case)
    model = load(name)
    # The Trainer knows by the name of a class whether its loss shifts the labels. GPT2LMHeadModel does
    # not end in ForCausalLM, so the Trainer would divide by the number of all labels.
    model.loss_type = "ForCausalLM"
    rows = [[token % model.config.get_text_config().vocab_size for token in row] for row in rows]
    balance = BALANCED.get(case)
    path = f"../../models/{name}"
    smoothing = SMOOTHED.get(case, 0.0)
    values = train(
        model, rows, options, lr, accumulation, clip, folder, path, *decay, balance=balance, smoothing=smoothing
    )
    values |= {"weight_decay": decay[0]} if decay else {}
    values |= {"router_aux_loss_coef": balance} if balance else {}
    values |= {"label_smoothing": smoothing} if smoothing else {}
    (folder / "rows.jsonl").write_text("".join(json.dumps({"input_ids": row}) + "\n" for row in rows))
    write_json(folder / "losses.json", {"model": name} | values)
    print(f"{case:20} {values['losses'][0]:.5f} -> {values['losses'][-1]:.5f}, all rows {values['final_loss']:.5f}")
    print("   grad norms", [round(n, 3) for n in values["grad_norms"]])


def main():
    fresh("train")
    rows = make_rows(VOCAB)
    for case in CASES:
        make_case(case, rows)


if __name__ == "__main__":
    main()

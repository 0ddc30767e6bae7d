"""Learning rates and optimizers: what transformers and torch compute.

data/optim/schedules.json: a list of `kind`, `kwargs`, `learning_rate`, `warmup`, `total`, and the `rates`
of the steps 0, 1, ... by `get_scheduler`, two steps beyond the end.

data/optim/optimizers.json: a list of `optimizer`, `settings` by the names of TrainingArguments, the rate
of each step, the `gradients` of a decaying and a staying parameter (without weight decay), and their
`values` before the first step and after each. Of an optimizer that averages also the `averages` after each step. The
decaying parameter of Muon is a matrix with the `shape`, row by row; the staying one is AdamW's. torch's Muon multiplies in
bfloat16, here in float32.
"""

import json

from common import DATA

import types

import torch
import torch.optim._muon as muon
from lion_pytorch import Lion
from schedulefree import AdamWScheduleFree
from transformers import get_scheduler

SCHEDULES = [
    ("linear", {}, 0.5, 3, 10),
    ("cosine", {}, 0.5, 3, 10),
    ("cosine", {"num_cycles": 1.25}, 0.5, 0, 10),
    ("cosine_with_restarts", {}, 0.5, 2, 10),
    ("cosine_with_restarts", {"num_cycles": 3}, 0.5, 2, 14),
    ("polynomial", {}, 0.5, 2, 10),
    ("polynomial", {"power": 2.5, "lr_end": 0.01}, 0.5, 2, 10),
    ("constant_with_warmup", {}, 0.5, 3, 8),
    ("inverse_sqrt", {}, 0.5, 3, 10),
    ("inverse_sqrt", {}, 0.5, 0, 10),
    ("inverse_sqrt", {"timescale": 7}, 0.5, 3, 10),
    ("cosine_with_min_lr", {"min_lr": 0.1}, 0.5, 3, 10),
    ("cosine_with_min_lr", {"min_lr_rate": 0.25, "num_cycles": 0.75}, 0.5, 3, 10),
    ("cosine_warmup_with_min_lr", {"min_lr": 0.1}, 0.5, 3, 10),
    ("cosine_warmup_with_min_lr", {"min_lr_rate": 0.1, "warmup_lr_rate": 0.3}, 0.5, 3, 10),
    ("warmup_stable_decay", {"num_decay_steps": 4}, 0.5, 2, 12),
    (
        "warmup_stable_decay",
        {"num_decay_steps": 4, "decay_type": "1-sqrt", "warmup_type": "cosine", "min_lr_ratio": 0.2},
        0.5,
        3,
        12,
    ),
    (
        "warmup_stable_decay",
        {"num_decay_steps": 3, "num_stable_steps": 4, "decay_type": "linear", "warmup_type": "1-sqrt"},
        0.5,
        3,
        12,
    ),
]
OPTIMIZERS = [
    ("adamw", {"weight_decay": 0.1}),
    ("adamw", {"adam_beta1": 0.8, "adam_beta2": 0.95, "adam_epsilon": 1e-3}),
    ("adam", {"weight_decay": 0.1}),
    ("sgd", {"weight_decay": 0.1}),
    ("lion", {"weight_decay": 0.1, "adam_beta1": 0.9, "adam_beta2": 0.99}),
    ("schedule_free_adamw", {"weight_decay": 0.1}),
    ("schedule_free_adamw", {"adam_beta1": 0.8, "adam_beta2": 0.95, "adam_epsilon": 1e-3, "warmup_steps": 4}),
    ("muon", {"weight_decay": 0.1}, (2, 3)),
    ("muon", {"weight_decay": 0.1, "adam_beta2": 0.99}, (3, 2)),
]
RATES = [0.0, 0.02, 0.04, 0.05, 0.04, 0.03, 0.02, 0.01]


def rates(kind, kwargs, learning_rate, warmup, total):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=learning_rate)
    schedule = get_scheduler(kind, optimizer, warmup, total, scheduler_specific_kwargs=kwargs)
    found = []
    for _ in range(total + 2):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


class Float32Torch(types.ModuleType):
    """torch, whose bfloat16 is float32."""

    def __getattr__(self, name):
        return torch.float32 if name == "bfloat16" else getattr(torch, name)


muon.torch = Float32Torch("torch")


def build(name, settings, groups):
    """A list of optimizers."""
    betas = settings.get("adam_beta1", 0.9), settings.get("adam_beta2", 0.999)
    epsilon = settings.get("adam_epsilon", 1e-8)
    if name == "lion":
        return [Lion(groups, lr=1.0, betas=betas)]
    if name == "sgd":
        return [torch.optim.SGD(groups, lr=1.0)]
    if name == "schedule_free_adamw":
        warmup = settings.get("warmup_steps", 0)
        return [AdamWScheduleFree(groups, lr=1.0, betas=betas, eps=epsilon, warmup_steps=warmup)]
    if name == "muon":
        matrix = torch.optim.Muon(groups[:1], lr=1.0, adjust_lr_fn="match_rms_adamw")
        return [matrix, torch.optim.AdamW(groups[1:], lr=1.0, betas=betas, eps=epsilon)]
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    return [kind(groups, lr=1.0, betas=betas, eps=epsilon)]


def optimize(name, settings, shape=(6,)):
    generator = torch.Generator().manual_seed(7)
    shapes = [shape, (6,)]
    parameters = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    decays = settings.get("weight_decay", 0.0), 0.0
    groups = [dict(params=[p], weight_decay=decay) for p, decay in zip(parameters, decays)]
    optimizers = build(name, settings, groups)
    averages = name.startswith("schedule_free")
    numbers = lambda tensors: [tensor.flatten().tolist() for tensor in tensors]
    values, gradients, means = [numbers(parameters)], [], []
    for rate in RATES:
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        gradients.append(numbers(p.grad for p in parameters))
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            if averages:
                optimizer.train()
            optimizer.step()
        values.append(numbers(parameters))
        if averages:
            optimizer.eval()
            means.append(numbers(parameters))
    extra = {"averages": means} if averages else {}
    extra |= {"shape": shape} if len(shape) > 1 else {}
    return dict(optimizer=name, settings=settings, rates=RATES, gradients=gradients, values=values, **extra)


def main():
    folder = DATA / "optim"
    folder.mkdir(exist_ok=True)
    keys = ["kind", "kwargs", "learning_rate", "warmup", "total"]
    schedules = [dict(zip(keys, case)) | {"rates": rates(*case)} for case in SCHEDULES]
    optimizers = [optimize(*case) for case in OPTIMIZERS]
    for name, cases in [("schedules", schedules), ("optimizers", optimizers)]:
        text = "[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n"
        (folder / f"{name}.json").write_text(text)


main()

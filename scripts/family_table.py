"""Time of a training step of each family of models, beside transformers with PEFT, as JSON.

For each family transformers makes a random model of about 100 million parameters in f32, of which the families
share the sizes: 12 layers of width 768, or 8 layers of width 512 with 32 experts of 256, of which a token meets 4.
Both programs train OFT with blocks of 32 on all linear layers, on the same rows of random tokens; the first
losses have to agree. The programs take turns, --turns times. Where a processor multiplies bf16, qoft trains with
products in it as well (`--compute-dtype bf16`).

There are two times of a step: that of the clock, and that which the processors spent on it, of all threads. The
second one hardly depends on what else a machine does. For qoft it is the difference between a run of --steps steps
more and a short one; PEFT's threads sleep while they wait, as ours do.

    python family_table.py --qoft target/release/qoft --models models/families --json docs/benchmarks/families.json
    python family_table.py ... --family qwen3_moe --family olmoe

What the file has of other families stays. `cargo xtask figures` makes the table of docs/benchmarks.md of it.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile

#: Steps of the short run.
SHORT = 2
SCRIPTS = pathlib.Path(__file__).resolve().parent
DENSE = dict(
    vocab_size=32000,
    hidden_size=768,
    intermediate_size=2048,
    num_hidden_layers=12,
    num_attention_heads=12,
    num_key_value_heads=4,
    head_dim=64,
    max_position_embeddings=2048,
    tie_word_embeddings=True,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
)
MIXTURE = DENSE | dict(
    vocab_size=16000,
    hidden_size=512,
    intermediate_size=256,
    num_hidden_layers=8,
    num_attention_heads=8,
    num_key_value_heads=4,
    num_experts_per_tok=4,
)
SHARED = dict(num_experts=32, moe_intermediate_size=256, shared_expert_intermediate_size=256)
GRANITE = dict(
    layer_types=["attention"] * 8,
    num_local_experts=32,
    shared_intermediate_size=256,
    position_embedding_type="rope",
    # Of layers that there are none of.
    mamba_n_heads=16,
)
DELTA = dict(
    linear_num_key_heads=4,
    linear_num_value_heads=8,
    linear_key_head_dim=64,
    linear_value_head_dim=64,
)
PER_LAYER = dict(
    num_global_key_value_heads=4,
    global_head_dim=64,
    num_kv_shared_layers=4,
    vocab_size_per_layer_input=2000,
    hidden_size_per_layer_input=64,
)
# family: configuration
FAMILIES = {
    "llama": DENSE,
    "qwen3": DENSE,
    "gemma2": DENSE | dict(query_pre_attn_scalar=64),
    "gemma3_text": DENSE | dict(query_pre_attn_scalar=64),
    "gemma4_text": DENSE | PER_LAYER,
    "olmo3": DENSE,
    "glm4": DENSE,
    "exaone4": DENSE,
    "ministral3": DENSE,
    "cohere2": DENSE,
    "seed_oss": DENSE,
    "hunyuan_v1_dense": DENSE,
    "starcoder2": DENSE,
    "lfm2": DENSE | dict(block_auto_adjust_ff_dim=False),
    "qwen3_5_text": DENSE | DELTA,
    "qwen3_moe": MIXTURE | dict(num_experts=32, moe_intermediate_size=256, norm_topk_prob=True),
    "qwen2_moe": MIXTURE | SHARED,
    "mixtral": MIXTURE | dict(num_local_experts=32),
    "olmoe": MIXTURE | dict(num_experts=32),
    "gpt_oss": MIXTURE | dict(num_local_experts=32),
    "glm4_moe": MIXTURE | dict(n_routed_experts=32, moe_intermediate_size=256, n_shared_experts=1, first_k_dense_replace=0),
    "granitemoehybrid": MIXTURE | GRANITE,
    "qwen3_5_moe_text": MIXTURE | SHARED | DELTA,
}
# Words of a tokenizer that nobody asks: rows are ids.
TOKENIZER = {
    "version": "1.0",
    "added_tokens": [],
    "model": {"type": "WordLevel", "vocab": {"<pad>": 0, "<s>": 1, "</s>": 2}, "unk_token": "<pad>"},
}


def make(family, folder):
    """Writes the model; how many parameters it has."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **FAMILIES[family])
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Experts are parameters that nobody may have drawn, and routers that choose all the same are none.
            if parameter.ndim > 1:
                parameter.normal_(std=0.02 if "embed" in name else parameter.shape[-1] ** -0.5)
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    return sum(parameter.numel() for parameter in model.parameters())


def write_rows(path, vocab, count, length):
    """Rows of random tokens, the same in every run."""
    draw = random.Random(0)
    with path.open("w") as file:
        for _ in range(count):
            print(json.dumps({"input_ids": [draw.randrange(3, vocab) for _ in range(length)]}), file=file)


def run(args, command):
    """Runs a program to its end; the seconds that the processors spent on it."""
    environment = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(args.threads), "OMP_WAIT_POLICY": "passive"}
    with tempfile.TemporaryFile("w+") as messages:
        process = subprocess.Popen(
            list(map(str, command)), stdout=subprocess.DEVNULL, stderr=messages, env=os.environ | environment
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            messages.seek(0)
            raise RuntimeError(messages.read()[-4000:])
    return usage.ru_utime + usage.ru_stime


def train(args, model, data, folder, steps, dtype="f32"):
    """What the log of qoft says of its steps, and the seconds of the processors."""
    adapter = folder / f"adapter-{steps}"
    shutil.rmtree(adapter, ignore_errors=True)
    cpu = run(
        args,
        [
            *(args.qoft, "train", "--model", model, "--data", data, "--output", adapter),
            *("--target-modules", "all-linear", "--oft-block-size", "32", "--no-shuffle"),
            *("--batch-size", args.rows, "--max-length", args.tokens, "--learning-rate", "1e-3"),
            *("--lr-scheduler", "constant", "--max-grad-norm", "0", "--max-steps", steps),
            *("--threads", args.threads, "--compute-dtype", dtype),
        ],
    )
    return [json.loads(line) for line in (adapter / "log.jsonl").read_text().splitlines()], cpu


def train_peft(args, model, data, summary):
    """What the script says of PEFT's steps."""
    run(
        args,
        [
            *(sys.executable, SCRIPTS / "peft_benchmark.py", "--model", model, "--data", data),
            *("--batch-size", args.rows, "--max-length", args.tokens, "--lr", "1e-3"),
            *("--steps", args.peft_steps, "--threads", args.threads, "--json", summary),
        ],
    )
    return json.loads(summary.read_text())


def multiplies_bf16():
    """Whether the processor has instructions that qoft uses for bf16."""
    info = pathlib.Path("/proc/cpuinfo")
    return info.exists() and "avx512_bf16" in info.read_text().split()


def made(args, family):
    """The folder of the model, and how many parameters it has."""
    model = args.models / family
    parameters = model / "parameters.json"
    if not parameters.exists():
        parameters.write_text(json.dumps(make(family, model)))
    return model, json.loads(parameters.read_text())


def measure(args, family, folder):
    model, parameters = made(args, family)
    config = json.loads((model / "config.json").read_text())
    data = folder / "rows.jsonl"
    write_rows(data, config["vocab_size"], args.rows * (args.steps + SHORT), args.tokens)
    dtypes = ["f32", "bf16"] if multiplies_bf16() else ["f32"]
    ours = {dtype: {"seconds": [], "cpu_seconds": []} for dtype in dtypes}
    theirs = {"seconds": [], "cpu_seconds": []}
    for _ in range(args.turns):
        logs = {}
        for dtype, times in ours.items():
            _, short = train(args, model, data, folder, SHORT, dtype)
            log, long = train(args, model, data, folder, SHORT + args.steps, dtype)
            times["seconds"] += [row["seconds"] for row in log[1:]]
            times["cpu_seconds"].append((long - short) / args.steps)
            logs[dtype] = [row["loss"] for row in log]
        peft = train_peft(args, model, data, folder / "peft.json")
        losses, of_peft = logs["f32"], peft["losses"]
        if abs(losses[0] - of_peft[0]) > 3e-4 * of_peft[0]:
            raise RuntimeError(f"{family}: the first loss is {losses[0]}, that of PEFT {of_peft[0]}")
        theirs["seconds"] += peft["seconds"][1:]
        theirs["cpu_seconds"] += peft["cpu_seconds"][1:]
    return {
        "family": family,
        "parameters": parameters,
        "experts": "num_experts_per_tok" in FAMILIES[family],
        "rows": args.rows,
        "tokens": args.tokens,
        "threads": args.threads,
        "qoft": ours["f32"],
        "qoft_bf16": ours.get("bf16"),
        "peft": theirs,
        "losses": losses,
        "losses_bf16": logs.get("bf16"),
        "peft_losses": of_peft,
        "versions": {name: importlib.metadata.version(name) for name in ["peft", "torch", "transformers"]},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--qoft", type=pathlib.Path, required=True, help="the program")
    parser.add_argument("--models", type=pathlib.Path, required=True, help="a folder for the models, made once")
    parser.add_argument("--family", action="append", choices=FAMILIES, help="several times; all unless given")
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--steps", type=int, default=6, help="of qoft in a turn, beside those of a short run")
    parser.add_argument("--peft-steps", type=int, default=4, help="of PEFT in a turn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only-make", action="store_true", help="makes the models and measures nothing")
    parser.add_argument("--json", type=pathlib.Path, required=True, help="the file of the figures")
    args = parser.parse_args()
    args.qoft = args.qoft.resolve()

    results = json.loads(args.json.read_text()) if args.json.exists() else []
    for family in args.family or FAMILIES:
        if args.only_make:
            made(args, family)
            continue
        with tempfile.TemporaryDirectory() as folder:
            found = measure(args, family, pathlib.Path(folder))
        best = {name: min(found[name]["cpu_seconds"]) for name in ["qoft", "qoft_bf16", "peft"] if found[name]}
        told = ", ".join(f"{name} {seconds:.3f} s" for name, seconds in best.items())
        print(f"{family:20} processors: {told}", flush=True)
        results = [other for other in results if other["family"] != family] + [found]
        results.sort(key=lambda found: list(FAMILIES).index(found["family"]))
        args.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Trains and evaluates the same model in several storage schemes with qoft, as a Markdown table.

For each model folder below --models: the loss on --eval, --steps training steps on --data, and the
loss with the trained adapter. Peak memory is that of the training process (largest resident set),
the time of a step is the median over the steps after the first, the size is that of the weight files.

    python scheme_table.py --qoft target/release/qoft --models models \\
        --data data/train.jsonl --eval data/eval.jsonl --json schemes.json

The number of threads is that of qoft: set RAYON_NUM_THREADS.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

COLUMNS = [
    ("model", "model", "{}"),
    ("backend", "backend", "{}"),
    ("bits", "bits", "{}"),
    ("weight files, MiB", "file_mib", "{:.0f}"),
    ("peak memory, MiB", "train_peak_mib", "{:.0f}"),
    ("loss before", "loss_before", "{:.4f}"),
    ("loss after", "loss_after", "{:.4f}"),
    ("s per step", "seconds_per_step", "{:.2f}"),
]


def run(*command):
    """(standard output, peak memory in MiB, time of each line of standard error that reports a step)."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen([*map(str, command)], stdout=output, stderr=subprocess.PIPE, text=True)
        lines = [(time.perf_counter(), line) for line in process.stderr]
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError("".join(line for _, line in lines))
        output.seek(0)
        return output.read(), usage.ru_maxrss / 1024, [at for at, line in lines if line.startswith("step ")]


def loss(args, model, *more):
    output, peak, _ = run(args.qoft, "eval", "--model", model, *more, "--data", args.eval, "--json")
    return json.loads(output)["loss"], peak


def measure(args, model, adapter):
    layers = json.loads(run(args.qoft, "inspect", model, "--json")[0])["layers"]
    quantized = [layer for layer in layers if layer["backend"] != "dense"] or layers
    before, eval_peak = loss(args, model)
    _, train_peak, steps = run(
        *(args.qoft, "train", "--model", model, "--data", args.data, "--output", adapter),
        *("--target-modules", "all-linear", "--oft-block-size", 32),
        *("--batch-size", 4, "--max-length", 128, "--no-shuffle"),
        *("--learning-rate", 1e-3, "--lr-scheduler", "constant", "--warmup-steps", 0),
        *("--weight-decay", 0, "--max-grad-norm", 0),
        *("--max-steps", args.steps, "--logging-steps", 1),
    )
    after, _ = loss(args, model, "--adapter", adapter)
    log = [json.loads(line) for line in (adapter / "log.jsonl").read_text().splitlines()]
    return {
        "model": model.name,
        "backend": ", ".join(sorted({layer["backend"] for layer in quantized})),
        "bits": ", ".join(map(str, sorted({layer["bits"] for layer in quantized}))),
        "file_mib": sum(file.stat().st_size for file in model.glob("*.safetensors")) / 2**20,
        "eval_peak_mib": eval_peak,
        "train_peak_mib": train_peak,
        "loss_before": before,
        "loss_after": after,
        "seconds_per_step": statistics.median(b - a for a, b in zip(steps, steps[1:])),
        "train_losses": [entry["loss"] for entry in log],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", help="folders below --models; without any, all that have a config.json")
    parser.add_argument("--qoft", type=pathlib.Path, default="target/release/qoft")
    parser.add_argument("--models", type=pathlib.Path, required=True)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--eval", type=pathlib.Path, required=True)
    parser.add_argument("--steps", type=int, default=20, help="two at least")
    parser.add_argument("--json", type=pathlib.Path, help="writes all figures here as well")
    args = parser.parse_args()

    names = args.names or sorted(file.parent.name for file in args.models.glob("*/config.json"))
    results = []
    for name in names:
        print(name, file=sys.stderr)
        with tempfile.TemporaryDirectory() as folder:
            try:
                results.append(measure(args, args.models / name, pathlib.Path(folder) / "adapter"))
            except RuntimeError as error:
                # Of a scheme that the program does not have, for example.
                print(f"{name} is left out: {error}", file=sys.stderr)
        if args.json:
            args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print("|", " | ".join(title for title, _, _ in COLUMNS), "|")
    print("|" + "---|" * len(COLUMNS))
    for result in results:
        print("|", " | ".join(form.format(result[key]) for _, key, form in COLUMNS), "|")


if __name__ == "__main__":
    main()

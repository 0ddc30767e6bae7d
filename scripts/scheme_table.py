"""Trains, evaluates and merges the same model in several storage schemes with qoft, as JSON.

For each model folder below --models: the loss on --eval, --steps training steps on --data, the loss with the
trained adapter, and that of the model after a merge into the scheme by the nearest codes, with the share of
the change that the merge kept. Peak memory is that of the training process (largest resident set), the time
of a step is the median over the steps after the first, the size is that of the weight files, and the bits of
a weight are those that the quantized linear layers hold, with scales. What the file has of other names stays.

    python scheme_table.py --qoft target/release/qoft --models models \\
        --data data/train.jsonl --eval data/eval.jsonl --json docs/benchmarks/schemes.json

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

KINDS = ["*.safetensors", "*.gguf"]


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


def merged(args, model, folder):
    """The loss of the merged model, and the share of the change that is in it."""
    command = [args.qoft, "merge", "--model", model, "--adapter", folder / "adapter", "--min-kept", 0]
    report = json.loads(run(*command, "--output", folder / "merged", "--json")[0])
    return {"loss_merged": loss(args, folder / "merged")[0], "kept": report["kept"]["weights"]}


def measure(args, model, folder):
    adapter = folder / "adapter"
    layers = json.loads(run(args.qoft, "inspect", model, "--json")[0])["layers"]
    linear = [layer for layer in layers if "_proj" in layer["name"]]
    quantized = [layer for layer in linear if layer["backend"] != "dense"] or linear
    weights = sum(layer["in_features"] * layer["out_features"] for layer in quantized)
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
        "bits_per_weight": 8 * sum(layer["packed_bytes"] for layer in quantized) / weights,
        "file_mib": sum(file.stat().st_size for kind in KINDS for file in model.glob(kind)) / 2**20,
        "eval_peak_mib": eval_peak,
        "train_peak_mib": train_peak,
        "loss_before": before,
        "loss_after": after,
        **merged(args, model, folder),
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
    parser.add_argument("--json", type=pathlib.Path, required=True, help="the file of the figures")
    args = parser.parse_args()

    args.qoft = args.qoft.resolve()
    names = args.names or sorted(file.name for file in args.models.iterdir())
    results = json.loads(args.json.read_text()) if args.json.exists() else []
    for name in names:
        print(name, file=sys.stderr)
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = measure(args, args.models / name, pathlib.Path(folder))
            except RuntimeError as error:
                # Of a scheme that the program does not have, for example.
                print(f"{name} is left out: {error}", file=sys.stderr)
                continue
        results = [result for result in results if result["model"] != name] + [found]
        args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Merges adapters into models of several schemes with qoft and measures what is lost, as JSON.

For each NAME, --models/NAME is a model and --adapters/NAME an adapter of it. The adapter is merged
into dense weights and, where the scheme can be written, back into it: by the nearest codes, and by
codes that --calibration chooses. Losses are those of each file of --eval; none of these files should
be the calibration data. "change" is how much the adapter changes the weights, "kept" the share of
that in the written weights and, with calibration, in the layers' outputs; "relative_error" that of
the written weights (mean over layers); "seconds" the time of the merge. What the file has of other
names stays.

    python merge_table.py --models models --adapters adapters --calibration data/train.jsonl \\
        --eval data/eval.jsonl other/eval.jsonl --json docs/benchmarks/merges.json nf4 gptq4

`cargo xtask figures` makes the tables of docs/merging.md of it. The number of threads is that of
qoft: set RAYON_NUM_THREADS.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

MERGES = {"dense": ["--dequantize"], "nearest": [], "calibrated": ["--calibration"]}


def run(*command):
    """The JSON that a command prints, or None and its last line of errors."""
    done = subprocess.run([*map(str, command), "--json"], capture_output=True, text=True)
    if done.returncode:
        return None, done.stderr.strip().splitlines()[-1]
    return json.loads(done.stdout), None


def losses(args, model, *more):
    found = []
    for data in args.eval:
        result, error = run(args.qoft, "eval", "--model", model, *more, "--data", data)
        if error:
            raise RuntimeError(error)
        found.append(result["loss"])
    return found


def merged(args, model, adapter, options, folder):
    # Everything is written, however little of the change is kept.
    command = [args.qoft, "merge", "--model", model, "--adapter", adapter, "--output", folder, "--min-kept", 0]
    command += [*(f"--backend-option={option}" for option in args.backend_option), *options]
    if "--calibration" in options:
        command += [args.calibration, "--calibration-rows", args.calibration_rows]
        command += ["--max-length", args.max_length]
    start = time.monotonic()
    report, error = run(*command)
    seconds = time.monotonic() - start
    if error:
        return {"error": error}
    mean = lambda value: statistics.fmean(map(value, report["layers"]))
    return {
        "loss": losses(args, folder),
        "bytes": report["bytes"],
        "relative_error": mean(lambda layer: layer["relative_error"]),
        "change": mean(lambda layer: layer["change"]["relative"]),
        "kept_weights": report["kept"]["weights"],
        "kept_outputs": report["kept"]["outputs"],
        "seconds": round(seconds, 1),
    }


def measure(args, name):
    model, adapter = args.models / name, args.adapters / name
    result = {"model": name, "base": losses(args, model)}
    result["adapted"] = losses(args, model, "--adapter", adapter)
    for kind, options in MERGES.items():
        with tempfile.TemporaryDirectory(dir=args.work) as work:
            result[kind] = merged(args, model, adapter, options, pathlib.Path(work) / "merged")
        print(f"{name} {kind}: {result[kind]}", file=sys.stderr)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="+")
    parser.add_argument("--qoft", type=pathlib.Path, default="target/release/qoft")
    parser.add_argument("--models", type=pathlib.Path, required=True)
    parser.add_argument("--adapters", type=pathlib.Path, required=True)
    parser.add_argument("--eval", type=pathlib.Path, nargs="+", required=True)
    parser.add_argument("--calibration", type=pathlib.Path, required=True)
    parser.add_argument("--calibration-rows", type=int, default=32)
    parser.add_argument("--max-length", type=int, default=256, help="tokens of a calibration row")
    parser.add_argument("--backend-option", action="append", default=[], help="of the merges, such as aqlm.codebooks=keep")
    parser.add_argument("--work", type=pathlib.Path, help="where merged models are written, one at a time")
    parser.add_argument("--json", type=pathlib.Path, required=True, help="the file of the figures")
    args = parser.parse_args()

    args.qoft = args.qoft.resolve()
    results = json.loads(args.json.read_text()) if args.json.exists() else []
    for name in args.names:
        found = measure(args, name)
        results = [result for result in results if result["model"] != name] + [found]
        args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

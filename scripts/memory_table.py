"""Peak memory of a training step of qoft by batch size, length and options, as JSON.

For each --shape (rows x tokens) and each --options, --steps training steps on rows of exactly that many
tokens. Peak memory is the largest resident set of the process (VmHWM). A sampler tells how much
anonymous memory there was; the rest is the mapped weight files, which the system can drop at any time. It
looks every few milliseconds, so it can miss a short peak that VmHWM has.

    python memory_table.py --qoft target/release/qoft --model models/SmolLM2-135M-Instruct-nf4 \\
        --shape 4x128 --shape 1x4096 --options "" --options "--gradient-checkpointing" \\
        --json docs/benchmarks/memory.json

What the file has of other models, shapes and options stays. `cargo xtask figures` makes the tables
of docs/memory.md of it. The number of threads is qoft's: give it with the options.
"""

import argparse
import json
import pathlib
import random
import subprocess
import tempfile
import time

MIB = 2**20


def rows(path, vocab, count, length):
    """Rows of random tokens, the same in every run."""
    draw = random.Random(0)
    with path.open("w") as file:
        for _ in range(count):
            print(json.dumps({"input_ids": [draw.randrange(vocab) for _ in range(length)]}), file=file)


def status(pid):
    """Kilobytes by name, of the lines of /proc/PID/status that have them."""
    lines = (line.split() for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
    return {line[0].rstrip(":"): int(line[1]) for line in lines if line[-1] == "kB"}


def measure(args, batch, length, options, folder):
    config = json.loads((args.model / "config.json").read_text())
    data, adapter = folder / "rows.jsonl", folder / "adapter"
    rows(data, config["vocab_size"], args.steps * batch, length)
    process = subprocess.Popen(
        [
            *(args.qoft, "train", "--model", args.model, "--data", data, "--output", adapter),
            *("--target-modules", "all-linear", "--oft-block-size", "32", "--no-shuffle"),
            *("--batch-size", str(batch), "--max-length", str(length), "--learning-rate", "1e-3"),
            *("--lr-scheduler", "constant", "--max-steps", str(args.steps), *options),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    peak = {"VmHWM": 0, "RssAnon": 0}
    while process.poll() is None:
        try:
            now = status(process.pid)
        except (FileNotFoundError, ProcessLookupError):
            break
        if "VmHWM" in now:
            peak = {name: max(value, now[name]) for name, value in peak.items()}
        time.sleep(0.005)
    _, messages = process.communicate()
    if process.returncode:
        raise RuntimeError(messages)
    losses = [json.loads(line)["loss"] for line in (adapter / "log.jsonl").read_text().splitlines()]
    return {name: value * 1024 / MIB for name, value in peak.items()}, losses


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--qoft", type=pathlib.Path, required=True, help="the program")
    parser.add_argument("--model", type=pathlib.Path, required=True, help="a checkpoint folder")
    parser.add_argument("--shape", action="append", required=True, help="ROWSxTOKENS; several times")
    parser.add_argument("--options", action="append", help="options of qoft train; several times")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--json", type=pathlib.Path, required=True, help="the file of the figures")
    args = parser.parse_args()
    args.qoft = args.qoft.resolve()

    results = json.loads(args.json.read_text()) if args.json.exists() else []
    for shape in args.shape:
        batch, length = map(int, shape.split("x"))
        for options in args.options or [""]:
            with tempfile.TemporaryDirectory() as folder:
                peak, losses = measure(args, batch, length, options.split(), pathlib.Path(folder))
            run = {"model": args.model.name, "rows": batch, "tokens": length, "options": options}
            memory = {"peak_mib": peak["VmHWM"], "anonymous_mib": peak["RssAnon"]}
            results = [other for other in results if any(other[key] != value for key, value in run.items())]
            results.append({**run, **memory, "losses": losses})
            print(results[-1], flush=True)
            args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

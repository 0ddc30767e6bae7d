"""Time and peak memory until the first step of a training of a dense model that is quantized while it is loaded, as JSON.

For each way to load --model, `qoft train` makes one step on one row of 16 tokens. The file has the seconds until
the model is there (`load`), those until the step is done (`first_step`), the largest resident set of the process
(VmHWM) and the most anonymous memory that a sampler saw: the rest are files, also the packed weights, which wait
in one without a name. `cached` is the second run with --quantize-cache; `written` is a run on the folder that `qoft
quantize` makes by the same settings. `file_mib` is the size of that folder's weights.

    python load_table.py --qoft target/release/qoft --model models/1.5b-synthetic --json docs/benchmarks/loading.json

What the file has of other ways stays. The model's files should be in the system's cache: the first run is made
twice. The number of threads is that of qoft: set RAYON_NUM_THREADS.
"""

import argparse
import json
import pathlib
import subprocess
import tempfile
import threading
import time

from memory_table import MIB, rows, status

FOUR = ["--load-in-4bit", "--bnb-4bit-quant-type", "nf4"]
WAYS = {
    "dense": [],
    "nf4": FOUR,
    "nf4, double quantization": [*FOUR, "--bnb-4bit-use-double-quant"],
    "LLM.int8": ["--load-in-8bit"],
    "HQQ 4 bit, groups of 64": ["--load-in", "hqq,nbits=4,group_size=64"],
    "GPTQ 4 bit, groups of 128": ["--load-in", "gptq,bits=4,group_size=128"],
    "FP8, blocks of 128 × 128": ["--load-in", "fp8"],
}
#: Those that are also kept and written.
KEPT = ["nf4"]


def watch(process, peak):
    while process.poll() is None:
        try:
            now = status(process.pid)
        except (FileNotFoundError, ProcessLookupError):
            return
        if "VmHWM" in now:
            peak.update({name: max(value, now[name]) for name, value in peak.items()})
        time.sleep(0.005)


def measure(args, model, options, folder):
    begin = time.perf_counter()
    process = subprocess.Popen(
        [
            *(args.qoft, "train", "--model", model, *options, "--data", folder / "rows.jsonl", "--json"),
            *("--output", folder / "adapter", "--target-modules", "all-linear", "--oft-block-size", "32"),
            *("--batch-size", "1", "--max-length", "16", "--max-steps", "1", "--logging-steps", "1"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    peak = {"VmHWM": 0, "RssAnon": 0}
    watcher = threading.Thread(target=watch, args=(process, peak))
    watcher.start()
    step, messages = None, []
    for line in process.stderr:
        messages.append(line)
        if line.startswith("step "):
            step = time.perf_counter() - begin
    output = process.stdout.read()
    watcher.join()
    if process.wait():
        raise RuntimeError("".join(messages))
    peak = {name: value * 1024 / MIB for name, value in peak.items()}
    subprocess.run(["rm", "-r", folder / "adapter"], check=True)
    return {
        "load_seconds": json.loads(output)["loading_seconds"],
        "first_step_seconds": step,
        "peak_mib": peak["VmHWM"],
        "anonymous_mib": peak["RssAnon"],
    }


def written(args, options, folder):
    """The folder of the quantized model."""
    output = folder / "written"
    command = [args.qoft, "quantize", "--model", args.model, *options, "--output", output]
    subprocess.run(command, check=True, capture_output=True)
    return output


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--qoft", type=pathlib.Path, required=True, help="the program")
    parser.add_argument("--model", type=pathlib.Path, required=True, help="a dense checkpoint folder")
    parser.add_argument("--way", action="append", choices=WAYS, help="several times; all of them unless given")
    parser.add_argument("--json", type=pathlib.Path, required=True, help="the file of the figures")
    args = parser.parse_args()
    args.qoft = args.qoft.resolve()
    results = json.loads(args.json.read_text()) if args.json.exists() else []

    def keep(way, start, found):
        nonlocal results
        run = {"model": args.model.name, "way": way, "start": start}
        results = [other for other in results if any(other[key] != value for key, value in run.items())]
        results.append({**run, **found})
        print(results[-1], flush=True)
        args.json.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    with tempfile.TemporaryDirectory(dir=args.model.parent) as folder:
        folder = pathlib.Path(folder)
        vocab = json.loads((args.model / "config.json").read_text())["vocab_size"]
        rows(folder / "rows.jsonl", vocab, 1, 16)
        measure(args, args.model, [], folder)
        for way in args.way or WAYS:
            options = WAYS[way]
            keep(way, "from dense weights", measure(args, args.model, options, folder))
            if way not in KEPT:
                continue
            cached = [*options, "--quantize-cache", folder / "cache"]
            keep(way, "first with a cache", measure(args, args.model, cached, folder))
            keep(way, "cached", measure(args, args.model, cached, folder))
            model = written(args, options, folder)
            size = sum(file.stat().st_size for file in model.glob("*.safetensors")) / MIB
            keep(way, "written", {**measure(args, model, [], folder), "file_mib": size})


if __name__ == "__main__":
    main()

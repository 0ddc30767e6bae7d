"""Compares qoft with the schemes' own libraries on files that the fixtures do not have.

    python check_odd.py --qoft target/release/qoft --llama-cpp package/bins/linux-x64 \
        --json docs/benchmarks/odd.json [CASE…]

Each case is a small llama, quantized and saved by the scheme's library in a setting that no fixture has
(odd_files.py, odd_gguf.py); `--list` prints their names. Of each:

  loss       of `qoft eval`, against the library's dequantized weights in a dense model in float32
  weights    of `qoft dequantize --dtype float32`, bit for bit against the same
  training   eight steps with PEFT's OFT on the dense model and with `qoft train`: the largest difference of a
             loss, and the cosine of the adapters
  merge      of that adapter into the scheme: the library reads the folder, and has the loss that `qoft eval` has
  caches     whether scales of caches stay in a merge, and are gone in a dense folder

A case that fails is told, and the script ends with 1. What the file of --json has of other cases stays.

A case that fails is told, and the script ends with 1. What the file of --json has of other cases stays.

Libraries: requirements-fp8.txt, requirements-fbgemm.txt, requirements-modelopt.txt, requirements-gguf.txt,
requirements-compressed-tensors.txt, requirements-torchao.txt; cases whose library is missing are told. For GGUF,
llama.cpp's quantizer comes from an npm package, see scripts/gguf_llama_cpp.py.
"""

import common  # noqa: F401  (first: fixes the environment)

import argparse
import contextlib
import copy
import io
import json
import shutil
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file

from common import losses, random_rows
from make_train import make_rows, train
import odd_gguf  # noqa: F401  (its cases are among the others)
from odd_files import CASES, PROGRAMS, run, stored

OPTIONS = dict(target_modules="all-linear", oft_block_size=16)
LR = 2e-3


def qoft_loss(folder, rows, *more):
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.writelines(json.dumps({"input_ids": row}) + "\n" for row in rows)
        file.flush()
        return json.loads(run("eval", "--model", folder, "--data", file.name, "--json", *more))["loss"]


def model_of(folder):
    """What qoft is given: the GGUF file of a folder that has one."""
    return next(folder.glob("*.gguf"), folder)


def cosine(one, other):
    """Of two adapters' parameters, which start at zero."""
    one, other = load_file(one / "adapter_model.safetensors"), load_file(other / "adapter_model.safetensors")
    assert one.keys() == other.keys()
    flat = lambda tensors: torch.cat([tensors[name].double().flatten() for name in sorted(tensors)])
    return torch.nn.functional.cosine_similarity(flat(one), flat(other), dim=0).item()


def trained(folder, work, dense):
    """(largest difference of a loss, cosine) of eight steps here and in PEFT."""
    rows = make_rows(dense.config.vocab_size, 4000)
    # The Trainer prints its steps.
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = train(copy.deepcopy(dense), rows, OPTIONS, LR, 1, 1.0, work / "peft", "..")
    (work / "rows.jsonl").write_text("".join(json.dumps({"input_ids": row}) + "\n" for row in rows))
    run(
        *("train", "--model", folder, "--data", work / "rows.jsonl", "--output", work / "adapter"),
        *("--target-modules", "all-linear", "--oft-block-size", 16, "--batch-size", 2, "--no-shuffle"),
        *("--learning-rate", LR, "--lr-scheduler", "linear", "--warmup-steps", 0, "--weight-decay", 0),
        *("--max-grad-norm", 1, "--max-steps", len(theirs["losses"]), "--logging-steps", 1),
    )
    log = [json.loads(line) for line in (work / "adapter/log.jsonl").read_text().splitlines()]
    ours = [entry["loss"] for entry in log if "loss" in entry]
    assert len(ours) == len(theirs["losses"])
    worst = max(abs(a - b) for a, b in zip(ours, theirs["losses"]))
    return worst, cosine(work / "peft", work / "adapter")


def check(name, make):
    print(name, flush=True)
    problems, found = [], {"case": name}

    def hold(what, is_right, told, **numbers):
        found.update(numbers)
        print(f"    {what}: {told}", flush=True)
        if not is_right:
            problems.append(what)

    folder = ARGS.out / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    load = make(folder)
    dense = load(folder)
    model = model_of(folder)
    rows = random_rows([40, 33, 21, 64], dense.config.vocab_size, 900)
    layers = json.loads(run("inspect", model, "--json"))["layers"]
    found["layers"] = sorted({f"{layer['backend']} {layer['format']}" for layer in layers})
    print(f"    {len(layers)} layers: {', '.join(found['layers'])}")
    theirs, ours = losses(dense.eval(), rows)[0], qoft_loss(model, rows)
    off = abs(theirs - ours)
    hold("loss", off < 2e-4, f"{ours:.6f}, off {off:.1e}", loss=ours, loss_off=off)
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        run("dequantize", model, "--output", work / "dense", "--dtype", "float32")
        ours, state = stored(work / "dense"), dense.state_dict()
        other = [key for key in ours if not torch.equal(ours[key], state[key])]
        left = [key for key in ours if key not in state]
        told = f"{len(ours)} tensors, other: {other[:3]}, left: {left[:3]}"
        hold("weights", not other and not left, told, other_weights=len(other + left))
        worst, same = trained(model, work, dense)
        told = f"losses off {worst:.1e}, cosine {same:.6f}"
        hold("training", worst < 1e-3 and same > 0.999, told, training_off=worst, cosine=same)
        merged = work / "merged"
        run("merge", "--model", model, "--adapter", work / "adapter", "--min-kept", 0, "--output", merged)
        theirs, ours = losses(load(merged).eval(), rows)[0], qoft_loss(model_of(merged), rows)
        off = abs(theirs - ours)
        hold("merge", off < 2e-4, f"{ours:.6f}, off {off:.1e} in the library", loss_merged=ours, merged_off=off)
        caches = [key for key in stored(folder) if key.endswith(("k_scale", "v_scale", "k_bias", "v_bias"))]
        if caches:
            kept = [key for key in caches if key in stored(merged)]
            hold("caches", kept == caches and not left, f"{len(kept)} of {len(caches)} stay", cache_tensors=len(kept))
    if not ARGS.keep:
        shutil.rmtree(folder)
    if ARGS.json and not problems:
        results = json.loads(ARGS.json.read_text()) if ARGS.json.exists() else []
        results = [result for result in results if result["case"] != name] + [found]
        ARGS.json.write_text(json.dumps(results, indent=2) + "\n")
    return problems


def main():
    global ARGS
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help="all of them unless given")
    parser.add_argument("--qoft", type=Path, default="target/release/qoft")
    parser.add_argument("--llama-cpp", type=Path, help="folder with llama.cpp's shared libraries")
    out = Path(tempfile.gettempdir()) / "qoft-odd"
    parser.add_argument("--out", type=Path, default=out, help="where files are made")
    parser.add_argument("--json", type=Path, help="the file of the figures")
    parser.add_argument("--keep", action="store_true", help="do not remove them")
    parser.add_argument("--list", action="store_true", help="print the cases")
    ARGS = parser.parse_args()
    PROGRAMS.qoft, PROGRAMS.llama_cpp = ARGS.qoft.resolve(), ARGS.llama_cpp
    if ARGS.list:
        print("\n".join(CASES))
        return
    warnings.simplefilter("ignore")
    transformers.utils.logging.disable_progress_bar()
    failed = {}
    for name in ARGS.cases or CASES:
        try:
            problems = check(name, CASES[name])
        except ImportError as error:
            print(f"    left out: {error}")
            continue
        except Exception as error:
            traceback.print_exc()
            problems = [repr(error)]
        if problems:
            failed[name] = problems
    for name, problems in failed.items():
        print(f"{name}: {', '.join(problems)}", file=sys.stderr)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Trains a model with products in f32 and in bf16, for docs/performance.md.

    python3 scripts/make_text_data.py --out data
    python3 scripts/compute_dtypes.py --qoft target/release/qoft --model models/smollm2-nf4 --data data

The machine has to multiply bf16 (`qoft train --compute-dtype bf16` says if it does not). Writes
docs/benchmarks/compute_dtypes.json and docs/benchmarks/compute_dtypes.svg: the losses of all steps, and those on rows
that were held out. Only Python's own library is needed.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

OUT = Path(__file__).resolve().parent.parent / "docs" / "benchmarks"
DTYPES = {"f32": "#2f7fd0", "bf16": "#d0822f"}
STEPS = 200
OPTIONS = [
    "--target-modules=all-linear",
    "--oft-block-size=32",
    "--learning-rate=1e-3",
    "--batch-size=2",
    "--max-length=128",
    f"--max-steps={STEPS}",
]


def measure(args):
    runs = {}
    for dtype in DTYPES:
        with tempfile.TemporaryDirectory() as folder:
            adapter = Path(folder) / "adapter"
            command = [args.qoft, "train", "--model", args.model, "--data", args.data / "train.jsonl"]
            command += ["--eval-data", args.data / "eval.jsonl", "--output", adapter, "--compute-dtype", dtype, "--json"]
            done = subprocess.run([*command, *OPTIONS], check=True, stdout=subprocess.PIPE, text=True)
            rows = [json.loads(line) for line in (adapter / "log.jsonl").read_text().splitlines()]
        losses = [row["loss"] for row in rows if "learning_rate" in row]
        assert len(losses) == STEPS, f"{len(losses)} steps"
        runs[dtype] = dict(eval_loss=json.loads(done.stdout)["eval_loss"], losses=losses)
    return runs


def svg(runs):
    """Both losses over the steps, one on top of the other."""
    width, height, left, top, right, bottom = 640, 360, 60, 20, 70, 50
    values = [loss for run in runs.values() for loss in run["losses"]]
    least, most = min(values), max(values)
    x = lambda step: left + (width - left - right) * step / (STEPS - 1)
    y = lambda loss: top + (height - top - bottom) * (most - loss) / (most - least)
    text = lambda at, up, words, anchor="middle", fill="#222": (
        f'<text x="{at:.1f}" y="{up:.1f}" text-anchor="{anchor}" fill="{fill}">{words}</text>'
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for step in range(0, STEPS + 1, 50):
        at = x(min(step, STEPS - 1))
        parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{top}" y2="{height - bottom}" stroke="#ddd"/>')
        parts.append(text(at, height - bottom + 18, step))
    for part in range(5):
        loss = least + (most - least) * part / 4
        parts.append(f'<line x1="{left}" x2="{width - right}" y1="{y(loss):.1f}" y2="{y(loss):.1f}" stroke="#ddd"/>')
        parts.append(text(left - 8, y(loss) + 4, f"{loss:.2f}", "end"))
    for number, (dtype, run) in enumerate(runs.items()):
        points = " ".join(f"{x(step):.1f},{y(loss):.2f}" for step, loss in enumerate(run["losses"]))
        # The second one is thinner, so that both can be seen.
        stroke = f'stroke="{DTYPES[dtype]}" stroke-width="{3 - 2 * number}"'
        parts.append(f'<polyline fill="none" {stroke} points="{points}"/>')
        parts.append(text(width - right + 8, top + 20 + 20 * number, dtype, "start", DTYPES[dtype]))
    parts.append(text((left + width - right) / 2, height - 10, "step"))
    parts.append(f'<g transform="translate(16 {height / 2}) rotate(-90)">{text(0, 0, "loss")}</g>')
    return "\n".join([*parts, "</svg>", ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--qoft", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="the folder that make_text_data.py wrote")
    args = parser.parse_args()
    runs = measure(args)
    OUT.mkdir(exist_ok=True)
    (OUT / "compute_dtypes.json").write_text(json.dumps(dict(options=" ".join(OPTIONS), **runs), indent=1) + "\n")
    (OUT / "compute_dtypes.svg").write_text(svg(runs))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Trains the quickstart's model with several block sizes and learning rates, for docs/tutorial.md.

    python3 scripts/choices.py --qoft target/release/qoft

Writes docs/benchmarks/choices.json and docs/benchmarks/choices.svg: the loss on rows that were held out, before and
after. Only Python's own library is needed.
"""

import argparse
import json
import math
import re
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "crates" / "qoft-cli" / "quickstart"
OUT = ROOT / "docs" / "benchmarks"
BLOCKS = [8, 16, 32, 64]
RATES = [2.5e-4, 1e-3, 4e-3, 1.6e-2, 6.4e-2]
STEPS = 60
TRAINING = ["--target-modules=all-linear", f"--max-steps={STEPS}", "--batch-size=8", "--max-length=48"]
COLOURS = ["#7fb3e6", "#2f7fd0", "#d0822f", "#a83232"]


def qoft(program, *args):
    done = subprocess.run([program, *args], check=True, capture_output=True, text=True)
    return json.loads(done.stdout), done.stderr


def measure(program):
    evaluate = ["eval", "--model", MODEL, "--data", MODEL / "eval.jsonl", "--max-length=48", "--json"]
    before = qoft(program, *evaluate)[0]["loss"]
    runs = []
    for block in BLOCKS:
        for rate in RATES:
            with tempfile.TemporaryDirectory() as folder:
                adapter = Path(folder) / "adapter"
                options = [*TRAINING, f"--oft-block-size={block}", f"--learning-rate={rate}"]
                told, said = qoft(
                    program, "train", "--model", MODEL, "--data", MODEL / "data.jsonl", "--output", adapter, "--json", *options
                )
                after = qoft(program, *evaluate, "--adapter", adapter)[0]["loss"]
            trained = int(re.search(r"trainable params: ([\d,]+)", said)[1].replace(",", ""))
            runs.append(
                dict(block=block, rate=rate, steps=told["steps"], trained=trained, loss_before=before, loss=after)
            )
            print(runs[-1], flush=True)
    return runs


def svg(runs):
    """The losses over the rates, a line for each block size."""
    width, height, left, top, right, bottom = 640, 380, 64, 24, 150, 56
    before = runs[0]["loss_before"]
    # Rates that are far too high leave the picture.
    most = before + 0.4 * (before - min(run["loss"] for run in runs))
    least = min(run["loss"] for run in runs) - 0.03
    log = math.log10
    x = lambda rate: left + (width - left - right) * (log(rate) - log(RATES[0])) / (log(RATES[-1]) - log(RATES[0]))
    y = lambda loss: top + (height - top - bottom) * (most - min(loss, most)) / (most - least)
    text = lambda at, up, words, anchor="middle", fill="#222": (
        f'<text x="{at:.1f}" y="{up:.1f}" text-anchor="{anchor}" fill="{fill}">{words}</text>'
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for rate in RATES:
        parts.append(f'<line x1="{x(rate):.1f}" x2="{x(rate):.1f}" y1="{top}" y2="{height - bottom}" stroke="#ddd"/>')
        parts.append(text(x(rate), height - bottom + 18, f"{rate:g}"))
    steps = 5
    for step in range(steps + 1):
        loss = least + (most - least) * step / steps
        parts.append(f'<line x1="{left}" x2="{width - right}" y1="{y(loss):.1f}" y2="{y(loss):.1f}" stroke="#ddd"/>')
        parts.append(text(left - 8, y(loss) + 4, f"{loss:.2f}", "end"))
    parts.append(
        f'<line x1="{left}" x2="{width - right}" y1="{y(before):.1f}" y2="{y(before):.1f}" stroke="#777" stroke-dasharray="5 4"/>'
    )
    parts.append(text(width - right + 10, y(before) + 4, "untrained", "start", "#777"))
    for index, (block, colour) in enumerate(zip(BLOCKS, COLOURS)):
        of = [run for run in runs if run["block"] == block]
        points = " ".join(f"{x(run['rate']):.1f},{y(run['loss']):.1f}" for run in of)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x(run["rate"]):.1f}" cy="{y(run["loss"]):.1f}" r="3" fill="{colour}"/>' for run in of]
        at = height - bottom - 16 * (len(BLOCKS) - index)
        parts.append(f'<line x1="{width - right + 10}" x2="{width - right + 30}" y1="{at - 4}" y2="{at - 4}" stroke="{colour}" stroke-width="2"/>')
        parts.append(text(width - right + 36, at, f"block size {block}", "start"))
    parts.append(text(left + (width - left - right) / 2, height - 14, "learning rate"))
    middle = top + (height - top - bottom) / 2
    parts.append(f'<text transform="translate(16 {middle}) rotate(-90)" text-anchor="middle">loss on held-out rows</text>')
    return "\n".join(parts + ["</svg>\n"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--qoft", default="qoft", help="the program")
    parser.add_argument("--draw", action="store_true", help="only draw what was measured before")
    args = parser.parse_args()
    file = OUT / "choices.json"
    runs = json.loads(file.read_text(encoding="utf-8")) if args.draw else measure(args.qoft)
    file.write_text("[\n" + ",\n".join(" " + json.dumps(run) for run in runs) + "\n]\n", encoding="utf-8")
    (OUT / "choices.svg").write_text(svg(runs), encoding="utf-8")


if __name__ == "__main__":
    main()

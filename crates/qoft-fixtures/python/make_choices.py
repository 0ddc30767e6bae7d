"""data/choices: questions with several answers, and what lm-evaluation-harness makes of them.

questions.jsonl  the questions, with answers of different lengths, some of them with spaces at the end of the question
expected.json    for the model llama_nf4 of data/models and the tokenizer of data/tokenizer: `acc`, `acc_norm` and
                 their standard errors, as `simple_evaluate` tells them, and the log-likelihood of each answer

Its interpreter has requirements-lm-eval.txt.
"""

import json
import random
import shutil
import tempfile
from pathlib import Path

from common import DATA, plain_4bit_forward, write_json

import lm_eval
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, AutoTokenizer

MODEL = "llama_nf4"
COUNT = 40
WORDS = "the king went into garden and said that it was good evening to her sister who had seen him".split()
TASK = """
task: choices
dataset_path: json
dataset_kwargs:
  data_files: {file}
test_split: train
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list:
  - metric: acc
  - metric: acc_norm
"""


def questions():
    draws = random.Random(7)
    words = lambda least, most: " ".join(draws.choices(WORDS, k=draws.randint(least, most)))
    for number in range(COUNT):
        choices = [words(1, 4) for _ in range(draws.randint(2, 5))]
        yield dict(question=words(2, 6).capitalize(), choices=choices, answer=draws.randrange(len(choices)))


def main():
    folder = DATA / "choices"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    rows = list(questions())
    file = folder / "questions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    plain_4bit_forward()
    model = AutoModelForCausalLM.from_pretrained(DATA / "models" / MODEL, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(DATA / "tokenizer")
    longest = max(len(tokenizer(row["question"] + " " + choice).input_ids) for row in rows for choice in row["choices"])
    assert longest <= 64, f"{longest} tokens would be cut"
    wrapped = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1, max_length=64)
    with tempfile.TemporaryDirectory() as tasks:
        (Path(tasks) / "choices.yaml").write_text(TASK.format(file=file), encoding="utf-8")
        found = lm_eval.simple_evaluate(
            wrapped, tasks=["choices"], task_manager=TaskManager(include_path=tasks), bootstrap_iters=10, log_samples=True
        )
    told = found["results"]["choices"]
    samples = sorted(found["samples"]["choices"], key=lambda sample: sample["doc_id"])
    write_json(
        folder / "expected.json",
        dict(
            model=MODEL,
            acc=told["acc,none"],
            acc_norm=told["acc_norm,none"],
            acc_stderr=told["acc_stderr,none"],
            acc_norm_stderr=told["acc_norm_stderr,none"],
            log_likelihoods=[[answer[0] for answer in sample["filtered_resps"]] for sample in samples],
        ),
    )
    print({key: told[key] for key in told if key.startswith("acc")})


if __name__ == "__main__":
    main()

"""Merges an OFT adapter with PEFT and measures the losses before and after, or the time, to compare qoft with.

Rows, their tokens (the text and the token that ends it) and the mean over all predicted tokens are
those of `qoft eval`. Everything in float32 on the CPU; modules are used in training mode, in which
bitsandbytes multiplies with the dequantized weights.

    python peft_merge.py --model models/SmolLM2-135M-Instruct-nf4 --adapter runs/smollm2 \\
        --eval data/eval.jsonl other/eval.jsonl

--save DIR writes the merged model, and says how long it took from the load of the model on.

HQQ models need hqq and transformers 4 (requirements-hqq.txt) and peft.
"""

import argparse
import json
import pathlib
import time

import torch
from peft import PeftConfig, PeftModel
from peft_model import adapter_names, load
from tokenizers import Tokenizer


def adapted(args):
    config = PeftConfig.from_pretrained(args.adapter)
    config.target_modules = adapter_names(args.adapter)
    return PeftModel.from_pretrained(load(args.model), args.adapter, config=config)


def saved(args):
    """Writes the merged model."""
    began = time.perf_counter()
    # transformers 5 cannot turn bitsandbytes' tensors back into the names of the original file.
    adapted(args).merge_and_unload().save_pretrained(args.save, save_original_format=False)
    return {"model": args.model, "merge_s": time.perf_counter() - began}


def losses(model, rows):
    """The mean loss of each list of rows."""
    model.train()
    found = []
    for texts in rows:
        total, count = 0.0, 0
        for ids in texts:
            ids = torch.tensor([ids])
            with torch.no_grad():
                logits = model(input_ids=ids, use_cache=False).logits.float()
            total += torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:], reduction="sum").item()
            count += ids.shape[1] - 1
        found.append(total / count)
    return found


def measured(args):
    """The losses before and after a merge in memory."""
    folder = pathlib.Path(args.model)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    end = json.loads((folder / "tokenizer_config.json").read_text())["eos_token"]
    end = [tokenizer.token_to_id(end if isinstance(end, str) else end["content"])]
    texts = [[json.loads(line)["text"] for line in path.read_text().splitlines() if line] for path in args.eval]
    rows = [[tokenizer.encode(text).ids + end for text in file] for file in texts]
    model = adapted(args)
    result = {"adapted": losses(model, rows)}
    with model.disable_adapter():
        result["base"] = losses(model, rows)
    # merge_and_unload fails on HQQ's layers; what it merges is the same.
    model.merge_adapter()
    result["merged"] = losses(model, rows)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--adapter", required=True)
    parser.add_argument("--eval", type=pathlib.Path, nargs="+")
    parser.add_argument("--save", type=pathlib.Path, help="writes the merged model here")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=pathlib.Path, help="writes the figures here as well")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    if not args.eval and not args.save:
        parser.error("--eval or --save is missing")
    result = saved(args) if args.save else {"model": args.model}
    if args.eval:
        result.update(measured(args))
    text = json.dumps(result, indent=2)
    print(text)
    if args.json:
        args.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

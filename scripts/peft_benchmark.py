"""Trains an OFT adapter with PEFT and measures it, to compare qoft with.

The same model folder, rows and order (not shuffled, wrapping around), right padding,
truncation at --max-length, mean loss over the predicted tokens, AdamW at a constant
rate. Everything in float32 on the CPU.

    python peft_benchmark.py --model models/SmolLM2-135M-Instruct-nf4 --data data/train.jsonl

The modules are used in training mode as they are: in evaluation mode bitsandbytes may
take another path (bf16 on CPUs with AVX512-BF16), which this script never enters.
"""

import argparse
import json
import logging
import pathlib
import resource
import statistics
import time

STARTED = time.perf_counter()  # before the imports: loading the libraries is part of the start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=pathlib.Path, required=True, help='.jsonl with {"text": ...} rows')
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--block-size", type=int, default=32)
    parser.add_argument("--target-modules", default="all-linear", help="all-linear, or names with commas")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--weight-decay", type=float, default=0.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing")
    parser.add_argument("--json", type=pathlib.Path, help="writes the summary here as well")
    parser.add_argument("--save", type=pathlib.Path, help="saves the adapter here")
    args = parser.parse_args()

    import torch
    from peft import OFTConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

    tokenizer = AutoTokenizer.from_pretrained(args.model)
    rows = [json.loads(line)["text"] for line in args.data.read_text(encoding="utf-8").splitlines() if line]
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    model.config.use_cache = False
    targets = args.target_modules if args.target_modules == "all-linear" else args.target_modules.split(",")
    model = get_peft_model(
        model,
        OFTConfig(
            r=0,
            oft_block_size=args.block_size,
            target_modules=targets,
            task_type="CAUSAL_LM",
        ),
    )
    if args.checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    wrong = {str(p.dtype) for p in trained} - {"torch.float32"}
    if wrong:
        raise SystemExit(f"adapter parameters are in {sorted(wrong)}, not float32")
    optimizer = torch.optim.AdamW(trained, lr=args.lr, weight_decay=args.weight_decay)

    losses, seconds, tokens, real_tokens, first = [], [], 0, 0, None
    for step in range(args.steps):
        began = time.perf_counter()
        batch = [rows[(step * args.batch_size + i) % len(rows)] for i in range(args.batch_size)]
        encoded = tokenizer(
            batch, padding=True, truncation=True, max_length=args.max_length, padding_side="right", return_tensors="pt"
        )
        # A pad token may be a real token too, so the labels follow the mask, not the token.
        labels = encoded["input_ids"].masked_fill(encoded["attention_mask"] == 0, -100)
        loss = model(input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"], labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if first is None:
            first = time.perf_counter() - STARTED
        else:
            seconds.append(time.perf_counter() - began)
            tokens += encoded["input_ids"].numel()
            real_tokens += int(encoded["attention_mask"].sum())
        print(f"step {step + 1}  loss {losses[-1]:.6f}  {time.perf_counter() - began:.2f} s", flush=True)
    if args.save:
        model.save_pretrained(args.save)

    summary = {
        "library": "peft",
        "model": args.model,
        "steps": args.steps,
        "batch_size": args.batch_size,
        "max_length": args.max_length,
        "block_size": args.block_size,
        "target_modules": args.target_modules,
        "lr": args.lr,
        "threads": args.threads,
        "checkpointing": args.checkpointing,
        "trainable_parameters": sum(p.numel() for p in trained),
        "seconds_per_step": statistics.median(seconds) if seconds else None,
        "tokens_per_second": tokens / sum(seconds) if seconds else None,
        "unpadded_tokens_per_second": real_tokens / sum(seconds) if seconds else None,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "start_to_first_step_s": first,
        "losses": losses,
    }
    text = json.dumps(summary, indent=2)
    print(text)
    if args.json:
        args.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

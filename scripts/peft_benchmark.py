"""Trains an OFT adapter with PEFT and measures it, to compare qoft with.

The same model folder, rows and order (not shuffled, wrapping around), right padding,
truncation at --max-length, mean loss over the predicted tokens, AdamW at a constant
rate. Everything in float32 on the CPU, or with --dtype bfloat16 all but the adapter's
parameters, as PEFT does it.

    python peft_benchmark.py --model models/SmolLM2-135M-Instruct-nf4 --data data/train.jsonl

The modules are used in training mode as they are: in evaluation mode bitsandbytes may
take another path (bf16 on CPUs with AVX512-BF16), which this script never enters.

HQQ models need hqq and transformers 4 (requirements-hqq.txt).
"""

import argparse
import json
import pathlib
import statistics
import time

STARTED = time.perf_counter()  # before the imports: loading the libraries is part of the start


def read(path, tokenizer, max_length):
    """The token ids of all rows."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    ids = [row["input_ids"] if "input_ids" in row else tokenizer.encode(row["text"]).ids for row in rows]
    return [row[:max_length] for row in ids]


def peak_mb():
    """The largest resident set. Unlike ru_maxrss it does not contain that of the program that started this one."""
    status = pathlib.Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=pathlib.Path, required=True, help='.jsonl with "text" or "input_ids" in each row')
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--block-size", type=int, default=32)
    parser.add_argument("--target-modules", default="all-linear", help="all-linear, or names with commas")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--weight-decay", type=float, default=0.0)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing")
    parser.add_argument("--json", type=pathlib.Path, help="writes the summary here as well")
    parser.add_argument("--save", type=pathlib.Path, help="saves the adapter here")
    args = parser.parse_args()

    import torch
    from peft import OFTConfig, get_peft_model
    from peft_model import linear_names, load
    from tokenizers import Tokenizer

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)

    # transformers 4 does not know the tokenizer's class that transformers 5 writes.
    tokenizer = Tokenizer.from_file(str(pathlib.Path(args.model) / "tokenizer.json"))
    tokenizer.no_truncation()
    rows = read(args.data, tokenizer, args.max_length)
    model = load(args.model, getattr(torch, args.dtype))
    model.config.use_cache = False
    targets = linear_names(model) if args.target_modules == "all-linear" else args.target_modules.split(",")
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

    losses, seconds, cpu_seconds, tokens, real_tokens, first = [], [], [], 0, 0, None
    for step in range(args.steps):
        began, cpu_began = time.perf_counter(), time.process_time()
        batch = [torch.tensor(rows[(step * args.batch_size + i) % len(rows)]) for i in range(args.batch_size)]
        pad = lambda parts, value: torch.nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=value)
        ids, labels, mask = pad(batch, 0), pad(batch, -100), pad([torch.ones_like(row) for row in batch], 0)
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        seconds.append(time.perf_counter() - began)
        cpu_seconds.append(time.process_time() - cpu_began)
        if first is None:
            first = time.perf_counter() - STARTED
        else:
            tokens += ids.numel()
            real_tokens += int(mask.sum())
        print(f"step {step + 1}  loss {losses[-1]:.6f}  {seconds[-1]:.2f} s", flush=True)
    if args.save:
        model.save_pretrained(args.save)

    later = seconds[1:]
    summary = {
        "library": "peft",
        "model": args.model,
        "steps": args.steps,
        "batch_size": args.batch_size,
        "max_length": args.max_length,
        "block_size": args.block_size,
        "target_modules": args.target_modules,
        "lr": args.lr,
        "dtype": args.dtype,
        "threads": args.threads,
        "checkpointing": args.checkpointing,
        "trainable_parameters": sum(p.numel() for p in trained),
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,  # of all threads
        "seconds_per_step": statistics.median(later) if later else None,
        "tokens_per_second": tokens / sum(later) if later else None,
        "unpadded_tokens_per_second": real_tokens / sum(later) if later else None,
        "peak_rss_mb": peak_mb(),
        "start_to_first_step_s": first,
        "losses": losses,
    }
    text = json.dumps(summary, indent=2)
    print(text)
    if args.json:
        args.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

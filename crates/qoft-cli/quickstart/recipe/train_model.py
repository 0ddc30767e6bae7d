"""Trains the quickstart's language model and quantizes it with bitsandbytes.

A llama of some 5 million parameters with a byte-level BPE tokenizer of its own, both
trained on base.txt (see make_data.py). It is saved as an ordinary Hugging Face
folder whose linear layers are nf4 with double quantization.

    python train_model.py --work /tmp/quickstart --out ..

The trained weights stay in --work, so that `--quantize-only` can be used again.
"""

import argparse
import logging
import pathlib
import re
import time

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, GenerationConfig
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

VOCABULARY = 2048
CONTEXT = 256
BOS, EOS, PAD = "<s>", "</s>", "<pad>"


def train_tokenizer(text):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def new_model(tokenizer):
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=256,
            intermediate_size=704,
            num_hidden_layers=6,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=CONTEXT,
            rms_norm_eps=1e-5,
            rope_theta=10000.0,
            tie_word_embeddings=True,
            initializer_range=0.04,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def encode(tokenizer, text):
    """All token ids, and the places where a sentence starts (windows begin there)."""
    ids, starts = [], []
    sentence = re.compile(r'(?<=[.?!;])"?\s+|\n')
    for line in text.splitlines(keepends=True):
        encoded = tokenizer(line, add_special_tokens=False, return_offsets_mapping=True)
        begins = {0} | {m.end() for m in sentence.finditer(line) if line[m.end() : m.end() + 1].isupper()}
        for i, (a, _) in enumerate(encoded["offset_mapping"]):
            if a in begins or (line[a : a + 1] == " " and a + 1 in begins):
                starts.append((len(ids) + i, line[a : a + 1] == " "))
        ids += encoded["input_ids"]
    return np.array(ids, dtype=np.int64), starts


def batch_of(ids, starts, picks, bos, bare):
    rows = np.full((len(picks), CONTEXT), bos, dtype=np.int64)
    for row, pick in zip(rows, picks):
        at, spaced = starts[pick]
        piece = ids[at : at + CONTEXT - 1].copy()
        if spaced:  # a sentence at the start of a text has no space before it
            piece[0] = bare.get(int(piece[0]), piece[0])
        row[1 : 1 + len(piece)] = piece
    return torch.from_numpy(rows)


def train(args, tokenizer, text):
    ids, starts = encode(tokenizer, text)
    starts = [s for s in starts if s[0] + CONTEXT < len(ids)]
    vocabulary = tokenizer.get_vocab()
    bare = {i: vocabulary[t[1:]] for t, i in vocabulary.items() if t[0] == "Ġ" and t[1:] in vocabulary}
    bos = tokenizer.bos_token_id
    # Held out: the windows of every 50th stretch of text.
    held = [i for i, (at, _) in enumerate(starts) if at // 2000 % 50 == 25][::7][:64]
    used = [i for i, (at, _) in enumerate(starts) if not (24 <= at // 2000 % 50 <= 25)]
    print(f"{len(ids)} tokens, {len(text) / len(ids):.2f} characters a token, {len(used)} starts", flush=True)

    model = new_model(tokenizer)
    print(f"{sum(p.numel() for p in model.parameters())} parameters", flush=True)
    hidden = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    optimizers = [
        torch.optim.Muon(hidden, lr=args.lr, momentum=0.95, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=args.lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]

    def lr_at(done):  # warm up, stay, and decay to nothing over the last 40 %
        return min(1.0, done / 0.03, (1.0 - done) / 0.4)

    def loss_of(rows):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.bf16):
            return model(input_ids=rows, labels=rows).loss

    rng = np.random.default_rng(0)
    began, step, done = time.time(), 0, 0.0
    while done < 1.0:
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = args.lr * max(lr_at(done), 0.0)
            optimizer.zero_grad()
        picks = rng.choice(used, size=args.batch_size)
        loss = loss_of(batch_of(ids, starts, picks, bos, bare))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        step += 1
        done = max(step / args.steps, (time.time() - began) / (60 * args.minutes))
        if step % args.report == 0 or done >= 1.0:
            model.eval()
            with torch.no_grad():
                check = np.mean([loss_of(batch_of(ids, starts, held[i : i + 16], bos, bare)).item() for i in range(0, len(held), 16)])
            model.train()
            print(f"step {step}  loss {loss.item():.3f}  held out {check:.3f}  {time.time() - began:.0f} s", flush=True)
            model.save_pretrained(args.work / "dense")
    return model


def quantize(args):
    """The dense model in 16 bits, its linear layers in nf4 with double quantization."""
    model = AutoModelForCausalLM.from_pretrained(
        args.work / "dense",
        dtype=torch.bfloat16,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        ),
    )
    ids = {name: getattr(model.config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    model.generation_config = GenerationConfig(max_new_tokens=60, do_sample=True, temperature=0.7, **ids)
    model.save_pretrained(args.out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=pathlib.Path, required=True, help="folder with base.txt; gets dense/")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder for the quantized model")
    parser.add_argument("--steps", type=int, default=1750)
    parser.add_argument("--minutes", type=float, default=25.0, help="the schedule ends after this time at the latest")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--lr", type=float, default=8e-3)
    parser.add_argument("--report", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bf16", action="store_true", help="bf16 autocast (faster on CPUs with AVX512-BF16)")
    parser.add_argument("--quantize-only", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    logging.getLogger("transformers.tokenization_utils_base").setLevel(logging.ERROR)  # long lines are cut later
    args.out.mkdir(parents=True, exist_ok=True)

    text = (args.work / "base.txt").read_text(encoding="utf-8")
    if not args.quantize_only:
        tokenizer = train_tokenizer(text)
        tokenizer.save_pretrained(args.work / "dense")
        train(args, tokenizer, text)
    PreTrainedTokenizerFast.from_pretrained(args.work / "dense").save_pretrained(args.out)
    quantize(args)


if __name__ == "__main__":
    main()

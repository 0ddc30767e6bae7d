"""data/models/llama_{nf4,int8,fp4_bf16}, data/adapters and data/merged.

The quantized models are one tiny random llama, quantized by transformers with bitsandbytes and
saved with save_pretrained. data/adapters/<case> is a PEFT folder with random non-zero weights,
written before the first forward (COFT changes its parameters there). data/adapters/expected.json:
  rows    token ids of the evaluation rows (one right-padded batch)
  base    {model: values} without an adapter
  cases   {case: values} with the adapter, plus "model" (and "adapters" where several are active)
and the values are
  loss            mean loss over all predicted tokens, f32 arithmetic with the dequantized weights
  row_losses      the mean of each row
  loss_int8_eval, row_losses_int8_eval
                  int8 models only: the evaluation forward with int8 activations, of the padded batch
                  and of each row alone
  loss_blob_rounded, loss_bf16
                  the bf16 checkpoint only. There "loss" takes 4-bit weights dequantized straight to
                  f32; in loss_blob_rounded they are rounded to bf16, the dtype of the quantized
                  weight, first; in loss_bf16 the model runs in bf16 as it is stored.

data/merged/<case>.safetensors holds the tensors of some layers after merge_and_unload.
"""

from common import (
    check_no_repack,
    fresh,
    generator,
    losses,
    plain_4bit_forward,
    random_rows,
    randomize,
    write_json,
    DATA,
)
from make_models import auto_class

import json
import tempfile

import bitsandbytes as bnb
import torch
from peft import OFTConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig

plain_4bit_forward()

VOCAB = 320  # that of data/tokenizer
ROWS = random_rows([24, 17, 9], VOCAB, 900)

LLAMA = LlamaConfig(
    vocab_size=VOCAB,
    hidden_size=64,
    intermediate_size=192,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    tie_word_embeddings=True,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
)

MODELS = {
    "llama_nf4": (
        torch.float32,
        BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True),
    ),
    "llama_int8": (torch.float32, BitsAndBytesConfig(load_in_8bit=True)),
    "llama_fp4_bf16": (torch.bfloat16, BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="fp4")),
}

PAIR = ["q_proj", "down_proj"]
NO_NEUMANN = dict(use_cayley_neumann=False)

# case: (model, OFTConfig arguments)
ADAPTERS = {
    "cayley": ("llama_nf4", dict(target_modules=PAIR, oft_block_size=16, **NO_NEUMANN)),
    **{
        f"neumann{terms}": (
            "llama_nf4",
            dict(target_modules=PAIR, oft_block_size=16, num_cayley_neumann_terms=terms),
        )
        for terms in range(1, 9)
    },
    "all_linear": ("llama_nf4", dict(target_modules="all-linear", oft_block_size=32)),
    "all_linear_exclude": (
        "llama_nf4",
        dict(target_modules="all-linear", exclude_modules=["down_proj"], oft_block_size=8),
    ),
    # No block, some blocks and all blocks are projected.
    "coft_none": ("llama_nf4", dict(target_modules=PAIR, oft_block_size=16, coft=True, eps=50.0)),
    "coft_some": ("llama_nf4", dict(target_modules=PAIR, oft_block_size=16, coft=True, eps=1.55)),
    "coft_all": (
        "llama_nf4",
        dict(target_modules=PAIR, oft_block_size=16, coft=True, eps=0.8, **NO_NEUMANN),
    ),
    "coft_default_eps": ("llama_nf4", dict(target_modules=PAIR, oft_block_size=16, coft=True)),
    "block_share": ("llama_nf4", dict(target_modules="all-linear", oft_block_size=16, block_share=True)),
    "block_share_coft": (
        "llama_nf4",
        dict(target_modules=PAIR, oft_block_size=16, block_share=True, coft=True, eps=0.4),
    ),
    "rank": ("llama_nf4", dict(target_modules=["v_proj", "up_proj"], oft_block_size=0, r=8)),
    # 24 divides 192; for 64 it is as far from 16 as from 32. 5 is as far from 4 as from 6, for 192.
    "adjusted_block": ("llama_nf4", dict(target_modules=PAIR, oft_block_size=24)),
    "adjusted_rank": ("llama_nf4", dict(target_modules=PAIR, oft_block_size=0, r=5)),
    "whole_input": ("llama_nf4", dict(target_modules=["k_proj"], oft_block_size=100)),
    "layers_list": ("llama_nf4", dict(target_modules=PAIR, oft_block_size=16, layers_to_transform=[1])),
    "layers_int": (
        "llama_nf4",
        dict(target_modules=PAIR, oft_block_size=16, layers_to_transform=0, layers_pattern="layers"),
    ),
    "regex": (
        "llama_nf4",
        dict(target_modules=r".*\.layers\.0\.(self_attn\.(q|v)_proj|mlp\.down_proj)", oft_block_size=16),
    ),
    "list_names": ("llama_nf4", dict(target_modules=["q_proj", "v_proj"], oft_block_size=8)),
    "list_paths": (
        "llama_nf4",
        dict(target_modules=["self_attn.o_proj", "model.layers.1.mlp.up_proj"], oft_block_size=8),
    ),
    "embedding": ("llama_nf4", dict(target_modules=["embed_tokens", "q_proj"], oft_block_size=16)),
    "second": ("llama_nf4", dict(target_modules=PAIR, oft_block_size=32)),
    "dropout": ("llama_nf4", dict(target_modules=PAIR, oft_block_size=16, module_dropout=0.3)),
    "int8_cayley": ("llama_int8", dict(target_modules=PAIR, oft_block_size=16, **NO_NEUMANN)),
    "int8_all_linear": ("llama_int8", dict(target_modules="all-linear", oft_block_size=16)),
    "fp4_bf16_all_linear": ("llama_fp4_bf16", dict(target_modules="all-linear", oft_block_size=16)),
    "dense_all_linear": ("llama", dict(target_modules="all-linear", oft_block_size=8)),
}

MERGED = {
    "cayley": ["model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"],
    "all_linear": ["model.layers.0.self_attn.k_proj", "model.layers.1.mlp.up_proj"],
    "int8_cayley": ["model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"],
    "fp4_bf16_all_linear": ["model.layers.0.self_attn.k_proj", "model.layers.1.mlp.down_proj"],
    "dense_all_linear": ["model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"],
}


def rows_for(name):
    return [[token % 64 for token in row] for row in ROWS] if name == "llama" else ROWS


def make_models():
    dense = AutoModelForCausalLM.from_config(LLAMA, dtype=torch.float32)
    randomize(dense, 77)
    with tempfile.TemporaryDirectory() as source:
        for name, (dtype, quantization) in MODELS.items():
            dense.to(dtype).save_pretrained(source)
            model = AutoModelForCausalLM.from_pretrained(
                source, dtype=dtype, quantization_config=quantization, device_map="cpu"
            )
            folder = fresh("models", name)
            model.save_pretrained(folder)
            (folder / "generation_config.json").unlink(missing_ok=True)


def load(name, dtype=torch.float32):
    folder = DATA / "models" / name
    kind = auto_class(AutoConfig.from_pretrained(folder))
    model = kind.from_pretrained(folder, dtype=dtype, device_map="cpu", attn_implementation="eager")
    check_no_repack(model)
    # A quantized checkpoint keeps the dtype of its dense tensors, whatever dtype is asked for.
    for parameter in model.parameters():
        if type(parameter) is torch.nn.Parameter and parameter.dtype.is_floating_point:
            parameter.data = parameter.data.to(dtype)
    return model


def round_to_blob(model):
    """Makes every 4-bit layer multiply with its weight rounded to the dtype of its quantized weight."""
    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            weight = bnb.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
            assert weight.dtype == module.weight.quant_state.dtype
            module.forward = lambda x, w=weight.to(torch.float32): torch.nn.functional.linear(x, w)


def evaluate(name, adapt):
    """The expected values; `adapt` puts the adapters on a freshly loaded model."""
    rows = rows_for(name)
    model = adapt(load(name))
    # Training mode gives the forward with dequantized weights on int8 layers. There is no dropout.
    model.train(name == "llama_int8")
    loss, row_losses, _ = losses(model, rows)
    values = {"loss": loss, "row_losses": row_losses}
    if name == "llama_int8":
        model.eval()
        values["loss_int8_eval"] = losses(model, rows)[0]
        values["row_losses_int8_eval"] = [losses(model, [row])[0] for row in rows]
    if name == "llama_fp4_bf16":
        model = load(name)
        round_to_blob(model)
        values["loss_blob_rounded"] = losses(adapt(model).eval(), rows)[0]
        values["loss_bf16"] = losses(adapt(load(name, torch.bfloat16)).eval(), rows)[0]
    return values


def randomize_adapter(model, seed=7):
    gen = generator(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if "oft_" in name:
                parameter.copy_(0.05 * torch.randn(parameter.shape, generator=gen))


def clean_config(folder, model, **changes):
    """A fixed order of the lists that PEFT keeps as sets, the relative path `model`, and `changes`."""
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    for key in ("target_modules", "exclude_modules"):
        if isinstance(config[key], list):
            config[key].sort()
    config["base_model_name_or_path"] = model
    write_json(path, config | changes)
    (folder / "README.md").unlink(missing_ok=True)


def make_adapter(case):
    name, options = ADAPTERS[case]
    model = get_peft_model(load(name), OFTConfig(task_type="CAUSAL_LM", **options))
    randomize_adapter(model, 8 if case == "second" else 7)
    folder = fresh("adapters", case)
    model.save_pretrained(folder)
    # PEFT saves the list of modules that "all-linear" stood for; two cases keep the word.
    keep = case in ("block_share", "all_linear_exclude")
    clean_config(folder, f"../../models/{name}", **({"target_modules": "all-linear"} if keep else {}))


def adapter(case):
    return lambda model: PeftModel.from_pretrained(model, DATA / "adapters" / case)


def two_adapters(model):
    model = PeftModel.from_pretrained(model, DATA / "adapters" / "neumann5", adapter_name="first")
    model.load_adapter(DATA / "adapters" / "second", adapter_name="second")
    model.base_model.set_adapter(["first", "second"])
    return model


def make_merged(case):
    name, _ = ADAPTERS[case]
    # A bf16 checkpoint is merged in its own dtype.
    model = load(name, torch.bfloat16 if "bf16" in name else torch.float32)
    model = adapter(case)(model).merge_and_unload()
    prefixes = tuple(layer + "." for layer in MERGED[case])
    tensors = {k: v.clone().contiguous() for k, v in model.state_dict().items() if k.startswith(prefixes)}
    save_file(tensors, DATA / "merged" / f"{case}.safetensors", metadata={"format": "pt"})


def main():
    make_models()
    root = fresh("adapters")
    expected = {"rows": ROWS, "base": {}, "cases": {}}
    for name in [*MODELS, "llama"]:
        expected["base"][name] = evaluate(name, lambda model: model)
        print(f"{name:24} {expected['base'][name]}")
    for case, (name, _) in ADAPTERS.items():
        make_adapter(case)
        expected["cases"][case] = {"model": name} | evaluate(name, adapter(case))
        print(f"{case:24} {expected['cases'][case]['loss']:.6f}")
    expected["cases"]["two_adapters"] = {
        "model": "llama_nf4",
        "adapters": ["neumann5", "second"],
    } | evaluate("llama_nf4", two_adapters)
    # The dense model has a vocabulary of 64: its rows are the rows modulo 64.
    expected["rows_dense"] = rows_for("llama")
    write_json(root / "expected.json", expected)
    fresh("merged")
    for case in MERGED:
        make_merged(case)


if __name__ == "__main__":
    main()

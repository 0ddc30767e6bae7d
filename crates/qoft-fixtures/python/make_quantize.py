"""data/quantize: small dense models, and what transformers makes of them with a quantization_config.

Each folder is a dense checkpoint. cases.json has, for each case, the folder, the configuration that was
given and the one that is written, and of every tensor that `save_pretrained` writes its dtype, its shape
and the SHA-256 of its bytes.
"""

from common import DATA, fresh, randomize, write_json

import hashlib
import json
import tempfile
from pathlib import Path

import torch
from safetensors.torch import safe_open
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, GPT2Config, LlamaConfig, Qwen2Config

LLAMA = dict(
    vocab_size=97, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64,
)

# folder: configuration, dtype of the file, dtype that config.json names
MODELS = {
    "llama_bf16": (LlamaConfig(**LLAMA, tie_word_embeddings=True), torch.bfloat16, "bfloat16"),
    "llama_f32": (LlamaConfig(**LLAMA, tie_word_embeddings=False), torch.float32, "float32"),
    # The weights are rounded to the dtype that the configuration names.
    "qwen2_f32_as_f16": (
        Qwen2Config(**LLAMA, tie_word_embeddings=False), torch.float32, "float16",
    ),
    # No block of 64 weights straddles two rows.
    "llama_wide_bf16": (LlamaConfig(**LLAMA | dict(intermediate_size=128), tie_word_embeddings=True), torch.bfloat16, "bfloat16"),
    "gpt2_bf16": (
        GPT2Config(vocab_size=97, n_positions=64, n_embd=64, n_layer=2, n_head=4), torch.bfloat16, "bfloat16",
    ),
}

NF4 = dict(load_in_4bit=True, bnb_4bit_quant_type="nf4")
# case: folder, arguments of BitsAndBytesConfig
CASES = {
    "nf4": ("llama_bf16", NF4),
    "nf4_double": ("llama_f32", dict(NF4, bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype="bfloat16")),
    "default": ("llama_f32", dict(load_in_4bit=True)),
    "fp4_storage": (
        "llama_bf16",
        dict(load_in_4bit=True, bnb_4bit_quant_type="fp4", bnb_4bit_quant_storage="bfloat16"),
    ),
    "rounded": ("qwen2_f32_as_f16", NF4),
    "int8": ("llama_bf16", dict(load_in_8bit=True)),
    "int8_rounded": ("qwen2_f32_as_f16", dict(load_in_8bit=True, llm_int8_threshold=4.5)),
    "skips": (
        "llama_f32",
        dict(NF4, llm_int8_skip_modules=["q_proj", r"model\.layers\.1\.mlp", "layers.0", "down"]),
    ),
    "wide_nf4": ("llama_wide_bf16", NF4),
    "wide_nf4_double": ("llama_wide_bf16", dict(NF4, bnb_4bit_use_double_quant=True)),
    "wide_fp4": ("llama_wide_bf16", dict(load_in_4bit=True)),
    "wide_fp4_double": ("llama_wide_bf16", dict(load_in_4bit=True, bnb_4bit_use_double_quant=True)),
    "wide_int8": ("llama_wide_bf16", dict(load_in_8bit=True)),
    "gpt2_nf4": ("gpt2_bf16", NF4),
    "gpt2_int8": ("gpt2_bf16", dict(load_in_8bit=True)),
}


def save_dense(name, config, stored, stated):
    folder = fresh("quantize", name)
    model = AutoModelForCausalLM.from_config(config)
    randomize(model, seed=5)
    model.to(stored).save_pretrained(folder)
    path = folder / "config.json"
    text = json.loads(path.read_text())
    text["dtype"] = stated
    write_json(path, text)
    for other in folder.glob("generation_config.json"):
        other.unlink()


def case(folder, arguments):
    config = BitsAndBytesConfig(**arguments)
    model = AutoModelForCausalLM.from_pretrained(DATA / "quantize" / folder, quantization_config=config, device_map="cpu")
    tensors = {}
    with tempfile.TemporaryDirectory() as work:
        model.save_pretrained(work)
        written = json.loads((Path(work) / "config.json").read_text())["quantization_config"]
        with safe_open(Path(work) / "model.safetensors", "pt") as file:
            for key in sorted(file.keys()):
                tensor = file.get_tensor(key).contiguous()
                content = tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
                tensors[key] = [
                    str(tensor.dtype).removeprefix("torch."), list(tensor.shape), hashlib.sha256(content).hexdigest(),
                ]
    return dict(model=folder, given=arguments, written=written, tensors=tensors)



def main():
    for name, model in MODELS.items():
        save_dense(name, *model)
    write_json(DATA / "quantize" / "cases.json", {name: case(*rest) for name, rest in CASES.items()})


main()

"""tests/data: BitNet b1.58 checkpoints as transformers packs and reads them.

bitlinear       a whole model of `BitLinear` layers, which divide by the scale; the default
autobitlinear   a whole model of `AutoBitLinear` layers, which multiply; and `adapter`, PEFT's OFT on it
layers          single layers of odd sizes, with a bias, without any weight but 0, and with extreme scales

expected.safetensors: the weights as transformers unpacks and scales them, in f32.
reference.json: rows of token ids, and transformers' mean loss over all their predicted tokens; `adapted_loss` with
PEFT's adapter; `dense_loss`, that of the weights in expected.safetensors with inputs that are not rounded.

Needs torch 2.15, transformers 5.23 and peft 0.21.
"""

import os

# Compiled code may contract a multiply and an add.
os.environ["TORCH_COMPILE_DISABLE"] = "1"

import json
import shutil
from pathlib import Path

import torch
import transformers
from peft import OFTConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitNetQuantConfig, LlamaConfig
from transformers.integrations.bitnet import AutoBitLinear, BitLinear, pack_weights, unpack_weights

DATA = Path(__file__).resolve().parent.parent / "tests/data"
LLAMA = dict(
    vocab_size=96,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
)
BF16, F32 = torch.bfloat16, torch.float32


def fresh(name):
    folder = DATA / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def generator(seed):
    return torch.Generator().manual_seed(seed)


def quantized(weight, linear_class, dtype):
    """(packed weight, scale) by the rule of the paper: the mean size of a weight becomes 1."""
    scale = weight.abs().mean().clamp(min=1e-5)
    ternary = (weight / scale).round().clamp(-1, 1)
    stored = scale if linear_class == "autobitlinear" else 1 / scale
    return pack_weights(ternary), stored.reshape(1).to(dtype)


def dense(packed, scale, linear_class):
    codes, scale = unpack_weights(packed, dtype=F32), scale.to(F32)
    return codes * scale if linear_class == "autobitlinear" else codes / scale


def mean_loss(model, rows):
    """The mean loss over all predicted tokens in f32. In f64 it is the same: no input is so near to the middle of two
    integers that the order of a sum decides."""
    found, exact = one_loss(model, rows), one_loss(torch.nn.Module.double(model), rows)
    assert abs(found - exact) < 1e-5, (found, exact)
    torch.nn.Module.float(model)
    return found


def one_loss(model, rows):
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=(ids != 0).long()).logits
    labels = ids.masked_fill(ids == 0, -100)[:, 1:]
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), labels, ignore_index=-100)
    return loss.item()


def make_model(linear_class, layer_class, seed):
    folder, gen = fresh(linear_class), generator(seed)
    config = LlamaConfig(**LLAMA)
    llama = AutoModelForCausalLM.from_config(config, dtype=F32)
    with torch.no_grad():
        for name, parameter in sorted(llama.named_parameters()):
            value = torch.randn(parameter.shape, generator=gen)
            scaled = 1.0 + 0.2 * value if "norm" in name else 1.3 * value / parameter.shape[-1] ** 0.5
            parameter.copy_(scaled)
    tensors, expected = {}, {}
    for name, value in llama.state_dict().items():
        if "_proj." in name:
            packed, scale = quantized(value, linear_class, BF16)
            tensors[name], tensors[f"{name}_scale"] = packed, scale
            expected[name] = dense(packed, scale, linear_class)
        else:
            tensors[name] = value.to(BF16)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    save_file(expected, folder / "expected.safetensors")
    config.quantization_config = BitNetQuantConfig(linear_class=linear_class).to_dict()
    config.architectures, config.dtype = ["LlamaForCausalLM"], "bfloat16"
    config.save_pretrained(folder)

    # What transformers unpacks keeps the dtype of the file, and it has no `float` for quantized models.
    load = lambda: torch.nn.Module.float(
        AutoModelForCausalLM.from_pretrained(folder, dtype=F32, device_map={"": "cpu"})
    ).eval()
    model = load()
    layers = [module for module in model.modules() if isinstance(module, layer_class)]
    assert len(layers) == 14, len(layers)
    rows = [torch.randint(3, 96, (length,), generator=gen).tolist() for length in (24, 17, 9)]
    train = [torch.randint(3, 96, (12,), generator=gen).tolist() for _ in range(8)]
    reference = {"rows": rows, "loss": mean_loss(model, rows), "train": {"rows": train}}
    plain = {name: value.to(F32) for name, value in tensors.items() if name in llama.state_dict()}
    llama.load_state_dict(plain | expected)
    reference["dense_loss"] = mean_loss(llama.eval(), rows)
    if linear_class == "autobitlinear":
        adapted = get_peft_model(load(), OFTConfig(task_type="CAUSAL_LM", target_modules="all-linear", oft_block_size=16))
        with torch.no_grad():
            for name, parameter in sorted(adapted.named_parameters()):
                if "oft_R" in name:
                    parameter.copy_(torch.randn(parameter.shape, generator=gen) * 0.05)
        reference["adapted_loss"] = mean_loss(adapted.eval(), rows)
        adapted.save_pretrained(folder / "adapter")
        (folder / "adapter/README.md").unlink()
        file = folder / "adapter/adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": ".."}, indent=1) + "\n")
    (folder / "reference.json").write_text(json.dumps(reference) + "\n")
    print(linear_class, {key: value for key, value in reference.items() if "loss" in key})


def make_layers():
    folder, gen = fresh("layers"), generator(4)
    tensors, expected = {}, {}
    for name, rows, columns, dtype in [
        ("plain", 24, 40, BF16),
        ("odd", 36, 19, torch.float16),
        ("small", 4, 8, F32),
        ("zero", 8, 16, BF16),
        ("tiny", 16, 24, F32),
        ("large", 12, 33, BF16),
    ]:
        weight = torch.randn(rows, columns, generator=gen) * {"tiny": 1e-4, "large": 1e4, "zero": 0}.get(name, 0.05)
        packed, scale = quantized(weight, "bitlinear", dtype)
        tensors |= {f"{name}.weight": packed, f"{name}.weight_scale": scale}
        expected[f"{name}.weight"] = dense(packed, scale, "bitlinear")
    tensors["plain.bias"] = torch.randn(24, generator=gen).to(BF16)
    tensors["dense.weight"] = torch.randn(16, 24, generator=gen).to(BF16)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    save_file(expected, folder / "expected.safetensors")
    values = {"quantization_config": {"quant_method": "bitnet", "modules_to_not_convert": ["dense"]}}
    (folder / "config.json").write_text(json.dumps(values, indent=1) + "\n")


def main():
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)
    make_model("bitlinear", BitLinear, 1)
    make_model("autobitlinear", AutoBitLinear, 3)
    make_layers()
    for file in DATA.rglob("*.*"):
        file.chmod(0o644)


if __name__ == "__main__":
    main()

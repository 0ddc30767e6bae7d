"""data/schemes/eetq: checkpoints of EETQ 1.0.0, written without a GPU (see eetq_library.py).

sm80, sm70              whole models, quantized, saved and reloaded by transformers' own EETQ path
sm80_layers, sm70_layers  single layers by the same code: in and out sizes that differ both ways, a bias, and
                        `special` with odd channels (0 all zero, 1 all equal and positive so that the code
                        128 is clipped to 127, 2 all equal and negative, 3 so small that the f16 scale
                        is subnormal, 4 so small that it is 0, 5 with one large value).
                        source.safetensors: the f16 weights that were quantized
fused_sm80, fused_sm70  whole models by EETQ's own saver (tensor names `qweight`): it fuses q, k, v and
                        gate, up, quantizes the fused matrix and slices the finished bytes by columns.
                        Its fused layers get a bias of zeros. source.safetensors: as above

expected.safetensors: the product of code and stored f16 scale in f32. EETQ's kernels round it to f16.
"""

from common import fresh, generator, randomize

import json
import tempfile

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, EetqConfig, LlamaConfig
from transformers.integrations import eetq as integration

import eetq_library
from eetq_library import dequantize, eetq_package, layout, quant_weights, transformers_without_gpu

F16, F32 = torch.float16, torch.float32
LLAMA = dict(
    vocab_size=96,
    hidden_size=64,
    intermediate_size=128,
    num_attention_heads=4,
    num_key_value_heads=4,
    max_position_embeddings=128,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
)
SHAPES = {"wide": (64, 192), "tall": (320, 64), "bias": (128, 128), "special": (64, 128)}  # [N, K]


def codes(buffer, name):
    """The plain int8 codes [K, N] of a stored matrix, from its bytes."""
    k, n = buffer.shape
    flat = buffer.numpy().view(np.uint8).reshape(-1)
    rows, columns = np.arange(k)[:, None], np.arange(n)[None, :]
    if name == "sm80":
        tile, inner = rows // 64 * 128 + rows % 64 // 16 * 16, 2 * (rows % 8) + rows % 16 // 8
        address = columns // 2 * 2 * k + tile + columns % 2 * 64 + inner
    else:
        place = rows * n + columns
        address = place - place % 4 + np.array([0, 2, 1, 3])[place % 4]
    return flat[address].astype(np.int16) - 128


def finish(folder, name, sources, fused=()):
    """Writes expected.safetensors and checks the stored bytes.

    sources: {path: dense f16 weight [N, K]}; fused: groups of paths that share one buffer.
    """
    stored = load_file(folder / "model.safetensors")
    weight = "qweight" if fused else "weight"
    alone = [[path] for path in sources if not any(path in group for group in fused)]
    expected = {}
    for group in [*fused, *alone]:
        source = torch.cat([sources[path] for path in group])
        plain, processed, scales = quant_weights(source.t().contiguous(), torch.int8, True)
        buffer = torch.cat([stored[f"{path}.{weight}"] for path in group], dim=1)
        kept = torch.cat([stored[f"{path}.weight_scales"] for path in group])
        assert torch.equal(buffer, processed) and torch.equal(kept, scales)
        dense = dequantize(plain, kept)
        again = codes(buffer, name).astype(np.float32) * kept.numpy().astype(np.float32)
        assert np.array_equal(again.T.astype(np.float32), dense.numpy()), group
        for path, part in zip(group, dense.split([len(sources[path]) for path in group])):
            expected[f"{path}.weight"] = part.clone()
    save_file(expected, folder / "expected.safetensors")
    for file in folder.iterdir():
        file.chmod(0o644)


def dense_llama(seed, layers, folder, **changes):
    """Saves a random f16 llama; returns the weights of its decoder layers' linears."""
    config = LlamaConfig(**(LLAMA | changes), num_hidden_layers=layers)
    model = AutoModelForCausalLM.from_config(config, dtype=F32)
    randomize(model, seed)
    model.to(F16).save_pretrained(folder)
    return {
        path: module.weight.data
        for path, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and path != "lm_head"
    }


def make_model(case, name, layers, seed, **changes):
    layout(name)
    folder = fresh("schemes", "eetq", case)
    with tempfile.TemporaryDirectory() as source:
        sources = dense_llama(seed, layers, source, **changes)
        model = AutoModelForCausalLM.from_pretrained(
            source, dtype=F16, quantization_config=EetqConfig("int8"), device_map={"": "cpu"}
        )
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    again = AutoModelForCausalLM.from_pretrained(folder, device_map={"": "cpu"}).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in model.state_dict().items())
    finish(folder, name, sources)


def make_layers(case, name, seed):
    layout(name)
    integration.eetq_kernels_hub = eetq_library
    gen = generator(seed)
    tensors, sources = {}, {}
    for path, (n, k) in SHAPES.items():
        dense = torch.randn(n, k, generator=gen) * (0.02 + 0.2 * torch.rand(n, 1, generator=gen))
        if path == "special":
            dense[:3] = torch.tensor([[0.0], [0.25], [-0.25]])
            dense[3] *= 1e-5 / dense[3].abs().max()
            dense[4] *= 1e-6 / dense[4].abs().max()
            dense[5, 100] = 60.0
        sources[path] = dense.to(F16)
        # The operation that transformers applies to each weight as it loads a model.
        converted = integration.EetqQuantize(None).convert({"": [sources[path]]}, f"{path}.weight")
        tensors |= converted
        if path == "bias":
            tensors[f"{path}.bias"] = torch.randn(n, generator=gen).to(F16)
    folder = fresh("schemes", "eetq", case)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    save_file({f"{path}.weight": dense for path, dense in sources.items()}, folder / "source.safetensors")
    config = {"quantization_config": EetqConfig("int8").to_dict()}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    finish(folder, name, sources)


def make_fused(case, name, seed):
    eetq_package()
    from eetq.models.llama import LlamaEETQForCausalLM
    from eetq.utils import eet_quantize

    layout(name)
    folder = fresh("schemes", "eetq", case)
    with tempfile.TemporaryDirectory() as source:
        sources = dense_llama(seed, 1, source, num_key_value_heads=2)
        model = LlamaEETQForCausalLM.from_pretrained(source, "llama", safetensors=True)
    # What `quantize` does, but for the breakpoint that the published version has left in it.
    model.fuse_layers()
    eet_quantize(model.model)
    # It replaces modules while it walks over them, which newer torch only allows over a copy.
    modules = list(model.model.named_modules())
    model.model.named_modules = lambda: modules
    model.split_layers()
    del model.model.named_modules
    model.save_quantized(str(folder))
    (folder / "generation_config.json").unlink(missing_ok=True)
    layer = "model.layers.0."
    attention = [f"{layer}self_attn.{part}_proj" for part in "qkv"]
    mlp = [f"{layer}mlp.{part}_proj" for part in ("gate", "up")]
    save_file({f"{path}.weight": weight for path, weight in sources.items()}, folder / "source.safetensors")
    finish(folder, name, sources, fused=[attention, mlp])


def main():
    transformers.utils.logging.disable_progress_bar()
    transformers_without_gpu()
    make_model("sm80", "sm80", 2, 300, intermediate_size=64)
    make_model("sm70", "sm70", 1, 301)
    make_layers("sm80_layers", "sm80", 310)
    make_layers("sm70_layers", "sm70", 311)
    make_fused("fused_sm80", "sm80", 320)
    make_fused("fused_sm70", "sm70", 321)


if __name__ == "__main__":
    main()

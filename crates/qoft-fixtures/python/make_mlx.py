"""data/schemes/mlx: checkpoints of mlx-lm, quantized on a CPU.

tied4      a whole llama: 4 bits in groups of 64, bfloat16, the quantized embedding is the output head too
mixed      a whole llama: 5 bits in groups of 32, float16; the predicate of `quantize_model` gives some modules
           6, 3 and 8 bits and other groups, and leaves one dense
mxfp4      a whole llama in blocks of MXFP4
others     single layers: affine with every width, group size and dtype (one has a bias, one zeros and extreme
           values), and the modes mxfp4, mxfp8 and nvfp4

source.safetensors: the dense weights, as `mx.quantize` got them.
expected.safetensors: `mx.dequantize` of the stored tensors, cast to f32.
"""

import json
import shutil
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models.llama import Model, ModelArgs
from mlx_lm.utils import quantize_model, save_config, save_model

DATA = Path(__file__).resolve().parent.parent / "data"
LLAMA = dict(
    model_type="llama",
    architectures=["LlamaForCausalLM"],
    vocab_size=96,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    rms_norm_eps=1e-6,
    rope_theta=10000.0,
    hidden_act="silu",
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
)
AFFINE = [(bits, size) for bits in (2, 3, 4, 5, 6, 8) for size in (32, 64, 128)]
DTYPES = {"f16": mx.float16, "bf16": mx.bfloat16, "f32": mx.float32}


def fresh(case):
    folder = DATA / "schemes" / "mlx" / case
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def parameters(quantization, path):
    own = quantization.get(path)
    return own if isinstance(own, dict) else {key: quantization[key] for key in ("group_size", "bits", "mode")}


def finish(folder, sources):
    """Writes source.safetensors and expected.safetensors."""
    stored = {}
    for file in folder.glob("model*.safetensors"):
        stored |= mx.load(str(file))
    quantization = json.loads((folder / "config.json").read_text())["quantization"]
    expected = {}
    for name in stored:
        if name.endswith(".scales"):
            path = name.removesuffix(".scales")
            parts = [stored.get(f"{path}.{part}") for part in ("weight", "scales", "biases")]
            values = mx.dequantize(*parts, **parameters(quantization, path))
            expected[f"{path}.weight"] = values.astype(mx.float32)
    assert expected.keys() <= sources.keys()
    mx.save_safetensors(str(folder / "source.safetensors"), {name: sources[name] for name in expected})
    mx.save_safetensors(str(folder / "expected.safetensors"), expected)
    for file in folder.iterdir():
        file.chmod(0o644)


def make_model(case, dtype, predicate=None, group_size=None, bits=None, mode="affine", **changes):
    folder, values = fresh(case), LLAMA | changes
    model = Model(ModelArgs.from_dict(values))
    mx.random.seed(sum(map(ord, case)))
    weights = {}
    for name, value in tree_flatten(model.parameters()):
        random = mx.random.normal(value.shape)
        weights[name] = (1 + 0.1 * random if "norm" in name else 0.05 * random).astype(dtype)
    model.load_weights(list(weights.items()))
    model, config = quantize_model(model, values, group_size, bits, mode=mode, quant_predicate=predicate)
    save_model(folder, model)
    save_config(config, config_path=folder / "config.json")
    finish(folder, weights)


def mixed(path, module):
    """Parameters of single modules, as mlx-lm's own mixed recipes choose them."""
    if path.endswith("0.self_attn.k_proj"):
        return False
    if path.endswith("down_proj"):
        return {"group_size": 64, "bits": 6}
    if path.endswith("v_proj"):
        return {"group_size": 32, "bits": 8, "mode": "affine"}
    if path == "model.embed_tokens":
        return {"group_size": 64, "bits": 3}
    return True


def make_layers(case, layers, quantization):
    """Layers: {path: (dense weight, parameters that differ, bias)}."""
    folder, tensors, sources, overrides = fresh(case), {}, {}, {}
    for path, (weight, own, bias) in layers.items():
        names = ["weight", "scales", "biases"]
        made = mx.quantize(weight, **(quantization | own))
        tensors |= {f"{path}.{name}": value for name, value in zip(names, made)}
        sources[f"{path}.weight"] = weight
        if own:
            overrides[path] = own
        if bias:
            tensors[f"{path}.bias"] = (0.1 * mx.random.normal((weight.shape[0],))).astype(weight.dtype)
    mx.save_safetensors(str(folder / "model.safetensors"), tensors, metadata={"format": "mlx"})
    quantization = quantization | overrides
    save_config({"quantization": quantization, "quantization_config": quantization}, config_path=folder / "config.json")
    finish(folder, sources)


def weight(shape, dtype, special=False):
    values = 0.05 * mx.random.normal(shape)
    if special:
        values[0], values[1], values[2, 5], values[3] = 0.0, 0.25, 900.0, values[3] * 1e-9
        values[4], values[5] = mx.abs(values[4]), -mx.abs(values[5])
    return values.astype(dtype)


def main():
    make_model("tied4", mx.bfloat16, tie_word_embeddings=True)
    make_model("mixed", mx.float16, mixed, 32, 5, tie_word_embeddings=False)
    make_model("mxfp4", mx.bfloat16, mode="mxfp4", tie_word_embeddings=False)
    for number, (name, dtype) in enumerate(DTYPES.items()):
        mx.random.seed(700 + number)
        layers = {}
        for bits, size in AFFINE:
            own = {"group_size": size, "bits": bits}
            layers[f"a{bits}_{size}"] = (weight((9, 256 if size == 128 else 192), dtype), own, bits == 3)
        for bits in (2, 5, 8):
            layers[f"special{bits}"] = (weight((8, 64), dtype, True), {"group_size": 32, "bits": bits}, False)
        make_layers(f"affine_{name}", layers, {"group_size": 64, "bits": 4, "mode": "affine"})
    for mode, size, bits in (("mxfp4", 32, 4), ("mxfp8", 32, 8), ("nvfp4", 16, 4)):
        layers = {
            "plain": (weight((12, 96), mx.bfloat16), {}, True),
            "special": (weight((8, 64), mx.bfloat16, True), {}, False),
            "affine": (weight((4, 64), mx.float16), {"group_size": 32, "bits": 6, "mode": "affine"}, False),
        }
        make_layers(f"{mode}_layers", layers, {"group_size": size, "bits": bits, "mode": mode})


if __name__ == "__main__":
    main()

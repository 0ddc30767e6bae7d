"""Files of many schemes in settings that the fixtures do not have, for check_odd.py.

Each function of CASES writes one into a folder, as the scheme's library quantizes and saves it, and returns the
function that makes a dense model in float32 of such a folder by the library's own dequantization.
"""

import common  # noqa: F401  (first: fixes the environment)

import contextlib
import copy
import json
import subprocess
import tempfile
from types import SimpleNamespace
from unittest import mock

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig

from common import generator, randomize

BF16, F16, F32, F8 = torch.bfloat16, torch.float16, torch.float32, torch.float8_e4m3fn
SIZES = dict(
    architectures=["LlamaForCausalLM"], vocab_size=320, hidden_size=256, intermediate_size=512, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
    bos_token_id=1, eos_token_id=2, pad_token_id=0,
)
CASES = {}
# The programs that files are made with: `qoft`, and the folder of llama.cpp's libraries, or None.
PROGRAMS = SimpleNamespace(qoft=None, llama_cpp=None)


def run(*command):
    done = subprocess.run([*map(str, (PROGRAMS.qoft, *command))], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"qoft {command[0]}: {done.stderr.strip()}")
    for line in done.stderr.splitlines():
        if not line.startswith("warning"):
            continue
        print(f"    {command[0]}: {line}")
    return done.stdout


def case(function):
    CASES[function.__name__.replace("_", "-")] = function
    return function


def llama(seed, dtype=BF16, **sizes):
    model = AutoModelForCausalLM.from_config(LlamaConfig(**(SIZES | sizes)), dtype=F32)
    randomize(model, seed)
    return model.to(dtype)


def plain(folder, tensors):
    """A dense model in float32 of a folder's configuration and of tensors."""
    values = json.loads((folder / "config.json").read_text())
    values.pop("quantization_config", None)
    model = AutoModelForCausalLM.from_config(LlamaConfig.from_dict(values), dtype=F32, attn_implementation="eager")
    wanted = {}
    for name, parameter in model.named_parameters():
        assert tensors[name].shape == parameter.shape, (name, tensors[name].shape)
        wanted[name] = tensors[name].to(F32)
    model.load_state_dict(wanted, strict=not model.config.tie_word_embeddings)
    return model


def stored(folder):
    tensors = {}
    for file in sorted(folder.glob("model*.safetensors")):
        tensors |= load_file(file)
    return tensors


# --- FP8 of transformers


def by_transformers_fp8(folder):
    from transformers.integrations.finegrained_fp8 import _dequantize_fp8_weight

    # transformers itself has to load it.
    AutoModelForCausalLM.from_pretrained(folder, device_map={"": "cpu"})
    block = json.loads((folder / "config.json").read_text())["quantization_config"].get("weight_block_size")
    tensors = stored(folder)
    for name in [name for name, value in tensors.items() if value.dtype == F8]:
        scale = tensors[name + "_scale_inv"]
        scale = scale.reshape(-1, 1) if scale.ndim == 1 else scale
        tensors[name] = _dequantize_fp8_weight(tensors[name], scale, block and tuple(block), F32)
    return plain(folder, tensors)


def fp8(folder, seed, dtype=BF16, sizes=None, **options):
    from transformers import FineGrainedFP8Config

    with tempfile.TemporaryDirectory() as source:
        llama(seed, dtype, **(sizes or {})).save_pretrained(source)
        config = FineGrainedFP8Config(**options)
        with a_gpu_is_told():
            model = AutoModelForCausalLM.from_pretrained(
                source, dtype=dtype, quantization_config=config, device_map={"": "cpu"}
            )
    model.save_pretrained(folder)
    return by_transformers_fp8


@contextlib.contextmanager
def a_gpu_is_told():
    """transformers asks for a GPU before it quantizes to FP8, and does that on a CPU as well."""
    with mock.patch("torch.cuda.is_available", lambda: True):
        with mock.patch("torch.cuda.get_device_capability", lambda *_: (9, 0)):
            yield


@case
def fp8_block64x128_f16(folder):
    return fp8(folder, 1, F16, weight_block_size=(64, 128))


@case
def fp8_block16_powers(folder):
    return fp8(folder, 2, weight_block_size=(16, 16), scale_fmt="ue8m0")


@case
def fp8_block_some_dense_tied(folder):
    skips = ["lm_head", "k_proj", "model.layers.1.mlp.down_proj"]
    options = dict(weight_block_size=(128, 128), modules_to_not_convert=skips)
    return fp8(folder, 3, sizes=dict(tie_word_embeddings=True), **options)


@case
def fp8_tensor_f32(folder):
    return fp8(folder, 4, F32, weight_block_size=None)


@case
def fp8_tensor_static_biases(folder):
    return fp8(folder, 5, sizes=dict(attention_bias=True), weight_block_size=None, activation_scheme="static")


@case
def fp8_head(folder):
    return fp8(folder, 6, sizes=dict(vocab_size=384), weight_block_size=(128, 128), modules_to_not_convert=[])


@case
def fp8_caches(folder):
    load = fp8(folder, 7, weight_block_size=None, activation_scheme="static")
    tensors = load_file(folder / "model.safetensors")
    for layer in range(2):
        tensors[f"model.layers.{layer}.self_attn.k_proj.k_scale"] = torch.tensor(0.01)
        tensors[f"model.layers.{layer}.self_attn.v_proj.v_scale"] = torch.tensor(0.02)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return load


def by_fbgemm(folder):
    tensors = stored(folder)
    for name in [name for name, value in tensors.items() if value.dtype == F8]:
        tensors[name] = tensors[name].to(F32) * tensors[name + "_scale"]
    return plain(folder, tensors)


def fbgemm(folder, model, skips):
    import make_fbgemm
    from fbgemm_gpu.experimental.gemm.triton_gemm.fp8_gemm import quantize_fp8_row
    from transformers import FbgemmFp8Config
    from transformers.integrations import fbgemm_fp8

    fbgemm_fp8.quantize_fp8_per_row = lambda value, scale_ub=None: quantize_fp8_row(value, scale_ub)
    model.save_pretrained(folder)
    tensors = stored(folder)
    for name in [name for name in tensors if name.endswith("_proj.weight") and not any(skip in name for skip in skips)]:
        made = make_fbgemm.quantize(tensors.pop(name))
        tensors |= {name.removesuffix("weight") + key: value.contiguous() for key, value in made.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    values = json.loads((folder / "config.json").read_text())
    config = FbgemmFp8Config(activation_scale_ub=900.0, modules_to_not_convert=[*skips, "lm_head"])
    values["quantization_config"] = config.to_dict()
    (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n")
    return by_fbgemm


@case
def fbgemm_some_dense_biases(folder):
    return fbgemm(folder, llama(8, attention_bias=True, mlp_bias=True), ["o_proj", "layers.0.mlp"])


# --- modelopt


def by_modelopt(folder):
    from make_modelopt import dequantize
    from modelopt.torch.quantization.qtensor import MXFP4QTensor, MXFP8QTensor, NVFP4QTensor

    tensors = stored(folder)
    for name in [name for name in tensors if name.endswith(".weight")]:
        scale = tensors.get(f"{name}_scale")
        if scale is not None and scale.dtype == torch.uint8:
            kind = MXFP4QTensor if tensors[name].dtype == torch.uint8 else MXFP8QTensor
            n, k = tensors[name].shape
            k *= 2 if kind is MXFP4QTensor else 1
            tensor = kind(torch.Size([n, k]), F32, tensors[name])
            tensors[name] = tensor.dequantize(dtype=F32, scale=scale, block_sizes={-1: 32})
            continue
        if scale is not None and tensors[name].dtype == torch.uint8:
            n, k = tensors[name].shape
            tensor = NVFP4QTensor(torch.Size([n, 2 * k]), F32, tensors[name])
            group, second = 2 * k // scale.shape[1], tensors[f"{name}_scale_2"]
            tensors[name] = tensor.dequantize(dtype=F32, scale=scale, double_scale=second, block_sizes={-1: group})
            continue
        weight = dequantize(tensors, name.removesuffix(".weight"))
        tensors[name] = tensors[name] if weight is None else weight
    return plain(folder, tensors)


def modelopt(folder, seed, config, dtype=BF16, caches=None, **sizes):
    import modelopt.torch.quantization as mtq
    from modelopt.torch.export import export_hf_checkpoint

    config = copy.deepcopy(getattr(mtq, config)) if isinstance(config, str) else config
    if caches:
        config["quant_cfg"] = config["quant_cfg"] + copy.deepcopy(getattr(mtq, caches)["quant_cfg"])
    model = llama(seed, dtype, **sizes)
    rows = torch.randint(3, 320, (4, 16), generator=generator(seed))
    model = mtq.quantize(model, config, lambda model: model(rows))
    with torch.inference_mode():
        export_hf_checkpoint(model, dtype=dtype, export_dir=folder)
    return by_modelopt


@case
def modelopt_fp8_caches(folder):
    return modelopt(folder, 20, "FP8_DEFAULT_CFG", F16, "FP8_KV_CFG")


@case
def modelopt_nvfp4_caches_tied(folder):
    return modelopt(folder, 21, "NVFP4_DEFAULT_CFG", caches="NVFP4_KV_CFG", tie_word_embeddings=True)


@case
def modelopt_nvfp4_affine_caches(folder):
    return modelopt(folder, 22, "NVFP4_DEFAULT_CFG", caches="NVFP4_AFFINE_KV_CFG")


@case
def modelopt_nvfp4_mlp_biases(folder):
    return modelopt(folder, 23, "NVFP4_MLP_ONLY_CFG", F16, attention_bias=True, mlp_bias=True)


@case
def modelopt_w4a8(folder):
    return modelopt(folder, 24, "W4A8_NVFP4_FP8_CFG")


@case
def modelopt_w4a8_mxfp4(folder):
    return modelopt(folder, 30, "W4A8_MXFP4_FP8_CFG", F16)


@case
def modelopt_mxfp4(folder):
    return modelopt(folder, 25, "MXFP4_DEFAULT_CFG")


@case
def modelopt_mxfp8(folder):
    return modelopt(folder, 26, "MXFP8_DEFAULT_CFG", F16)


@case
def modelopt_blocks_odd(folder):
    return modelopt(folder, 27, "FP8_2D_BLOCKWISE_WEIGHT_ONLY_CFG", hidden_size=192, intermediate_size=320)


@case
def modelopt_head(folder):
    import modelopt.torch.quantization as mtq

    config = copy.deepcopy(mtq.FP8_DEFAULT_CFG)
    head = {"quantizer_name": "*lm_head*weight_quantizer", "cfg": {"num_bits": (4, 3), "axis": None}}
    config["quant_cfg"].append(head)
    return modelopt(folder, 28, config)


@case
def modelopt_only_file_shards(folder):
    load = modelopt(folder, 29, "NVFP4_DEFAULT_CFG", F16, "FP8_KV_CFG")
    values = json.loads((folder / "config.json").read_text())
    values.pop("quantization_config", None)
    (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names, weight_map = sorted(tensors), {}
    for part in (1, 2):
        file = f"model-0000{part}-of-00002.safetensors"
        mine = names[part - 1 :: 2]
        save_file({name: tensors[name] for name in mine}, folder / file, metadata={"format": "pt"})
        weight_map |= {name: file for name in mine}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return load


# --- compressed-tensors, torchao


def by_transformers(folder):
    import check_written

    return check_written.by_transformers(folder)


def compressed(folder, seed, schemes, choose=lambda name: 0, dtype=BF16, **more):
    """`choose` gives the number of a layer's scheme, or None."""
    import make_compressed_tensors as made

    llama(seed, dtype).save_pretrained(folder)
    tensors = stored(folder)
    schemes = [made.scheme_of(*scheme) for scheme in schemes(made)]
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        number = choose(name.removesuffix(".weight"))
        if number is not None:
            parts, _ = made.compress(tensors.pop(name), schemes[number])
            tensors |= {name.removesuffix("weight") + key: value for key, value in parts.items()}
    if "kv_cache_scheme" in more:
        for layer in range(2):
            for key in ("k_scale", "v_scale"):
                tensors[f"model.layers.{layer}.self_attn.{key}"] = torch.full((1,), 0.02, dtype=dtype)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    values = json.loads((folder / "config.json").read_text())
    values["quantization_config"] = made.config_of(schemes, ["lm_head"], **more)
    (folder / "config.json").write_text(json.dumps(values, indent=1) + "\n")
    return by_transformers


CACHE = dict(num_bits=8, type="float", strategy="tensor", dynamic=False, symmetric=True)


@case
def ct_several_asymmetric_caches(folder):
    schemes = lambda made: [
        (made.args(4, "group", symmetric=False), None),
        (made.args(8, "channel", "float"), made.TOKENS | dict(type="float"), ["re:.*self_attn.*"]),
        (made.NVFP4, None, ["model.layers.1.mlp.down_proj"]),
    ]
    choose = lambda name: 2 if "layers.1.mlp.down" in name else int("self_attn" in name)
    return compressed(folder, 60, schemes, choose, kv_cache_scheme=CACHE)


@case
def ct_several_int4_int8_f16(folder):
    schemes = lambda made: [
        (made.args(4, "group"), None),
        (made.args(8, "channel"), made.TOKENS, ["re:.*[qk]_proj", "model.layers.0.mlp.up_proj"]),
    ]
    choose = lambda name: int(name.endswith(("q_proj", "k_proj", "layers.0.mlp.up_proj")))
    return compressed(folder, 61, schemes, choose, F16)


@case
def ct_int4_asymmetric(folder):
    return compressed(folder, 62, lambda made: [(made.args(4, "group", symmetric=False), None)])


@case
def ct_int8_tensor_asymmetric_some_dense(folder):
    schemes = lambda made: [(made.args(8, "tensor", symmetric=False), None, ["re:.*mlp.*"])]
    return compressed(folder, 63, schemes, lambda name: 0 if "mlp" in name else None, F32)


def torchao(folder, seed, config, dtype=BF16, head=False, **sizes):
    from transformers import TorchAoConfig

    with tempfile.TemporaryDirectory() as source:
        llama(seed, dtype, **sizes).save_pretrained(source)
        config = TorchAoConfig(config, include_input_output_embeddings=head)
        model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, device_map="cpu", quantization_config=config)
    model.save_pretrained(folder)
    return by_transformers


@case
def torchao_int8_head(folder):
    from torchao.quantization import Int8WeightOnlyConfig

    return torchao(folder, 64, Int8WeightOnlyConfig(), head=True)


@case
def torchao_int8_head_tied(folder):
    from torchao.quantization import Int8WeightOnlyConfig

    return torchao(folder, 65, Int8WeightOnlyConfig(), head=True, tie_word_embeddings=True)


@case
def torchao_intx3_head_f16(folder):
    from torchao.quantization import IntxWeightOnlyConfig
    from torchao.quantization.granularity import PerGroup

    return torchao(folder, 66, IntxWeightOnlyConfig(weight_dtype=torch.int3, granularity=PerGroup(64)), F16, head=True)

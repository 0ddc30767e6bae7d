"""data/schemes/awq/autoawq_<case>: tiny llamas quantized by AutoAWQ.

Each folder holds what the library saves (config.json, model.safetensors) and
  expected.safetensors  for each quantized layer `<path>.weight`: the dense weight [out, in] as the
                        library's torch code dequantizes it in f16, then cast to f32

autoawq_gemm is a complete model. The others are cut down to single layers by dropping the token
embedding; their matrices carry rows of one sign (zero points 0 and 15), a row of zeros and
outliers. AutoAWQ has no torch code for its `gemv` packing; there `expected` is that of the same
model in `gemm` packing, and a check unpacks both. transformers 4 writes these files.
"""

from common import fresh, random_rows, randomize
from packed import SMALL, TINY, awkward, awq_unpack, finish

import shutil
import tempfile
from pathlib import Path

import torch
from awq import AutoAWQForCausalLM
from awq.quantize.quantizer import AwqQuantizer
from awq.utils.packing_utils import dequantize_gemm
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

F16, F32 = torch.float16, torch.float32
WIDE = SMALL | dict(hidden_size=128, intermediate_size=128, num_attention_heads=4, head_dim=8, num_key_value_heads=4)
SKIP = dict(modules_to_not_convert=["o_proj", "up_proj"])

# case: (changes to TINY, changes to the quantization config)
CASES = {
    "gemm": ({}, {}),
    "gemm_g32_bias": (SMALL | dict(attention_bias=True, mlp_bias=True), {}),
    "gemm_g64": (dict(vocab_size=32, num_key_value_heads=2), dict(q_group_size=64)),
    "gemm_g128_some_dense": (WIDE, dict(q_group_size=128) | SKIP),
    "gemv_g32": (SMALL | dict(mlp_bias=True), dict(version="GEMV")),
    "gemv_g64": (dict(vocab_size=32, num_key_value_heads=2), dict(q_group_size=64, version="GEMV")),
}
WHOLE = ["gemm"]


class Quantizer(AwqQuantizer):
    """Keeps a copy of the weights while it tries scales: on a CPU the library's own is no copy."""

    def _compute_best_scale(self, x, w_mean, x_mean, module, *others):
        module.state_dict = lambda: {k: v.clone() for k, v in type(module).state_dict(module).items()}
        try:
            return super()._compute_best_scale(x, w_mean, x_mean, module, *others)
        finally:
            del module.state_dict


def quantized(case, seed, version, folder):
    """Quantizes and saves; only complete models are clipped, as AutoAWQ wants 64 rows for that."""
    changes, options = CASES[case]
    config = LlamaConfig(**(TINY | changes))
    model = LlamaForCausalLM(config)
    randomize(model, seed)
    if case not in WHOLE:
        awkward(model)
    options = dict(w_bit=4, q_group_size=32, zero_point=True) | options | dict(version=version)
    with tempfile.TemporaryDirectory() as source:
        model.to(F16).save_pretrained(source)
        model = AutoAWQForCausalLM.from_pretrained(source, torch_dtype=F16, device_map="cpu")
        model.modules_to_not_convert = options.pop("modules_to_not_convert", None)
        rows = random_rows([64] * 16, config.vocab_size, seed)
        settings = dict(calib_data=rows, max_calib_seq_len=64, apply_clip=case in WHOLE, quantizer_cls=Quantizer)
        model.quantize(None, quant_config=options, **settings)
        # `source` would be noted in config.json.
        model.model.config._name_or_path = ""
        model.save_quantized(str(folder))
    return load_file(folder / "model.safetensors"), options["q_group_size"]


def gemm_weights(tensors, group):
    weights = {}
    for name in sorted(k.removesuffix(".qweight") for k in tensors if k.endswith(".qweight")):
        parts = [tensors[f"{name}.{part}"] for part in ("qweight", "qzeros", "scales")]
        weights[f"{name}.weight"] = dequantize_gemm(*parts, 4, group).T.to(F32).contiguous()
    return weights


def main():
    for number, case in enumerate(CASES):
        version = CASES[case][1].get("version", "GEMM")
        out, seed = fresh("schemes", "awq", f"autoawq_{case}"), 4000 + 10 * number
        with tempfile.TemporaryDirectory() as saved, tempfile.TemporaryDirectory() as twin:
            tensors, group = quantized(case, seed, version, Path(saved))
            gemm = tensors if version == "GEMM" else quantized(case, seed, "GEMM", Path(twin))[0]
            for name in ("config.json", "model.safetensors"):
                shutil.copyfile(Path(saved, name), out / name)
        expected = gemm_weights(gemm, group)
        save_file(expected, out / "expected.safetensors")
        for name in expected:
            weight, zeros = awq_unpack(tensors, name.removesuffix(".weight"), group, version == "GEMV")
            assert torch.equal(weight, expected[name]), (case, name)
            assert case in WHOLE or zeros.min() == 0 and zeros.max() == 15, (case, name)
        finish(out, case in WHOLE)


if __name__ == "__main__":
    main()

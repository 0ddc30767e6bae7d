"""data/schemes/awq/gptqmodel_<case>: tiny llamas quantized by GPTQModel's AWQ, "gemm" packing.

Each folder holds what the library saves (config.json, quantize_config.json, model.safetensors) and
  expected.safetensors  for each quantized layer `<path>.weight`: the dense weight [out, in] as the
                        library's torch code dequantizes it in the dtype of the scales, then cast to f32

gptqmodel_gemm is a complete model, with one matrix of the second layer left dense. The others are
cut down to single layers by dropping the token embedding; their matrices carry rows of one sign, a
row of zeros and outliers. With
`zero_point` false the zero points are in the file all the same, and are 8. gptqmodel_bf16 comes
from a model in bf16, and its scales are in bf16.
"""

from common import fresh
from make_gptq import calibration, dense, run
from packed import TINY, awq_unpack, finish

import shutil
import tempfile
from pathlib import Path

import torch
from gptqmodel import BACKEND, GPTQModel
from gptqmodel.nn_modules.qlinear.torch_awq import AwqTorchLinear
from gptqmodel.quantization.awq.utils.packing_utils import dequantize_gemm
from safetensors.torch import load_file, save_file

F16, F32, BF16 = torch.float16, torch.float32, torch.bfloat16
SMALL = dict(vocab_size=32, intermediate_size=64)  # its search for clipping wants multiples of 64 rows

# case: (changes to TINY, QuantizeConfig arguments, dtype)
CASES = {
    "gemm": (dict(num_hidden_layers=2), dict(sym=False, dynamic={r"-:.*\.1\.mlp\.down_proj": {}}), F16),
    "zero_point_false": (SMALL, {}, F16),
    "no_groups": (SMALL, dict(group_size=-1, sym=False), F16),
    "bf16": (SMALL, dict(group_size=64, sym=False), BF16),
}
WHOLE = ["gemm"]


def dequantized(folder, dtype):
    """The weights of a saved model, loaded again by the library for its torch kernel."""
    model = GPTQModel.load(str(folder), device="cpu", backend=BACKEND.AWQ_TORCH, dtype=dtype)
    weights = {}
    for name, layer in model.model.named_modules():
        if isinstance(layer, AwqTorchLinear):
            weight = dequantize_gemm(layer.qweight, layer.qzeros, layer.scales, layer.bits, layer.group_size)
            assert weight.dtype == dtype
            weights[f"{name}.weight"] = weight.T.to(F32).contiguous()
    return weights


def main():
    for number, (case, (changes, options, dtype)) in enumerate(CASES.items()):
        seed, out = 4500 + 10 * number, fresh("schemes", "awq", f"gptqmodel_{case}")
        options = dict(bits=4, group_size=32, sym=True, method="awq", format="gemm") | options
        with tempfile.TemporaryDirectory() as source, tempfile.TemporaryDirectory() as saved:
            dense(source, changes, seed, case in WHOLE, dtype)
            run(source, saved, options, calibration((TINY | changes)["vocab_size"], seed), dtype)
            expected = dequantized(saved, dtype)
            for name in ("config.json", "quantize_config.json", "model.safetensors"):
                shutil.copyfile(Path(saved, name), out / name)
        save_file(expected, out / "expected.safetensors")
        tensors = load_file(out / "model.safetensors")
        names = sorted(k.removesuffix(".qweight") for k in tensors if k.endswith(".qweight"))
        assert sorted(expected) == [f"{n}.weight" for n in names]
        for name in names:
            weight, zeros = awq_unpack(tensors, name, options["group_size"])
            assert tensors[f"{name}.scales"].dtype == dtype
            assert torch.equal(weight, expected[f"{name}.weight"]), (case, name)
            if options["sym"]:
                assert (zeros == 8).all(), (case, name)
            elif case not in WHOLE:
                assert zeros.min() == 0 and zeros.max() == 15, (case, name)
        finish(out, case in WHOLE)


if __name__ == "__main__":
    main()

"""A stand-in for an Intel Gaudi, so that neural-compressor writes its checkpoints on a CPU.

`install` must run before neural_compressor is imported. It provides the modules and the casts and GEMM that the
library expects of `habana_frameworks`, as documented for them: multiply by the given scale,
clamp to the largest value of the device, round to the nearest float8, ties to even. Tensors for the
device "hpu" are kept on the CPU. The rules for scales, the layers, save and load are the library's.
"""

import sys
import types
from importlib.machinery import ModuleSpec
from types import SimpleNamespace

import torch
from torch.overrides import TorchFunctionMode

LARGEST = {
    ("gaudi2", torch.float8_e4m3fn): 240.0,
    ("gaudi3", torch.float8_e4m3fn): 448.0,
    ("gaudi2", torch.float8_e5m2): 57344.0,
    ("gaudi3", torch.float8_e5m2): 57344.0,
}


def is_hpu(value):
    return isinstance(value, (str, torch.device)) and str(value).split(":")[0] == "hpu"


class OnCpu(TorchFunctionMode):
    """Takes the device "cpu" for "hpu"."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        args = tuple("cpu" if is_hpu(value) else value for value in args)
        kwargs = {key: "cpu" if is_hpu(value) else value for key, value in (kwargs or {}).items()}
        return function(*args, **kwargs)


def module(name, **members):
    made = types.ModuleType(name)
    made.__spec__, made.__path__ = ModuleSpec(name, None), []
    made.__dict__.update(members)
    sys.modules[name] = made


def with_scalar(function):
    """An operator whose variant for scales as Python numbers is the same function."""
    function.scalar = function
    return function


def install(device):
    def cast_to_fp8_v2(x, scale_inv, stochastic, with_amax, dtype):
        assert not stochastic and not with_amax
        scaled = x.float() if scale_inv is None else x.float() * scale_inv
        largest = LARGEST[device, dtype]
        return scaled.clamp(-largest, largest).to(dtype), None

    def cast_from_fp8(x, scale, dtype):
        return (x.float() * scale).to(dtype)

    def fp8_gemm_v2(a, _, b, __, out, dtype, a_scale, b_scale, bias, accumulate):
        assert out is None and bias is None and not accumulate
        return (a.float() @ b.float() * a_scale * b_scale).to(dtype)

    functions = [cast_to_fp8_v2, cast_from_fp8, fp8_gemm_v2]
    torch.ops.hpu = SimpleNamespace(**{f.__name__: with_scalar(f) for f in functions})
    torch.hpu = SimpleNamespace(
        is_available=lambda: True,
        synchronize=lambda: None,
        current_device=lambda: 0,
        memory_stats=lambda *_: {},
    )
    for name in ("", ".torch", ".torch.utils", ".torch.hpex"):
        module("habana_frameworks" + name)
    module("habana_frameworks.torch.core", mark_step=lambda: None, hpu_initialize=lambda: None)
    module("habana_frameworks.torch.hpex.kernels", fp8_fused_sdpa=None)
    module("habana_frameworks.torch.hpu", memory_stats=torch.hpu.memory_stats)
    kinds = SimpleNamespace(synDeviceGaudi2="gaudi2", synDeviceGaudi3="gaudi3")
    module(
        "habana_frameworks.torch.utils.experimental",
        synDeviceType=kinds,
        _get_device_type=lambda: device,
        _set_is_dynamic_quantization=lambda _: None,
    )
    OnCpu().__enter__()

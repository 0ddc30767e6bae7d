"""What the scripts that run PEFT share: a model that computes in one number format on the CPU."""

import logging
import pathlib

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM


def load(model, dtype=torch.float32):
    """The model with everything that is not quantized in `dtype`, and computing in it."""
    # bitsandbytes would repack 4-bit weights for a multiplication in bfloat16.
    try:
        import bitsandbytes.nn.modules as modules

        modules.has_avx512bf16 = lambda: False
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    except ImportError:
        pass
    model = AutoModelForCausalLM.from_pretrained(model, dtype=dtype, device_map="cpu")
    for module in model.modules():
        # HQQ computes in the dtype of its statistics and bitsandbytes in that of its file unless told.
        if hasattr(module, "compute_dtype"):
            module.compute_dtype = dtype
    for parameter in model.parameters():
        if type(parameter) is torch.nn.Parameter and parameter.dtype.is_floating_point:
            parameter.data = parameter.data.to(dtype)
    return model


def linear_names(model):
    """The last names of all linear layers but the head: PEFT's `all-linear` does not find those of HQQ."""
    linear = lambda module: isinstance(module, torch.nn.Linear) or hasattr(module, "W_q")
    names = {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if linear(module)}
    return sorted(names - {"lm_head"})


def adapter_names(adapter):
    """The last names of the layers of an adapter, from its tensors."""
    with safe_open(pathlib.Path(adapter) / "adapter_model.safetensors", "pt") as file:
        return {key.split(".oft_")[0].rsplit(".", 1)[-1] for key in file.keys()}

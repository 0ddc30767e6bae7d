"""Reads the layers of an HQQ checkpoint, and unpacks and dequantizes them without hqq."""

import numpy as np
import torch
from safetensors.torch import load_file


def layer_states(folder):
    """{layer: state dict} of the quantized layers in a folder's file or files."""
    if (folder / "qmodel.pt").exists():
        weights = torch.load(folder / "qmodel.pt", weights_only=True)
        return {name: dict(state) for name, state in weights.items() if "W_q" in state}
    tensors = {}
    for path in folder.glob("model*.safetensors"):
        tensors |= load_file(path)
    states = {key.removesuffix(".W_q"): {} for key in sorted(tensors) if key.endswith(".W_q")}
    for key, value in tensors.items():
        layer, name = key.rsplit(".", 1)
        if layer in states:
            states[layer][name] = value
    return states


def plain(value):
    """A stored setting as a Python value."""
    if not isinstance(value, torch.Tensor):
        return value
    if value.dim() == 1 and value.dtype == torch.uint8:
        return bytes(value.tolist()).decode()
    return value.tolist()


def unpack(state):
    """The dense weight as f32."""
    packing, (n, k) = plain(state["packing"]), plain(state["shape"])
    group, axis, dtype = plain(state["group_size"]), plain(state["axis"]), state["scale"].dtype
    rows = group if axis == 0 else n * k // group
    packed = state["W_q"].contiguous()
    packed = packed.view(torch.int32 if packing == "3bit_32" else torch.uint8).numpy()
    bits = int(packing[0])
    fields = 10 if bits == 3 else 8 // bits
    codes = [packed >> (bits * (fields - 1 - field)) & (2**bits - 1) for field in range(fields)]
    codes = np.concatenate(codes)[:rows].astype(np.float32)
    scale, zero = state["scale"].to(torch.float32).numpy(), state["zero"].to(torch.float32).numpy()
    rounded = lambda value: torch.from_numpy(value).to(dtype).to(torch.float32).numpy()
    return rounded(rounded(codes - zero) * scale).reshape(n, k)

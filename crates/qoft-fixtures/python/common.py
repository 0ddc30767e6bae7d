"""Settings and small functions shared by the generator scripts.

Import this module first: it fixes the environment before torch is loaded.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# bitsandbytes' torch backend is wrapped in torch.compile; plain eager code is what the
# fixtures record (compiled code may contract a multiply and an add).
os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")

import json
import logging
import shutil
from pathlib import Path

import torch

torch.set_num_threads(1)
torch.backends.mkldnn.enabled = False
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

DATA = Path(__file__).resolve().parent.parent / "data"


def fresh(*parts):
    """An empty folder below data/."""
    folder = DATA.joinpath(*parts)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def generator(seed):
    return torch.Generator().manual_seed(seed)


def write_json(path, value):
    Path(path).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def plain_4bit_forward():
    """Keeps the 4-bit forward of bitsandbytes on its exact path.

    On a CPU with AVX512-BF16, `Linear4bit.forward` repacks the weight in evaluation mode and then
    multiplies in bfloat16 with bfloat16 scales, whatever the compute dtype is. Every `Linear4bit`
    asks `has_avx512bf16` once, when it is built; answering no keeps the path that dequantizes to
    the compute dtype and multiplies in it. Call this before a model is built or loaded.
    """
    import bitsandbytes.nn.modules as modules

    modules.has_avx512bf16 = lambda: False


def check_no_repack(model):
    """Fails when a 4-bit layer has been repacked after all, or would be dequantized wrongly."""
    import bitsandbytes as bnb

    for name, module in model.named_modules():
        if isinstance(module, bnb.nn.Linear4bit):
            state = module.weight.quant_state
            assert not module.support_avx512bf16_for_cpu, name
            assert not getattr(state, "packing_format_for_cpu", False), name
            # The AVX512 dequantization kernel assumes that no block straddles two rows.
            assert state.shape[1] % state.blocksize == 0, name

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
# Arguments of LlamaConfig for a small model.
LLAMA = dict(
    architectures=["LlamaForCausalLM"],
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


def randomize(model, seed):
    """Random weights that give uneven logits: norms near one, biases, and matrices by fan-in."""
    gen = generator(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            value = torch.randn(parameter.shape, generator=gen)
            if "norm" in name or name.endswith(("ln_1.weight", "ln_2.weight", "ln_f.weight")):
                value = 1.0 + 0.2 * value
            elif parameter.dim() == 1:
                value = 0.2 * value
            elif "embed" in name or "wte" in name or "wpe" in name:
                value = 1.6 * value / parameter.shape[-1] ** 0.5
            else:
                value = 1.2 * value / parameter.shape[-1] ** 0.5
            parameter.copy_(value)


def random_rows(lengths, vocab, seed):
    """Rows of token ids; 0 is the padding token and does not occur."""
    gen = generator(seed)
    return [torch.randint(3, vocab, (length,), generator=gen).tolist() for length in lengths]


def pad(rows):
    """Right-padded ids, attention mask and labels (-100 on padding)."""
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return ids, mask, ids.masked_fill(mask == 0, -100)


def losses(model, rows):
    """(mean loss over all predicted tokens, mean loss of each row, logits) of one padded batch.

    The mode of the model (training or evaluation) is left as it is.
    """
    ids, mask, labels = pad(rows)
    with torch.no_grad():
        output = model(input_ids=ids, attention_mask=mask, labels=labels)
    logits = output.logits.float()
    token = torch.nn.functional.cross_entropy(
        logits[:, :-1].transpose(1, 2), labels[:, 1:], ignore_index=-100, reduction="none"
    ).double()
    count = (labels[:, 1:] != -100).sum(1)
    mean = (token.sum() / count.sum()).item()
    assert abs(mean - output.loss.item()) < 1e-5, (mean, output.loss.item())
    return mean, (token.sum(1) / count).tolist(), logits

"""Shared by the scripts for weights packed into 32-bit words: the tiny model, and reading words back."""

import numpy as np
import torch
from safetensors.torch import load_file, save_file

# Arguments of LlamaConfig for a complete model, and for a smaller one around single layers.
TINY = dict(
    vocab_size=96,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=1,
    num_attention_heads=4,
    num_key_value_heads=4,
    max_position_embeddings=128,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
    tie_word_embeddings=False,
)
SMALL = TINY | dict(
    vocab_size=32, hidden_size=32, intermediate_size=96, num_attention_heads=2, num_key_value_heads=2
)


def awkward(model):
    """Gives each matrix rows of one sign (zero points at both ends), a row of zeros and outliers."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2 and "_proj" in name:
                parameter[0:4].abs_()
                parameter[7:9] = -parameter[7:9].abs()
                parameter[15] = parameter[15].abs()
                parameter[12] = 0.0
                parameter[13, ::9] *= 40.0
                parameter[14] *= 1e-3
                parameter[-1] *= 20.0


def finish(folder, whole):
    """Drops the token embedding where the case is about single layers; makes the files readable."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    if not whole and tensors.pop("model.embed_tokens.weight", None) is not None:
        save_file(tensors, file, metadata={"format": "pt"})
    for file in folder.iterdir():
        file.chmod(0o644)


def bits_of(words, count, bits):
    """Codes from a little-endian stream of bits along the last axis of u32 words."""
    stream = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=-1, bitorder="little")
    fields = stream[..., : count * bits].reshape(*words.shape[:-1], count, bits)
    return (fields * (1 << np.arange(bits))).sum(-1)


def awq_unpack(tensors, name, group, gemv=False):
    """An AWQ layer's weight [out, in], rounded once to the dtype of the scales, and zero points."""
    column = np.arange(8) if gemv else np.array([0, 2, 4, 6, 1, 3, 5, 7])  # of each nibble, low first
    parts = []
    for part in ("qweight", "qzeros"):
        words = tensors[f"{name}.{part}"].numpy().view(np.uint32)
        codes = bits_of(words, 8 * words.shape[1], 4).reshape(*words.shape, 8)
        parts.append(codes[..., np.argsort(column)].reshape(len(words), -1))
    parts.append(tensors[f"{name}.scales"].double().numpy())
    codes, zeros, scales = parts if gemv else [part.T for part in parts]
    of = np.arange(codes.shape[1]) // (group if group > 0 else codes.shape[1])
    weight = torch.from_numpy(scales[:, of] * (codes - zeros[:, of]))
    return weight.to(tensors[f"{name}.scales"].dtype).float(), zeros[:, : of[-1] + 1]

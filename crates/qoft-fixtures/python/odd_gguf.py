"""GGUF files by llama.cpp's quantizer and by gguf-py, for check_odd.py, see odd_files.py."""

import common  # noqa: F401  (first: fixes the environment)

import ctypes
import functools
import json
import sys
import tempfile
from pathlib import Path
from unittest import mock

import gguf
from transformers import AutoModelForCausalLM, LlamaConfig

from odd_files import F32, PROGRAMS, SIZES, case, llama, run

# Rows that are no whole blocks of 256.
ODD_ROWS = dict(hidden_size=288, intermediate_size=480, num_attention_heads=9, num_key_value_heads=3)


def by_gguf(folder):
    file = next(folder.glob("*.gguf"))
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file.name, dtype=F32, attn_implementation="eager")
    # Without the mark of a quantized model, which the Trainer refuses.
    config = LlamaConfig(**{key: getattr(model.config, key) for key in SIZES} | {
        "tie_word_embeddings": model.config.tie_word_embeddings, "rms_norm_eps": model.config.rms_norm_eps,
        "rope_parameters": model.config.rope_parameters, "head_dim": model.config.head_dim,
    })
    again = AutoModelForCausalLM.from_config(config, dtype=F32, attn_implementation="eager")
    again.load_state_dict(model.state_dict())
    return again


def tokenizer(folder, vocab):
    """A tokenizer of bytes, which GGUF wants."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<pad>", "<s>", "</s>", *letters, "ab"]
    words += [f"<{at}>" for at in range(vocab - len(words))]
    made = Tokenizer(models.BPE(vocab={word: at for at, word in enumerate(words)}, merges=[("a", "b")]))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    made.decoder = decoders.ByteLevel()
    made.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    config["pad_token"] = "<pad>"
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


@functools.cache
def llama_cpp_library():
    # Once: llama.cpp keeps the function that it logs by.
    sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "scripts"))
    from gguf_llama_cpp import LlamaCpp

    if PROGRAMS.llama_cpp is None:
        raise ImportError("--llama-cpp is not given")
    return LlamaCpp(PROGRAMS.llama_cpp)


def llama_cpp(folder, seed, kind, output=None, embedding=None, flags=b"", **sizes):
    """A file by llama.cpp's quantizer; flags are those of its parameters from `allow_requantize` on."""
    library = llama_cpp_library()
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        model = llama(seed, F32, **sizes)
        model.save_pretrained(work / "dense")
        tokenizer(work / "dense", model.config.vocab_size)
        run("export", "--to", "gguf", "--gguf-type", "f32", "--model", work / "dense", "--output", work / "f32.gguf")
        default = library.llama.llama_model_quantize_default_params

        def parameters():
            made = default()
            place = ctypes.addressof(made)
            for at, value in ((8, output), (12, embedding)):
                if value is not None:
                    ctypes.c_int32.from_address(place + at).value = gguf.GGMLQuantizationType[value]
            for at, value in enumerate(flags):
                ctypes.c_uint8.from_address(place + 16 + at).value = value
            return made

        with mock.patch.object(library, "llama", Patched(library.llama, parameters)):
            library.quantize(work / "f32.gguf", folder / "model.gguf", kind)
    reader = gguf.GGUFReader(folder / "model.gguf")
    print("   ", sorted({tensor.tensor_type.name for tensor in reader.tensors}))
    return by_gguf


class Patched:
    def __init__(self, library, parameters):
        self.library, self.llama_model_quantize_default_params = library, parameters

    def __getattr__(self, name):
        return getattr(self.library, name)


# `allow_requantize, quantize_output_tensor, only_copy, pure`
PURE = bytes([0, 1, 0, 1])
NO_OUTPUT = bytes([0, 0, 0, 0])


@case
def gguf_q2_k(folder):
    return llama_cpp(folder, 40, "q2_k", flags=bytes([0, 1, 0, 0]))


@case
def gguf_q3_k_l_output_q8(folder):
    return llama_cpp(folder, 41, "q3_k_l", output="Q8_0", embedding="Q4_K")


@case
def gguf_q4_k_m_pure_tied(folder):
    return llama_cpp(folder, 42, "q4_k_m", flags=PURE, tie_word_embeddings=True)


@case
def gguf_q5_k_s_table_iq4_nl(folder):
    return llama_cpp(folder, 43, "q5_k_s", embedding="IQ4_NL")


@case
def gguf_iq4_xs(folder):
    return llama_cpp(folder, 44, "iq4_xs")


@case
def gguf_iq4_xs_odd_rows(folder):
    return llama_cpp(folder, 45, "iq4_xs", **ODD_ROWS)


@case
def gguf_iq4_nl_output_kept(folder):
    return llama_cpp(folder, 46, "iq4_nl", flags=NO_OUTPUT)


@case
def gguf_q6_k_odd_rows(folder):
    return llama_cpp(folder, 47, "q6_k", **ODD_ROWS)


@case
def gguf_q5_1_output_bf16(folder):
    return llama_cpp(folder, 48, "q5_1", output="BF16", embedding="F16")


@case
def gguf_mix_by_gguf_py(folder):
    """Each tensor in another type, as gguf-py writes them."""
    model = llama(49, F32, hidden_size=128, intermediate_size=384, num_attention_heads=4, num_key_value_heads=4)
    config = model.config
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        model.save_pretrained(work / "dense")
        tokenizer(work / "dense", config.vocab_size)
        run("export", "--to", "gguf", "--gguf-type", "f32", "--model", work / "dense", "--output", work / "f32.gguf")
        reader = gguf.GGUFReader(work / "f32.gguf")
        writer = gguf.GGUFWriter(folder / "model.gguf", "llama")
        for name, field in reader.fields.items():
            if name.startswith("GGUF.") or name == "general.architecture":
                continue
            kind, value = field.types[0], field.contents()
            writer.add_key_value(name, value, kind, field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
        kinds = [gguf.GGMLQuantizationType[name] for name in "Q4_0 BF16 Q8_0 Q5_1 F16 Q4_1 Q5_0 F32".split()]
        for at, tensor in enumerate(reader.tensors):
            kind = kinds[at % len(kinds)] if len(tensor.shape) > 1 else gguf.GGMLQuantizationType.F32
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            writer.add_tensor(tensor.name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return by_gguf

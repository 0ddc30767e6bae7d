"""GGUF files, what gguf-py and transformers read in them, and blocks by ggml's quantizers.

    pip install -r requirements-gguf.txt
    git clone https://github.com/ggml-org/ggml && git -C ggml checkout d99724f2b141fed9e1a9f402213506c081433465
    python make_gguf.py ggml

Writes data/gguf:

- blocks.safetensors: for each type random blocks `TYPE.blocks`, and `TYPE.values` by gguf-py.
- layers: a layer of each type by ggml's reference quantizers, and its values by gguf-py.
- quantized.safetensors: values `N`, and their blocks `TYPE.N` by ggml's reference quantizers.
- llama.gguf, qwen2.gguf, qwen3.gguf: small models with a mix of types, written by gguf-py.
- mistral.gguf, gemma3.gguf, phi3.gguf, smollm3.gguf: smaller ones. transformers does not read the last
  three as they are, or not at all: its models are given the weights that gguf-py decodes.
- expected.safetensors: `MODEL.input_ids`, `MODEL.logits` by transformers, `MODEL.text_ids` of TEXT.
- llama-00001-of-00002.gguf, llama-00002-of-00002.gguf: the first model in two files.
"""

import common  # noqa: F401  (first: fixes the environment)

import ctypes
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as T
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

TYPES = "Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4".split()
TEXT = "The quick brown fox's 12345 jumps\n\n  over <|im_end|> naïve 漢字 don't!"
OUT = common.fresh("gguf")


def library(folder):
    """ggml's quantizers as a shared library."""
    path = OUT / "libggml.so"
    sources = "ggml-quants.c ggml.c ggml-threading.cpp ggml-alloc.c ggml-backend.cpp ggml-backend-meta.cpp".split()
    command = ["gcc", "-O2", "-fPIC", "-shared", "-D_GNU_SOURCE", '-DGGML_VERSION="-"', '-DGGML_COMMIT="-"']
    command += [f"-I{folder}/include", f"-I{folder}/src", "-o", path]
    command += [f"{folder}/src/{name}" for name in sources] + ["-lm", "-lpthread", "-lstdc++"]
    subprocess.run(command, check=True)
    loaded = ctypes.CDLL(str(path))
    path.unlink()
    return loaded


GGML = library(Path(sys.argv[1]))


def quantized(values, kind):
    """Rows of f32 as blocks, without weights for the importance of values."""
    block, size = gguf.GGML_QUANT_SIZES[T[kind]]
    rows, columns = values.shape
    out = np.zeros((rows, columns // block * size), np.uint8)
    values = np.ascontiguousarray(values, np.float32)
    function = GGML[f"quantize_{kind.lower().replace('_k', '_K')}"]
    function.restype = ctypes.c_size_t
    pointers = [ctypes.c_void_p(values.ctypes.data), ctypes.c_void_p(out.ctypes.data)]
    written = function(*pointers, ctypes.c_int64(rows), ctypes.c_int64(columns), None)
    assert written == out.nbytes
    return out


def blocks():
    rng, tensors = np.random.default_rng(1), {}
    halves = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82]}
    halves |= {"Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0]}
    for kind in TYPES:
        _, size = gguf.GGML_QUANT_SIZES[T[kind]]
        data = rng.integers(0, 256, (6, size), dtype=np.uint8)
        for at in halves.get(kind, []):
            # Finite numbers of any size and sign, among them subnormal ones.
            numbers = (rng.standard_normal(6) * 10.0 ** rng.integers(-7, 4, 6)).astype(np.float16)
            data[:, at : at + 2] = numbers[:, None].view(np.uint8).reshape(6, 2)
        if kind == "MXFP4":
            data[:, 0] = [0, 1, 2, 100, 128, 200]
        tensors[f"{kind}.blocks"] = torch.from_numpy(data)
        tensors[f"{kind}.values"] = torch.from_numpy(gguf.quants.dequantize(data, T[kind]))
    save_file(tensors, OUT / "blocks.safetensors")


def layers():
    """A layer of each type as a container shows it, and its weight by gguf-py."""
    rng, tensors, expected = np.random.default_rng(3), {}, {}
    for number, kind in enumerate(TYPES):
        path = f"model.layers.{number}.mlp.up_proj"
        values = rng.standard_normal((16, 256)).astype(np.float32) / 16
        data = quantized(values, kind)
        tensors[f"{path}.weight.{kind}"] = torch.from_numpy(data)
        expected[f"{path}.weight"] = torch.from_numpy(gguf.quants.dequantize(data, T[kind]))
    tensors["model.embed_tokens.weight"] = torch.zeros(2, 256)
    folder = OUT / "layers"
    folder.mkdir()
    (folder / "config.json").write_text("{}\n")
    save_file(tensors, folder / "model.safetensors")
    save_file(expected, folder / "expected.safetensors")


def quantizers():
    rng, tensors = np.random.default_rng(2), {}
    normal = rng.standard_normal((6, 256)).astype(np.float32)
    normal[1] *= 1e-3
    normal[2, 17] = 30.0
    normal[3] = np.abs(normal[3])
    normal[4] = np.round(normal[4] * 4) / 4
    normal[5, ::2] = 0
    special = np.zeros((4, 256), np.float32)
    special[1, 40:70] = -1.5
    special[2] = 0.25
    special[3] = np.tile([1.0, -1.0, 0.5, -0.5], 64)
    # Very small and very large numbers, as far as half precision holds their scales.
    sizes = np.stack([normal[0] * 10.0**power for power in (-12, -7, -5, -3, 4)]).astype(np.float32)
    for number, values in enumerate([normal, special, sizes]):
        tensors[str(number)] = torch.from_numpy(values)
        for kind in TYPES:
            tensors[f"{kind}.{number}"] = torch.from_numpy(quantized(values, kind))
    save_file(tensors, OUT / "quantized.safetensors")


def vocabulary():
    """That of the small tokenizer of the other fixtures: bytes and some pairs."""
    files = sorted((common.DATA / "tokenizer").glob("**/tokenizer.json"))
    for path in files:
        model = common.json.loads(path.read_text())
        if model["model"].get("type") == "BPE" and not model["model"].get("byte_fallback"):
            return model
    raise SystemExit("no byte-level tokenizer among the fixtures")


def tokens(writer, architecture, pieces):
    model = vocabulary()
    if pieces:
        words = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)]
        letters = "▁ThequickbrownfoxsjmpvdtlazygnïQ.,!'12345"
        singles = list(dict.fromkeys(letters))
        joined = ["▁t", "th", "he", "▁th", "▁the", "qu", "ick", "ck", "br", "ow", "own", "ov", "er", "ju", "mp", "umps", "um", "ps"]
        joined = [word for word in joined if word not in singles]
        words += joined + singles
        kinds = [2, 3, 3] + [6] * 256 + [1] * (len(words) - 259)
        scores = [0.0] * 259 + [-float(i) for i in range(len(words) - 259)]
        writer.add_tokenizer_model("llama")
        writer.add_token_list(words)
        writer.add_token_scores(scores)
        writer.add_token_types(kinds)
        writer.add_unk_token_id(0)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_add_bos_token(True)
        return len(words)
    vocab = model["model"]["vocab"]
    added = {token["content"]: token["id"] for token in model["added_tokens"]}
    ends = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    names = dict(vocab) | added
    for word in ends:
        names.setdefault(word, len(names))
    words = [word for word, _ in sorted(names.items(), key=lambda item: item[1])]
    assert sorted(names.values()) == list(range(len(words)))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(words)
    writer.add_token_types([3 if word in added or word in ends else 1 for word in words])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(names["<|endoftext|>"])
    writer.add_eos_token_id(names["<|im_end|>"])
    writer.add_add_bos_token(False)
    writer.add_chat_template("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
    return len(words)


def permuted(weight, heads):
    """Rows as llama.cpp's converter orders them."""
    rows = weight.shape[0]
    return weight.reshape(heads, 2, rows // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def write_model(path, architecture, mix, pieces=False, split=0, **sizes):
    """Writes a file; its weights are returned as transformers has them."""
    hidden, inner, heads, kv, layers = 256, 512, 4, 2, sizes.get("layers", 2)
    if "hidden" in sizes:
        hidden, inner = sizes["hidden"], 2 * sizes["hidden"]
    width, weights = sizes.get("width", hidden // heads), {}
    rng = np.random.default_rng(len(architecture) + 7)
    writer = gguf.GGUFWriter(path, architecture, split_max_tensors=split)
    if "name" in sizes:
        writer.add_name(sizes["name"])
    writer.add_block_count(layers)
    writer.add_context_length(512)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(50000.0)
    writer.add_rope_dimension_count(width)
    vocab = tokens(writer, architecture, pieces)
    writer.add_vocab_size(vocab)
    writer.add_file_type(15)

    def dense(name, values):
        weights[name] = values.astype(np.float32)
        writer.add_tensor(name, values.astype(np.float32))

    def matrix(name, rows, columns, heads=0):
        values = (rng.standard_normal((rows, columns)) * columns**-0.5).astype(np.float32)
        kind = next(kind for part, kind in mix.items() if part in name)
        # Each row has its own blocks, so that they can be decoded in any order.
        weights[name] = values
        if kind not in ("F32", "F16", "BF16"):
            weights[name] = gguf.quants.dequantize(quantized(values, kind), T[kind])
        values = permuted(values, heads) if heads else values
        if kind in ("F32", "F16"):
            writer.add_tensor(name, values.astype({"F32": np.float32, "F16": np.float16}[kind]))
        elif kind == "BF16":
            data = gguf.quants.quantize(values, T.BF16)
            writer.add_tensor(name, data, raw_dtype=T.BF16)
        else:
            writer.add_tensor(name, quantized(values, kind), raw_dtype=T[kind])

    def norm(name, size):
        dense(name, 1 + 0.1 * rng.standard_normal(size))
        if architecture == "gemma3":
            # Files have them with 1 added.
            weights[name] = weights[name] - 1

    if architecture == "gemma3":
        writer.add_sliding_window(8)
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(8.0)
    turned = architecture in ("llama", "smollm3")
    if architecture == "phi3":
        factors = [1 + rng.random(width // 2), 1 + 0.1 * rng.random(width // 2)]
        writer.add_rope_scaling_orig_ctx_len(128)
        writer.add_rope_scaling_attn_factors(1.19)
        dense("rope_factors_long.weight", factors[0])
        dense("rope_factors_short.weight", factors[1])
    matrix("token_embd.weight", vocab, hidden)
    for i in range(layers):
        blk = f"blk.{i}."
        norm(blk + "attn_norm.weight", hidden)
        if architecture == "phi3":
            matrix(blk + "attn_qkv.weight", (heads + 2 * kv) * width, hidden)
        else:
            matrix(blk + "attn_q.weight", heads * width, hidden, turned and heads)
            matrix(blk + "attn_k.weight", kv * width, hidden, turned and kv)
            matrix(blk + "attn_v.weight", kv * width, hidden)
        matrix(blk + "attn_output.weight", hidden, heads * width)
        if architecture == "qwen2":
            for part, size in [("q", heads), ("k", kv), ("v", kv)]:
                dense(blk + f"attn_{part}.bias", 0.1 * rng.standard_normal(size * width))
        if architecture == "gemma3":
            norm(blk + "post_attention_norm.weight", hidden)
            norm(blk + "post_ffw_norm.weight", hidden)
        if architecture in ("qwen3", "gemma3"):
            norm(blk + "attn_q_norm.weight", width)
            norm(blk + "attn_k_norm.weight", width)
        norm(blk + "ffn_norm.weight", hidden)
        if architecture == "phi3":
            matrix(blk + "ffn_up.weight", 2 * inner, hidden)
        else:
            matrix(blk + "ffn_gate.weight", inner, hidden)
            matrix(blk + "ffn_up.weight", inner, hidden)
        matrix(blk + "ffn_down.weight", hidden, inner)
    norm("output_norm.weight", hidden)
    if "output.weight" in mix:
        matrix("output.weight", vocab, hidden)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    weights |= {"vocab": vocab, "hidden": hidden, "heads": heads, "kv": kv, "layers": layers}
    return weights


NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_qkv": "self_attn.qkv_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}

GEMMA = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
}


def model_of(architecture, weights):
    """A model of transformers with the weights of a file."""
    config = AutoConfig.for_model("gemma3_text" if architecture == "gemma3" else architecture)
    config.update({
        "vocab_size": weights["vocab"],
        "hidden_size": weights["hidden"],
        "intermediate_size": 2 * weights["hidden"],
        "num_hidden_layers": weights["layers"],
        "num_attention_heads": weights["heads"],
        "num_key_value_heads": weights["kv"],
        "head_dim": weights["hidden"] // weights["heads"],
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "pad_token_id": None,
        "sliding_window": None,
    })
    rope = {"rope_type": "default", "rope_theta": 50000.0}
    if architecture == "phi3":
        config.original_max_position_embeddings = 128
        rope |= {"rope_type": "longrope", "attention_factor": 1.19, "original_max_position_embeddings": 128}
        rope |= {f"{kind}_factor": weights[f"rope_factors_{kind}.weight"].tolist() for kind in ("long", "short")}
    if architecture == "smollm3":
        config.no_rope_layers = [int((i + 1) % 4 != 0) for i in range(weights["layers"])]
        config.layer_types = ["full_attention"] * weights["layers"]
    if architecture == "gemma3":
        config.sliding_window, config.query_pre_attn_scalar = 8, config.head_dim
        config.layer_types = ["sliding_attention" if (i + 1) % 6 else "full_attention" for i in range(weights["layers"])]
        full = rope | {"rope_type": "linear", "factor": 8.0}
        rope = {"full_attention": full, "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}
    config.rope_parameters = rope
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    state = {}
    for name, values in weights.items():
        if not name.endswith(".weight") or name.startswith("rope_factors"):
            continue
        *block, module, suffix = name.split(".")
        prefix = f"model.layers.{block[1]}." if block else ""
        if architecture == "gemma3" and module in GEMMA:
            state[f"{prefix}{GEMMA[module]}.{suffix}"] = torch.from_numpy(values)
            continue
        place = "mlp.gate_up_proj" if (architecture, module) == ("phi3", "ffn_up") else NAMES[module]
        state[f"{prefix}{place}.{suffix}"] = torch.from_numpy(values)
    state.setdefault("lm_head.weight", state["model.embed_tokens.weight"])
    model.load_state_dict(state)
    return model.eval()


def expected(name, model=None):
    folder, file = str(OUT), f"{name}.gguf"
    if model is None:
        model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32)
    model.set_attn_implementation("eager")
    ids = torch.randint(5, model.config.vocab_size, (2, 21), generator=common.generator(3))
    with torch.no_grad():
        logits = model(ids).logits
    found = {f"{name}.input_ids": ids, f"{name}.logits": logits.contiguous()}
    if name not in SMALL:
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
        text = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
        found[f"{name}.text_ids"] = torch.tensor(text)
    return found


MIXES = {
    "llama": {"attn_q.": "Q4_0", "attn_k.": "Q8_0", "attn_v": "Q6_K", "blk.0.ffn_down": "Q4_K", "ffn_down": "Q5_K", "ffn_gate": "Q4_K", "ffn_up": "F16", "output.weight": "Q6_K", "attn_output": "Q5_0", "token_embd": "Q4_0"},
    "qwen2": {"attn_q.": "Q8_0", "attn_k.": "BF16", "attn_v": "Q2_K", "ffn_down": "Q3_K", "ffn_gate": "IQ4_NL", "ffn_up": "IQ4_XS", "attn_output": "Q4_1", "token_embd": "Q8_0"},
    "qwen3": {"attn_q.": "Q5_1", "attn_k.": "F32", "attn_v": "Q8_0", "ffn_": "Q4_K", "attn_output": "Q6_K", "token_embd": "F16"},
}

SMALL = {
    "gemma3": {"attn_q.": "Q8_0", "token_embd": "Q8_0", "": "Q4_0"},
    "mistral": {"attn_q.": "Q8_0", "attn_k.": "Q5_0", "": "Q4_0"},
    "phi3": {"attn_qkv": "Q8_0", "token_embd": "Q8_0", "ffn_up": "Q5_1", "": "Q4_1"},
    "smollm3": {"attn_q.": "Q8_0", "token_embd": "Q8_0", "": "IQ4_NL"},
}


if __name__ == "__main__":
    blocks()
    layers()
    quantizers()
    tensors = {}
    for name, mix in MIXES.items():
        # transformers takes 128 for the width of qwen3's heads, whatever the file says.
        write_model(OUT / f"{name}.gguf", name, mix, name == "llama", width=128 if name == "qwen3" else 64)
        tensors |= expected(name)
    # Files call mistral's models llama; transformers looks at the name.
    write_model(OUT / "mistral.gguf", "llama", SMALL["mistral"], True, hidden=64, name="Mistral small")
    tensors |= expected("mistral")
    for name, layers in [("gemma3", 7), ("phi3", 2), ("smollm3", 5)]:
        weights = write_model(OUT / f"{name}.gguf", name, SMALL[name], hidden=64, layers=layers)
        tensors |= expected(name, model_of(name, weights))
    write_model(OUT / "llama.gguf", "llama", MIXES["llama"], True, split=12)
    save_file(tensors, OUT / "expected.safetensors")

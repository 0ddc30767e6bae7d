"""corpus/<target>: the inputs that the fuzzer starts from, made of the fixtures.

An input has several parts with BORDER between them; src/lib.rs takes them apart. The environment
variable QOFT names the program, which writes the checkpoint that `resume` starts from.
"""

import json
import os
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent
DATA = ROOT.parent / "crates/qoft-fixtures/data"
BORDER = b"\n--- next part ---\n"
# Larger inputs make the fuzzer slow.
LARGEST = 13_000


def corpus(target):
    folder = ROOT / "corpus" / target
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)

    def add(name, *parts):
        content = BORDER.join(parts)
        if len(content) <= LARGEST:
            (folder / name).write_bytes(content)

    return add


def split(path):
    """Header and tensors of a safetensors file."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return content[8 : 8 + length].rstrip(b" "), content[8 + length :]


def layer(path, prefixes):
    """The header and tensors of the first layers of a file, under their names."""
    header, data = split(path)
    header = json.loads(header)
    about = header.pop("__metadata__", {})
    kept, out = {}, b""
    about = {name: text for name, text in about.items() if name.startswith(prefixes)}
    if about:
        kept["__metadata__"] = about
    for name, info in header.items():
        if name.startswith(prefixes):
            start, end = info["data_offsets"]
            kept[name] = dict(info, data_offsets=[len(out), len(out) + end - start])
            out += data[start:end]
    return json.dumps(kept, separators=(",", ":")).encode(), out


def config(path):
    return json.dumps(json.loads(path.read_text()), separators=(",", ":")).encode()


INT8 = {"_type": "Int8WeightOnlyConfig", "_version": 2, "_data": {"group_size": None}}
INT4 = {"_type": "Int4WeightOnlyConfig", "_version": 2, "_data": {"group_size": 32}}
BY_NAME = {"_type": "FqnToConfig", "_version": 1, "_data": {"fqn_to_config": {"re:.*k_proj": None, "a.b": INT4, "_default": INT8}}}
# Configurations that dense weights are quantized by.
QUANTIZATIONS = {
    "bnb": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, "blocksize": 64},
    "int8": {"quant_method": "bitsandbytes", "load_in_8bit": True, "llm_int8_skip_modules": ["b"]},
    "torchao": {"quant_method": "torchao", "quant_type": {"default": BY_NAME}, "modules_to_not_convert": ["a"]},
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 32, "dynamic": {"-:.*k_proj": {}, "+:.*b": {"bits": 8}}},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemv"},
    "hqq": {"quant_method": "hqq", "nbits": 3, "group_size": 32, "axis": 1, "skip_modules": ["lm_head"]},
    "fp8": {"quant_method": "fp8", "weight_block_size": [32, 32], "scale_fmt": "ue8m0"},
    "fbgemm": {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0},
    "inc": {"fp8_config": "E5M2", "scale_method": "maxabs_pow2_opt_weight", "blocklist": {"names": ["x"]}},
    "compressed": {
        "quant_method": "compressed-tensors",
        "config_groups": {
            "g": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}}
        },
    },
    "nvfp4": {"quant_method": "compressed-tensors", "num_bits": 4, "type": "float", "group_size": 16},
    "mlx": {"mode": "affine", "bits": 3, "group_size": 32, "a.b": {"bits": 8, "group_size": 64}, "x": False},
    "modelopt": {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["x*"]},
    "mxfp4": {"quant_method": "mxfp4", "modules_to_not_convert": ["x"]},
    "eetq": {"quant_method": "eetq", "weights": "int8"},
}  # fmt: skip


# AutoRound's configurations of tensors that fixtures of compressed-tensors have.
AUTO_ROUND = {
    "a8_fp8_channel": {"data_type": "fp8", "bits": 8, "group_size": -1},
    "fp8_tensor": {"data_type": "fp", "bits": 8, "group_size": 0, "extra_config": {"plain": {"bits": 16, "data_type": "float"}}},
    "fp8_block": {"data_type": "fp8", "bits": 8, "group_size": [32, 64], "extra_config": {"plain": {"group_size": [128, 128]}}},
    "nvfp4": {"data_type": "nv_fp", "bits": 4, "group_size": 16, "extra_config": {".*plain.*": {"bits": 8, "data_type": "mx_fp", "group_size": 32}}},
    "mxfp4": {"data_type": "mx_fp", "bits": 4, "group_size": 32},
}  # fmt: skip


def checkpoints():
    add = corpus("checkpoint")
    add("dense", b"{}", b'{"a.weight":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}', bytes(16))
    add("raw", b"{}", b"", struct.pack("<Q", 2) + b"{}")
    for name, settings in QUANTIZATIONS.items():
        add(f"to_{name}", json.dumps({"quantization_config": settings}).encode(), b"", struct.pack("<Q", 2) + b"{}")
    for folder in sorted(DATA.glob("schemes/*/*")) + sorted(DATA.glob("packed/*")) + sorted(DATA.glob("bnb/*")) + sorted(DATA.glob("models/llama_*")):
        file = folder / "model.safetensors"
        if not file.exists():
            continue
        sizes = {}
        for name in json.loads(split(file)[0]):
            if name == "__metadata__":
                continue
            path = name.split(".weight.")[0].rsplit(".", 1)[0]
            sizes.setdefault(path, []).append(name)
        # The smallest of the layers that are more than a weight.
        layers = [layer(file, path + ".") for path, names in sorted(sizes.items()) if len(names) > 1]
        if layers:
            smallest = min(layers, key=lambda parts: sum(map(len, parts)))
            name = f"{folder.parent.name}-{folder.name}"
            add(name, config(folder / "config.json"), *smallest)
            settings = AUTO_ROUND.get(folder.name) if folder.parent.name == "compressed-tensors" else None
            if settings:
                about = {"quant_method": "auto-round", "packing_format": "auto_round:llm_compressor"} | settings
                add(f"auto-round-{folder.name}", json.dumps({"quantization_config": about}).encode(), *smallest)


def indices():
    add = corpus("index")
    second = b'{"b.weight":{"dtype":"F32","shape":[2,4],"data_offsets":[0,32]}}'
    files = {"a.weight": "model-00001-of-00002.safetensors", "b.weight": "model-00002-of-00002.safetensors"}
    add("two", json.dumps({"metadata": {"total_size": 48}, "weight_map": files}).encode(), second)
    add("outside", json.dumps({"weight_map": {"a.weight": "../a.safetensors"}}).encode(), second)
    add("empty", b'{"weight_map":{}}', b"{}")


def templates():
    add = corpus("template")
    variables = b'{"bos_token":"<s>","eos_token":"</s>"}'
    messages = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]},
    ]
    for file in sorted(DATA.glob("chat/**/*.jinja")):
        add("-".join(file.relative_to(DATA / "chat").parts[:-1]), file.read_bytes(), variables, json.dumps(messages).encode())
    add("filters", b"{{ messages | tojson(indent=2) }}{% for m in messages %}{{ m.content | trim | upper }}{% endfor %}", variables, json.dumps(messages).encode())


def model_configs():
    add = corpus("model_config")
    for folder in sorted(DATA.glob("models/*")) + sorted(DATA.glob("gpt2/*")):
        if (folder / "config.json").exists():
            add(folder.name, config(folder / "config.json"))


def adapters():
    add = corpus("adapter")
    for folder in sorted(DATA.glob("adapters/*")) + sorted(DATA.glob("hra/*")) + sorted(DATA.glob("saved_embeddings/*")):
        file = folder / "adapter_model.safetensors"
        if file.exists():
            # The fuzz target has a model that is half as wide and has the same names.
            add(folder.name, config(folder / "adapter_config.json"), *layer(file, ("base_model.model.model.layers.0.self_attn", "base_model.model.lm_head")))


def resumed():
    program = os.environ.get("QOFT")
    if program is None:
        print("skipped resume: QOFT does not name the program")
        return
    add = corpus("resume")
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        (work / "rows.jsonl").write_text('{"input_ids":[1,2,3,4]}\n{"input_ids":[5,6,7,8]}\n')
        options = "--target-modules q_proj --oft-block-size 8 --batch-size 2 --max-steps 2 --save-steps 1"
        command = [program, "train", "--model", DATA / "models/llama", "--data", work / "rows.jsonl"]
        subprocess.run([*command, "--output", work / "out", *options.split()], check=True, capture_output=True)
        checkpoint = work / "out/checkpoint-1"
        state = json.loads((checkpoint / "trainer_state.json").read_text())
        # The fuzz target's model comes from no folder.
        state["base"] = None
        add(
            "one-step",
            json.dumps(state).encode(),
            (checkpoint / "optimizer.bin").read_bytes(),
            config(checkpoint / "adapter_config.json"),
            *split(checkpoint / "adapter_model.safetensors"),
        )


def rows():
    add = corpus("rows")
    add("text", b"l", b'{"text":"abc"}\n{"prompt":"a","completion":"b"}\n')
    add("ids", b"l", b'{"input_ids":[1,2,3],"labels":[-100,2,3],"attention_mask":[1,1,1]}\n')
    add("chat", b"l", b'{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}\n')
    add("array", b"a", b'[{"text":"abc"},{"text":"d"}]')
    add("plain", b"t", b"one\n\ntwo\n")


def tokenizers():
    add = corpus("tokenizer")
    tokenizer = json.loads((DATA / "tokenizer/tokenizer.json").read_text())
    # A vocabulary of letters is as good as a larger one.
    vocabulary = dict(list(tokenizer["model"]["vocab"].items())[:80])
    tokenizer["model"].update(vocab=vocabulary, merges=[])
    settings = config(DATA / "tokenizer/tokenizer_config.json")
    add("bpe", json.dumps(tokenizer, separators=(",", ":")).encode(), settings, b"Hello, <s> world")
    for kind, model in [
        ("words", {"type": "WordLevel", "vocab": {"a": 0, "[UNK]": 1}, "unk_token": "[UNK]"}),
        ("pieces", {"type": "WordPiece", "vocab": {"a": 0, "[UNK]": 1}, "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100}),
        ("unigram", {"type": "Unigram", "vocab": [["a", -1.0], ["<unk>", -2.0]], "unk_id": 1}),
    ]:
        small = {"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None, "model": model}
        add(kind, json.dumps(small).encode(), b"{}", b"a b a")


def options():
    add = corpus("options")
    add("usual", b"model: m\ndata: d.jsonl\noutput: o\nlearning-rate: 1e-4\nmax_steps: 10\ntarget_modules: [q_proj, v_proj]\n")
    add("adapter", b"adapter: [a, b=0.5]\npeft_type: hra\nadapter_option: r=4\ncoft: true\neps: 1.0e-3\n")
    add("aliases", b"a: &x [1, 2]\nb: *x\n")


def gguf_string(text):
    return struct.pack("<Q", len(text.encode())) + text.encode()


def gguf_value(value):
    """A value with its type before it."""
    if isinstance(value, bool):
        return struct.pack("<IB", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + gguf_string(value)
    if isinstance(value[0], str):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(gguf_string, value))
    form, kind = ("f", 6) if isinstance(value[0], float) else ("i", 5)
    return struct.pack(f"<IIQ{len(value)}{form}", 9, kind, len(value), *value)


# Names, numbers, values and bytes of a block.
GGUF_TYPES = [
    ("F32", 0, 1, 4), ("F16", 1, 1, 2), ("BF16", 30, 1, 2), ("Q4_0", 2, 32, 18), ("Q4_1", 3, 32, 20),
    ("Q5_0", 6, 32, 22), ("Q5_1", 7, 32, 24), ("Q8_0", 8, 32, 34), ("Q2_K", 10, 256, 84),
    ("Q3_K", 11, 256, 110), ("Q4_K", 12, 256, 144), ("Q5_K", 13, 256, 176), ("Q6_K", 14, 256, 210),
    ("IQ4_NL", 20, 32, 18), ("IQ4_XS", 23, 256, 136), ("MXFP4", 39, 32, 17),
]  # fmt: skip


def gguf_file(keys, tensors):
    """A file of tensors with names, numbers of rows (of experts and rows), columns and types."""
    table, data = b"", b""
    for name, rows, columns, (_, number, values, size) in tensors:
        experts, rows = rows if isinstance(rows, tuple) else (None, rows)
        sizes = [size for size in (columns, rows, experts) if size is not None]
        table += gguf_string(name) + struct.pack("<I", len(sizes))
        table += struct.pack(f"<{len(sizes)}QIQ", *sizes, number, len(data))
        content = bytes((7 * i) % 61 for i in range((experts or 1) * (rows or 1) * columns // values * size))
        data += content + bytes(-len(content) % 32)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys))
    head += b"".join(gguf_string(key) + gguf_value(value) for key, value in keys.items()) + table
    return head + bytes(-len(head) % 32) + data


def gguf_files():
    add = corpus("gguf")
    f32, types = GGUF_TYPES[0], {kind[0]: kind for kind in GGUF_TYPES}
    pieces = ["<unk>", "<s>", "</s>", "<0x0A>", "\u2581", "a", "b", "ab", "\u2581a"]
    letters = ["a", "b", "ab", "\u0120", "\u0120a", "<|end|>", "1", "\u010a"]
    words = {
        "llama": {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.tokens": pieces,
            "tokenizer.ggml.token_type": [2, 3, 3, 6] + [1] * 5,
            "tokenizer.ggml.scores": [0.0] * 5 + [-float(i) for i in range(4)],
            "tokenizer.ggml.bos_token_id": 1,
            "tokenizer.ggml.eos_token_id": 2,
            "tokenizer.ggml.add_bos_token": True,
            "tokenizer.ggml.add_space_prefix": True,
        },
        "gpt2": {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": "qwen2",
            "tokenizer.ggml.tokens": letters,
            "tokenizer.ggml.token_type": [1, 1, 1, 1, 1, 3, 1, 1],
            "tokenizer.ggml.merges": ["a b", "\u0120 a"],
            "tokenizer.ggml.eos_token_id": 5,
            "tokenizer.ggml.padding_token_id": 5,
            "tokenizer.ggml.eot_token_id": 4,
            "tokenizer.chat_template": "{{ messages }}",
        },
    }
    for kind, tokens in [("llama", "llama"), ("mistral", "llama"), ("smollm3", "gpt2"), ("qwen2", "gpt2"), ("qwen3", "gpt2"), ("phi3", "llama")]:
        rows = len(words[tokens]["tokenizer.ggml.tokens"])
        sizes = {"block_count": 1, "context_length": 64, "embedding_length": 32, "feed_forward_length": 32}
        sizes |= {"attention.head_count": 2, "attention.head_count_kv": 1, "rope.dimension_count": 16}
        sizes |= {"attention.layer_norm_rms_epsilon": 1e-5, "rope.freq_base": 10000.0}
        keys = {"general.architecture": kind} | {f"{kind}.{key}": value for key, value in sizes.items()}
        fused = kind == "phi3"
        parts = [("attn_qkv", 64)] if fused else [("attn_q", 32), ("attn_k", 16), ("attn_v", 16)]
        parts += [("attn_output", 32), ("ffn_up", 64 if fused else 32), ("ffn_down", 32)]
        parts += [] if fused else [("ffn_gate", 32)]
        small = [kind for kind in GGUF_TYPES if kind[2] < 256]
        tensors = [("token_embd.weight", rows, 32, types["Q8_0"]), ("output_norm.weight", None, 32, f32)]
        for number, (name, size) in enumerate(parts):
            tensors.append((f"blk.0.{name}.weight", size, 32, small[(number + len(kind)) % len(small)]))
        tensors += [(f"blk.0.{norm}.weight", None, 32, f32) for norm in ("attn_norm", "ffn_norm")]
        if kind == "qwen2":
            tensors += [(f"blk.0.attn_{name}.bias", None, size, f32) for name, size in [("q", 32), ("k", 16)]]
        if kind == "qwen3":
            tensors += [(f"blk.0.attn_{name}_norm.weight", None, 16, f32) for name in "qk"]
        if kind == "llama":
            tensors += [("rope_freqs.weight", None, 8, f32), ("output.weight", rows, 32, types["F16"])]
        if fused:
            tensors += [(f"rope_factors_{name}.weight", None, 8, f32) for name in ("long", "short")]
            keys |= {"phi3.rope.scaling.attn_factor": 1.1, "phi3.rope.scaling.original_context_length": 32}
        if kind == "qwen3":
            keys |= {"qwen3.rope.scaling.type": "yarn", "qwen3.rope.scaling.factor": 2.0, "general.alignment": 32}
        add(kind, gguf_file(keys | words[tokens], tensors))
    for kind in ("llama", "qwen2moe", "qwen3moe", "olmoe"):
        sizes = {"block_count": 1, "context_length": 64, "embedding_length": 32, "feed_forward_length": 32}
        sizes |= {"attention.head_count": 2, "attention.head_count_kv": 2, "attention.key_length": 16}
        sizes |= {"attention.layer_norm_rms_epsilon": 1e-5, "expert_count": 2, "expert_used_count": 1}
        sizes |= {} if kind in ("llama", "olmoe") else {"expert_feed_forward_length": 32}
        sizes |= {"expert_shared_feed_forward_length": 32} if kind == "qwen2moe" else {}
        keys = {"general.architecture": kind} | {f"{kind}.{key}": value for key, value in sizes.items()}
        block = [(f"attn_{name}", 32, 32, types["Q4_0"]) for name in ("q", "k", "v", "output")]
        block += [("ffn_gate_inp", 2, 32, f32)]
        block += [(f"ffn_{name}_exps", (2, 32), 32, types["Q4_0"]) for name in ("gate", "up", "down")]
        block += [(f"{norm}_norm", None, 32, f32) for norm in ("attn", "ffn")]
        if kind == "qwen2moe":
            block += [("ffn_gate_shexp", 32, 32, types["Q5_1"]), ("ffn_up_shexp", 32, 32, types["MXFP4"])]
            block += [("ffn_down_shexp", 32, 32, types["Q5_0"]), ("ffn_gate_inp_shexp", None, 32, f32)]
        if kind in ("qwen3moe", "olmoe"):
            block += [(f"attn_{name}_norm", None, 16 if kind == "qwen3moe" else 32, f32) for name in "qk"]
        tensors = [("token_embd.weight", len(letters), 32, types["Q8_0"]), ("output_norm.weight", None, 32, f32)]
        tensors += [(f"blk.0.{name}.weight", *rest) for name, *rest in block]
        add(f"{kind}_experts", gguf_file(keys | words["gpt2"], tensors))
    sizes = {"llama.embedding_length": 256, "llama.attention.head_count": 4, "llama.block_count": 1}
    sizes |= {"llama.context_length": 8, "llama.feed_forward_length": 8}
    for name, *kind in GGUF_TYPES:
        tensors = [("token_embd.weight", 2, 256, (name, *kind)), ("blk.0.attn_q.weight", 8, 256, (name, *kind))]
        keys = {"general.architecture": "llama", "llama.attention.layer_norm_rms_epsilon": 1e-6} | sizes
        add(name, gguf_file(keys, tensors))


if __name__ == "__main__":
    checkpoints()
    gguf_files()
    indices()
    templates()
    model_configs()
    adapters()
    resumed()
    rows()
    tokenizers()
    options()

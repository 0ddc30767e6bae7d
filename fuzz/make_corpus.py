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
LARGEST = 12_000


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
    header.pop("__metadata__", None)
    kept, out = {}, b""
    for name, info in header.items():
        if name.startswith(prefixes):
            start, end = info["data_offsets"]
            kept[name] = dict(info, data_offsets=[len(out), len(out) + end - start])
            out += data[start:end]
    return json.dumps(kept, separators=(",", ":")).encode(), out


def config(path):
    return json.dumps(json.loads(path.read_text()), separators=(",", ":")).encode()


def checkpoints():
    add = corpus("checkpoint")
    add("dense", b"{}", b'{"a.weight":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}', bytes(16))
    add("raw", b"{}", b"", struct.pack("<Q", 2) + b"{}")
    for folder in sorted(DATA.glob("schemes/*/*")) + sorted(DATA.glob("bnb/*")) + sorted(DATA.glob("models/llama_*")):
        file = folder / "model.safetensors"
        if not file.exists():
            continue
        sizes = {}
        for name in json.loads(split(file)[0]):
            path = name.split(".weight.")[0].rsplit(".", 1)[0]
            sizes.setdefault(path, []).append(name)
        # The smallest of the layers that are more than a weight.
        layers = [layer(file, path + ".") for path, names in sorted(sizes.items()) if len(names) > 1]
        if layers:
            smallest = min(layers, key=lambda parts: sum(map(len, parts)))
            name = f"{folder.parent.name}-{folder.name}"
            add(name, config(folder / "config.json"), *smallest)


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


if __name__ == "__main__":
    checkpoints()
    indices()
    templates()
    model_configs()
    adapters()
    resumed()
    rows()
    tokenizers()
    options()

"""Compares the GGUF files that qoft writes with what llama.cpp makes of the same model.

    npm pack @node-llama-cpp/linux-x64@3.21.1 && tar xzf node-llama-cpp-linux-x64-3.21.1.tgz
    pip install gguf==0.19.0 numpy
    python gguf_llama_cpp.py --library package/bins/linux-x64 --model DENSE --data eval.jsonl q4_k_m q8_0 ...

The package has llama.cpp as shared libraries. The model is written as f32 by `qoft export`, and llama.cpp's own
`llama_model_quantize`, which is what `llama-quantize` calls, makes each type of it. Its file is compared with that
of `qoft export --gguf-type`: the type of every tensor, and its bytes. Without a type, nothing is quantized. With
--data, files are evaluated by llama.cpp and by `qoft eval`: the mean loss of the rows' `input_ids`, or of their
`text`, which llama.cpp splits by the file's own tokenizer. llama.cpp keeps keys and values in half precision, and
rounds the inputs of blocks to 8 bits.
"""

import argparse
import ctypes
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy
from gguf import GGUFReader

# `enum llama_ftype`.
TYPES = {
    "q4_0": 2, "q4_1": 3, "q8_0": 7, "q5_0": 8, "q5_1": 9, "q2_k": 10, "q3_k_s": 11, "q3_k_m": 12, "q3_k_l": 13,
    "q4_k_s": 14, "q4_k_m": 15, "q5_k_s": 16, "q5_k_m": 17, "q6_k": 18, "q2_k_s": 21, "iq4_nl": 25, "iq4_xs": 30,
    "mxfp4_moe": 38,
}


class Parameters(ctypes.Structure):
    """Any of the library's structures of parameters: larger than each, of which the first numbers are set."""

    _fields_ = [("numbers", ctypes.c_int32 * 2), ("rest", ctypes.c_byte * 1016)]


class Batch(ctypes.Structure):
    _fields_ = [
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.c_void_p),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    ]


class LlamaCpp:
    def __init__(self, folder):
        find = lambda name: str(next(pathlib.Path(folder).glob(name)))
        load = lambda name: ctypes.CDLL(find(name), mode=ctypes.RTLD_GLOBAL)
        load("libggml-base*.so")
        ggml = load("libggml.*so")
        self.llama = load("libllama.*so")
        ggml.ggml_backend_load.restype = ctypes.c_void_p
        # The kernels of any processor that has AVX2.
        if not ggml.ggml_backend_load(find("libggml-cpu-haswell.so").encode()):
            raise RuntimeError("no kernels for this processor")
        quiet = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
        self.quiet = quiet
        self.llama.llama_log_set(quiet, None)
        for name in ("llama_model_quantize_default_params", "llama_model_default_params", "llama_context_default_params"):
            getattr(self.llama, name).restype = Parameters
        for name in ("llama_model_load_from_file", "llama_init_from_model", "llama_model_get_vocab"):
            getattr(self.llama, name).restype = ctypes.c_void_p
        self.llama.llama_get_logits_ith.restype = ctypes.POINTER(ctypes.c_float)
        self.llama.llama_batch_init.restype = Batch

    def quantize(self, source, target, kind, threads=2):
        parameters = self.llama.llama_model_quantize_default_params()
        parameters.numbers[0], parameters.numbers[1] = threads, TYPES[kind]
        if self.llama.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(parameters)):
            raise RuntimeError(f"llama.cpp does not write {kind}")

    def losses(self, file, rows):
        """Token ids of the rows and their losses, of each predicted token."""
        llama = self.llama
        model = llama.llama_model_load_from_file(str(file).encode(), llama.llama_model_default_params())
        if not model:
            raise RuntimeError(f"llama.cpp does not load {file}")
        model = ctypes.c_void_p(model)
        vocabulary = ctypes.c_void_p(llama.llama_model_get_vocab(model))
        words = llama.llama_vocab_n_tokens(vocabulary)
        found = []
        for row in rows:
            ids = row.get("input_ids") or self.tokens(vocabulary, row["text"])
            parameters = llama.llama_context_default_params()
            parameters.numbers[0] = parameters.numbers[1] = max(len(ids), 32)
            context = ctypes.c_void_p(llama.llama_init_from_model(model, parameters))
            batch = llama.llama_batch_init(len(ids), 0, 1)
            batch.n_tokens = len(ids)
            for at, token in enumerate(ids):
                batch.token[at], batch.pos[at], batch.n_seq_id[at] = token, at, 1
                batch.seq_id[at][0], batch.logits[at] = 0, 1
            if llama.llama_decode(context, batch):
                raise RuntimeError(f"llama.cpp does not compute {file}")
            logits = (numpy.ctypeslib.as_array(llama.llama_get_logits_ith(context, at), (words,)) for at in range(len(ids) - 1))
            losses = [numpy.logaddexp.reduce(line.astype(numpy.float64)) - line[ids[at + 1]] for at, line in enumerate(logits)]
            found.append((ids, losses))
            llama.llama_batch_free(batch)
            llama.llama_free(context)
        llama.llama_model_free(model)
        return found

    def tokens(self, vocabulary, text):
        text, ids = text.encode(), (ctypes.c_int32 * (len(text.encode()) + 8))()
        count = self.llama.llama_tokenize(vocabulary, text, len(text), ids, len(ids), True, True)
        return list(ids[:count])


def compare(found, expected):
    """Tensors of other types, and of other bytes."""
    found, expected = ({tensor.name: tensor for tensor in GGUFReader(file).tensors} for file in (found, expected))
    if found.keys() != expected.keys():
        print("other tensors:", found.keys() ^ expected.keys())
    types, bytes_ = [], []
    for name in found.keys() & expected.keys():
        ours, theirs = found[name], expected[name]
        if ours.tensor_type != theirs.tensor_type:
            types.append(f"{name}: {ours.tensor_type.name}, expected {theirs.tensor_type.name}")
        elif ours.data.tobytes() != theirs.data.tobytes():
            bytes_.append(name)
    return len(found), sorted(types), sorted(bytes_)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("types", nargs="*")
    parser.add_argument("--library", type=pathlib.Path, required=True)
    parser.add_argument("--qoft", type=pathlib.Path, default="target/release/qoft")
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--data", type=pathlib.Path)
    args = parser.parse_args()
    library = LlamaCpp(args.library)
    rows = [json.loads(line) for line in args.data.read_text().splitlines()] if args.data else []
    different = 0
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)

        def export(kind):
            command = [args.qoft, "export", "--to", "gguf", "--gguf-type", kind, "--model", args.model]
            subprocess.run([*map(str, command), "--output", str(work / f"{kind}.gguf")], check=True, capture_output=True)
            return work / f"{kind}.gguf"

        dense = export("f32")
        for kind in args.types or ["f32"]:
            ours = export(kind) if kind != "f32" else dense
            line = f"{kind}:"
            if kind != "f32":
                try:
                    library.quantize(dense, work / "theirs.gguf", kind)
                except RuntimeError as error:
                    # Those that need an importance matrix there.
                    print(error)
                    continue
                count, types, bytes_ = compare(ours, work / "theirs.gguf")
                different += len(types) + len(bytes_)
                line += f" {count} tensors, {len(types)} of another type, {len(bytes_)} with other bytes"
                line += "".join(f"\n    {problem}" for problem in (types + bytes_)[:8])
            if rows:
                theirs = library.losses(ours, rows)
                mean = sum(sum(losses) for _, losses in theirs) / sum(len(losses) for _, losses in theirs)
                data = work / "rows.jsonl"
                data.write_text("".join(json.dumps({"input_ids": ids}) + "\n" for ids, _ in theirs))
                command = [args.qoft, "eval", "--model", ours, "--data", data, "--json"]
                done = subprocess.run([*map(str, command)], capture_output=True, text=True)
                line += f"\n    loss {json.loads(done.stdout)['loss']:.5f}, in llama.cpp {mean:.5f}" if done.returncode == 0 else done.stderr
            print(line, flush=True)
    sys.exit(bool(different))


if __name__ == "__main__":
    main()

"""Writes a model of random weights in the shape of Llama-2-7B, stored as bitsandbytes stores nf4, or dense; with
--experts a mixture as Qwen3's are.

It says nothing sensible; it is there to measure memory and time at that size without a download.
Each tensor has the name, dtype and shape that bitsandbytes 0.50 and transformers write, with double
quantization; embedding, head and norms are bfloat16. With --dense all weights are bfloat16. Needs the standard
library only. With the defaults the file has 3.9 GB; the second one is a model of 1.5 billion weights, 3.1 GB, and
the third one has the shape of Qwen3-30B-A3B, 17 GB.

    python make_synthetic.py --output models/llama-2-7b-synthetic
    python make_synthetic.py --dense --output models/1.5b-synthetic --layers 28 --hidden-size 1536 \\
        --intermediate-size 8960 --heads 12 --key-value-heads 2 --vocab-size 151936 --tied
    python make_synthetic.py --output models/30b-a3b-synthetic --layers 48 --hidden-size 2048 --experts 128 \\
        --experts-per-token 8 --intermediate-size 768 --heads 32 --key-value-heads 4 --head-dim 128 --vocab-size 151936
"""

import argparse
import json
import pathlib
import random
import struct

BLOCK, NESTED_BLOCK = 64, 256
#: The 16 values of nf4.
NF4 = [
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
]
#: Random bytes that are written at once.
CHUNK = 1 << 24


def floats(values):
    return struct.pack(f"<{len(values)}f", *values)


def bf16(count, draw, high=0x3C, mask=0x80):
    """Numbers of both signs around 2⁻⁶: their exponent is fixed, sign and fraction are random."""
    low = bytes(0x80 | b for b in range(256))
    top = bytes(high | (b & mask) for b in range(256))
    while count:
        part = min(count, CHUNK // 2)
        values = bytearray(2 * part)
        values[0::2] = draw.randbytes(part).translate(low)
        values[1::2] = draw.randbytes(part).translate(top)
        yield bytes(values)
        count -= part


def noise(count, draw):
    while count:
        part = min(count, CHUNK)
        yield draw.randbytes(part)
        count -= part


def nf4(path, rows, cols):
    """(name, dtype, shape, content) of the tensors of a layer; the content is made from a generator."""
    blocks = rows * cols // BLOCK
    nested = -(-blocks // NESTED_BLOCK)
    state = {
        **{"quant_type": "nf4", "blocksize": BLOCK, "dtype": "bfloat16", "shape": [rows, cols]},
        **{"nested_blocksize": NESTED_BLOCK, "nested_dtype": "float32", "nested_offset": 0.04},
    }
    state = json.dumps(state).encode()
    name = f"{path}.weight"
    yield name, "U8", [rows * cols // 2, 1], lambda draw: noise(rows * cols // 2, draw)
    yield f"{name}.absmax", "U8", [blocks], lambda draw: noise(blocks, draw)
    yield f"{name}.quant_map", "F32", [16], lambda draw: [floats(NF4)]
    yield f"{name}.nested_absmax", "F32", [nested], lambda draw: [floats([0.01] * nested)]
    steps = [i / 127.5 - 1 for i in range(256)]
    yield f"{name}.nested_quant_map", "F32", [256], lambda draw: [floats(steps)]
    yield f"{name}.quant_state.bitsandbytes__nf4", "U8", [len(state)], lambda draw: [state]


def dense(path, rows, cols):
    yield f"{path}.weight", "BF16", [rows, cols], lambda draw: bf16(rows * cols, draw)


def ones(name, size):
    yield name, "BF16", [size], lambda draw: [b"\x80\x3f" * size]


def tensors(config):
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    linear = nf4 if "quantization_config" in config else dense
    size = config.get("head_dim") or hidden // config["num_attention_heads"]
    queries, shared = size * config["num_attention_heads"], size * config["num_key_value_heads"]
    experts = config.get("num_experts")
    yield from dense("model.embed_tokens", config["vocab_size"], hidden)
    for index in range(config["num_hidden_layers"]):
        layer = f"model.layers.{index}"
        yield from ones(f"{layer}.input_layernorm.weight", hidden)
        for name, rows in {"q_proj": queries, "k_proj": shared, "v_proj": shared}.items():
            yield from linear(f"{layer}.self_attn.{name}", rows, hidden)
        yield from linear(f"{layer}.self_attn.o_proj", hidden, queries)
        yield from ones(f"{layer}.post_attention_layernorm.weight", hidden)
        mlps = [f"{layer}.mlp"]
        if experts:
            yield from ones(f"{layer}.self_attn.q_norm.weight", size)
            yield from ones(f"{layer}.self_attn.k_norm.weight", size)
            yield from dense(f"{layer}.mlp.gate", experts, hidden)
            mlps = [f"{layer}.mlp.experts.{expert}" for expert in range(experts)]
        for mlp in mlps:
            yield from linear(f"{mlp}.gate_proj", inner, hidden)
            yield from linear(f"{mlp}.up_proj", inner, hidden)
            yield from linear(f"{mlp}.down_proj", hidden, inner)
    yield from ones("model.norm.weight", hidden)
    if not config["tie_word_embeddings"]:
        yield from dense("lm_head", config["vocab_size"], hidden)


def write(path, config):
    sizes = {"U8": 1, "BF16": 2, "F32": 4}
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, dtype, shape, _ in tensors(config):
        start, end = end, end + sizes[dtype] * shape[0] * (shape[1] if len(shape) == 2 else 1)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    draw = random.Random(0)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, _, _, content in tensors(config):
            for part in content(draw):
                file.write(part)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, required=True, help="the folder to write")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--hidden-size", type=int, default=4096)
    parser.add_argument("--intermediate-size", type=int, default=11008)
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--key-value-heads", type=int, help="as many as heads unless given")
    parser.add_argument("--head-dim", type=int, help="the width shared out among the heads unless given")
    parser.add_argument("--experts", type=int, help="of each layer, of the intermediate size")
    parser.add_argument("--experts-per-token", type=int, default=8)
    parser.add_argument("--vocab-size", type=int, default=32000)
    parser.add_argument("--tied", action="store_true", help="the output head is the embedding")
    parser.add_argument("--dense", action="store_true", help="bfloat16 weights")
    args = parser.parse_args()
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": args.hidden_size,
        "intermediate_size": args.intermediate_size,
        "num_hidden_layers": args.layers,
        "num_attention_heads": args.heads,
        "num_key_value_heads": args.key_value_heads or args.heads,
        "vocab_size": args.vocab_size,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": args.tied,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "dtype": "bfloat16",
    }
    if args.head_dim:
        config["head_dim"] = args.head_dim
    if args.experts:
        config |= {
            "architectures": ["Qwen3MoeForCausalLM"],
            "model_type": "qwen3_moe",
            "moe_intermediate_size": args.intermediate_size,
            "num_experts": args.experts,
            "num_experts_per_tok": args.experts_per_token,
            "norm_topk_prob": True,
        }
    if not args.dense:
        config["quantization_config"] = {
            "quant_method": "bitsandbytes",
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
            "bnb_4bit_compute_dtype": "bfloat16",
            "bnb_4bit_quant_storage": "uint8",
        }
    args.output.mkdir(parents=True)
    (args.output / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    write(args.output / "model.safetensors", config)


if __name__ == "__main__":
    main()

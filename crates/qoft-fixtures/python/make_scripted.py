"""data/scripted: a model that writes what it is told to, whatever it is asked.

Its layers add nothing to the embeddings, and these are rows of a Hadamard matrix: the next token follows from the
last one alone. SCRIPTS has what it writes behind the last token of a prompt, which is how published chat templates
open an answer; so it calls tools in the form of each, and says something once a tool has answered.
"""

import json
import struct
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

FOLDER = Path(__file__).resolve().parent.parent / "data" / "scripted"
SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|eot_id|>", "[INST]", "[TOOL_CALLS]", "[TOOL_RESULTS]"]
SAID = ["It is 20 degrees ", "in Paris.", "</s>"]
SCRIPTS = [
    # Qwen and Hermes: marks that are cut into tokens anywhere, and two calls.
    [
        "assistant\n",
        "Let me look.\n<to",
        "ol_call>\n{",
        '"name": "get_weather", "argum',
        'ents": {"city": "Paris"}}\n</tool_call>',
        '\n<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call>',
        "</s>",
    ],
    # Llama 3: one object.
    ["<|end_header_id|>\n\n", '{"name": "get_', 'weather", "parameters": {"city": ', '"Paris"}}', "</s>"],
    # Mistral: a list behind a special token.
    ["[/INST]", "[TOOL_CALLS]", '[{"name": "get_weather", ', '"arguments": {"city": "Paris"}}]', "</s>"],
    # What each of them has behind the answer of a tool.
    ["</tool_response><|im_end|>\n<|im_start|>assistant\n", *SAID],
    ['"<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n', *SAID],
    ["[/TOOL_RESULTS]", *SAID],
]
WIDTH = 32


def hadamard(size):
    matrix = np.ones((1, 1), dtype=np.float16)
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


def write_tensors(path, tensors):
    """Safetensors, the names in order."""
    header, data = {}, b""
    for name, tensor in sorted(tensors.items()):
        bytes_ = np.ascontiguousarray(tensor, dtype=np.float16).tobytes()
        header[name] = dict(dtype="F16", shape=list(tensor.shape), data_offsets=[len(data), len(data) + len(bytes_)])
        data += bytes_
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def main():
    FOLDER.mkdir(exist_ok=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={sign: at for at, sign in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in SPECIAL])
    pieces = sorted({piece for script in SCRIPTS for piece in script} - set(SPECIAL))
    tokenizer.add_tokens([AddedToken(piece, normalized=False) for piece in pieces])
    tokenizer.save(str(FOLDER / "tokenizer.json"))

    size = tokenizer.get_vocab_size()
    follows = {}
    for script in SCRIPTS:
        for piece, after in zip(script, script[1:]):
            assert follows.setdefault(piece, after) == after, piece
    codes = hadamard(WIDTH)
    assert len(follows) <= WIDTH
    embeddings, head = np.zeros((size, WIDTH)), np.zeros((size, WIDTH))
    for code, (piece, after) in zip(codes, follows.items()):
        embeddings[tokenizer.token_to_id(piece)] = code
        head[tokenizer.token_to_id(after)] += code
    layer = "model.layers.0."
    square, ones = np.zeros((WIDTH, WIDTH)), np.ones(WIDTH)
    names = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
    names += ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
    tensors = {f"{layer}{name}.weight": square for name in names}
    tensors |= {f"{layer}{name}.weight": ones for name in ["input_layernorm", "post_attention_layernorm"]}
    tensors |= {"model.norm.weight": ones, "model.embed_tokens.weight": embeddings, "lm_head.weight": head}
    write_tensors(FOLDER / "model.safetensors", tensors)
    config = dict(
        architectures=["LlamaForCausalLM"],
        model_type="llama",
        vocab_size=size,
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=8192,
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
        hidden_act="silu",
        bos_token_id=tokenizer.token_to_id("<s>"),
        eos_token_id=tokenizer.token_to_id("</s>"),
        dtype="float16",
    )
    names = dict(bos_token="<s>", eos_token="</s>", tokenizer_class="PreTrainedTokenizerFast")
    for name, value in [("config.json", config), ("tokenizer_config.json", names)]:
        (FOLDER / name).write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

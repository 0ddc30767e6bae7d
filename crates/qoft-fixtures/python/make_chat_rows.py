"""data/chat_rows: conversations as token ids with what is learned of them, for published chat templates.

The templates are those of data/templates and data/chat; `gptoss_training.jinja`, which is too long for the first, is
copied from trl (Apache-2.0). Calls of `strftime_now` in them are replaced by TODAY. Each goes with a tokenizer of the class that its models have, with their special tokens and a
small vocabulary. `pip install -r requirements-preference.txt`.

  tokenizers/<name>/    a folder of each tokenizer, without a chat template
  rows.json             the rows: messages, perhaps tools and chat_template_kwargs. Arguments of called functions are
                        objects
  expected.json         for each case its `tokenizer`, `template` (a path in data), `text_arguments`: whether
                        the template is made for arguments as texts of JSON, `marked`: whether it has {% generation %}
                        tags, and `rows`, an entry each:
    ids                 `apply_chat_template(messages, tools=tools, **chat_template_kwargs)`
    learned             ranges of tokens. With tags these are the ones of `return_assistant_tokens_mask=True`, which
                        TRL's `assistant_only_loss` learns. Without tags these are the tokens that hold a part of
                        what TURNS finds, or null where the template writes turns without a mark
    error               instead of both: what the template says

expected.json has `completions` as well: prompts and completions of messages, as TRL's SFTTrainer prepares them:
`ids`, and `start`, the first token of the completion, or null where TRL warns that it cannot be told.
"""

import json
import re
import shutil
from pathlib import Path

import jinja2
import trl
from common import DATA, fresh
from conversations import assistant, system, user
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, GemmaTokenizer, GPT2Tokenizer, LlamaTokenizer, PreTrainedTokenizerFast, Qwen2Tokenizer
from trl.data_utils import common_prefix_length

TRL = Path(trl.__file__).parent / "chat_templates"

TODAY = "04 Mar 2025"

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "default": 1}},
            "required": ["city"],
        },
    },
}


def called(*arguments, content="", **more):
    calls = [
        {"id": f"call0000{i}", "type": "function", "function": {"name": "get_weather", "arguments": given}}
        for i, given in enumerate(arguments)
    ]
    return assistant(content, tool_calls=calls, **more)


def found(content, number=0):
    return {"role": "tool", "name": "get_weather", "tool_call_id": f"call0000{number}", "content": content}


ZURICH, LUND = {"city": "Zürich", "days": 2}, {"city": "Lund"}
ROWS = [
    {"messages": [user("Hello there!"), assistant("Hi.")]},
    {
        "messages": [
            system("  Be brief. "),
            user("What is 2+2?\n"),
            assistant(" 4 "),
            user("Überprüfe: <b>\"3 > 2\"</b> & 你好 🙂"),
            assistant("Stimmt – 🙂.\n\nDone.\n"),
            user("It's 12,345."),
            assistant("  "),
        ]
    },
    {"messages": [user("One"), assistant("1"), user("Two"), assistant("2"), user("Three")]},
    {"messages": [user("Weather?"), called(ZURICH), found('{"t": 4.5}'), assistant("Cold.")], "tools": [WEATHER]},
    {
        "messages": [
            system("You use tools."),
            user("Weather in both?"),
            called(ZURICH, LUND, content="I look."),
            found("rain"),
            found("sun", 1),
            assistant("Rain and sun."),
            user("And tomorrow?"),
            called(LUND),
            found("snow"),
            assistant("Snow."),
        ],
        "tools": [WEATHER],
    },
    {
        "messages": [
            user("Why?"),
            assistant("Because.", reasoning_content="First,\nthen second."),
            user("And?"),
            assistant("So.", reasoning_content="Short."),
        ]
    },
    {
        "messages": [
            user("Deep"),
            called(ZURICH, content="I look.", reasoning_content="Needs the tool."),
            found("sun"),
            assistant("Sun.", reasoning_content="Done."),
            user("Thanks"),
            assistant("Any time."),
        ],
        "tools": [WEATHER],
    },
    {"messages": [user("x"), assistant("<think>\nhm, 1 < 2\n</think>\n\nYes."), user("y"), assistant("No.")]},
    {
        "messages": [user("Think?"), assistant("No."), user("Sure?"), assistant("Yes.")],
        "chat_template_kwargs": {"enable_thinking": False, "reasoning_effort": "low"},
    },
]
COMPLETIONS = [
    {"prompt": [user("Hello there!")], "completion": [assistant("Hi.")]},
    {
        "prompt": [system("Be brief."), user("One"), assistant("1"), user("Two\n")],
        "completion": [assistant(" 2 "), user("Three"), assistant("3")],
    },
    {"prompt": [user("Why?")], "completion": [assistant("So.", reasoning_content="Short.")]},
]

CORPUS = [
    "The quick brown fox jumps over the lazy dog. You are a helpful assistant. What is the weather in this city?",
    'user assistant system tool function name description parameters type object properties string required',
    '{"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Lund", "days": 2}}}',
    "Knowledge cutoff: 2023-10 Today is 26 Jul 2024, 12,345.\n\nReasoning: low; naïve Zürich\n",
]
VOCAB = 420
GPT4O = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)


def trained(tokenizer, tokens, alphabet=()):
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=tokens, initial_alphabet=list(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(merge) for merge in model["merges"]]


def of_bytes(pattern):
    """Rules of text as bytes, and a vocabulary for them."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated", invert=False)
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, trained(tokenizer, [], sorted(pre_tokenizers.ByteLevel.alphabet()))


def of_pieces(tokens):
    """A vocabulary of pieces, with bytes for what it lacks."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", behavior="merged_with_next")
    return trained(tokenizer, tokens + [f"<0x{byte:02X}>" for byte in range(256)])


def plain(pattern, begins, **named):
    """`PreTrainedTokenizerFast`, which takes the rules of the file."""
    tokenizer, _ = of_bytes(pattern)
    if begins:
        tokenizer.add_special_tokens([AddedToken(begins, normalized=False, special=True)])
        processor = processors.TemplateProcessing(
            single=f"{begins} $A", pair=f"{begins} $A {begins} $B", special_tokens=[(begins, tokenizer.token_to_id(begins))]
        )
        tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), processor])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)


def with_tokens(tokenizer, tokens, strips=(), usual=()):
    tokens = [AddedToken(token, normalized=False, special=token not in usual, rstrip=token in strips) for token in tokens]
    tokenizer.add_tokens([token for token in tokens if token.content not in tokenizer.get_vocab()])
    return tokenizer


def make_tokenizers():
    vocab, merges = of_bytes(LLAMA3)[1]
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    usual = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"]
    qwen = Qwen2Tokenizer(vocab=vocab, merges=merges, eos_token="<|im_end|>", pad_token="<|endoftext|>", unk_token=None)
    yield "qwen", with_tokens(qwen, marks + usual, usual=usual)

    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>"]
    llama = plain(LLAMA3, names[0], bos_token=names[0], eos_token="<|eot_id|>")
    yield "llama3", with_tokens(llama, [*names, "<|python_tag|>"])

    ends = ["<unk>", "<s>", "</s>"]
    vocab_pieces, merges_pieces = of_pieces(ends)
    phi = LlamaTokenizer(vocab=vocab_pieces, merges=merges_pieces, eos_token="<|endoftext|>", legacy=False)
    names = ["<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>"]
    yield "phi3", with_tokens(phi, names, strips=names[1:])

    names = ["[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"]
    mistral = LlamaTokenizer(vocab=vocab_pieces, merges=merges_pieces, legacy=False, add_prefix_space=False)
    yield "mistral", with_tokens(mistral, names)

    vocab_gemma, merges_gemma = of_pieces(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"])
    gemma = GemmaTokenizer(vocab=vocab_gemma, merges=merges_gemma)
    yield "gemma", with_tokens(gemma, ["<start_of_turn>", "<end_of_turn>"])

    gpt2 = GPT2Tokenizer(vocab=vocab, merges=merges, bos_token="<|endoftext|>", eos_token="<|im_end|>", unk_token="<|endoftext|>")
    yield "gpt2", with_tokens(gpt2, [*marks, "<|im_sep|>"])

    names = ["<|startoftext|>", "<|endoftext|>", "<|return|>", "<|constrain|>", "<|channel|>", "<|start|>", "<|end|>", "<|message|>", "<|call|>"]
    gptoss = plain(GPT4O, None, bos_token=names[0], eos_token="<|return|>")
    yield "gptoss", with_tokens(gptoss, names)

    names = ["<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"]
    usual = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"]
    glm = plain(LLAMA3, None, eos_token="<|endoftext|>", pad_token="<|endoftext|>")
    yield "glm4", with_tokens(glm, names + usual, usual=usual)

    names = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"]
    places = ["calls▁begin", "calls▁end", "call▁begin", "call▁end", "outputs▁begin", "outputs▁end", "output▁begin", "output▁end", "sep"]
    usual = ["<｜User｜>", "<｜Assistant｜>", *(f"<｜tool▁{place}｜>" for place in places), "<think>", "</think>"]
    deepseek = plain(LLAMA3, names[0], bos_token=names[0], eos_token=names[1])
    yield "deepseek", with_tokens(deepseek, names[:2] + usual, usual=usual)

    names = ["<PAD>", "<UNK>", "<BOS_TOKEN>", "<EOS_TOKEN>", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|SYSTEM_TOKEN|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>"]
    cohere = plain(LLAMA3, names[2], bos_token=names[2], eos_token="<|END_OF_TURN_TOKEN|>")
    yield "cohere", with_tokens(cohere, names)

    lfm = plain(LLAMA3, "<|startoftext|>", bos_token="<|startoftext|>", eos_token="<|im_end|>")
    names = [f"<|{part}_{edge}|>" for part in ("tool_list", "tool_call", "tool_response") for edge in ("start", "end")]
    yield "lfm2", with_tokens(lfm, ["<|startoftext|>", *marks, *names], usual=names)


CHATML = r"<\|im_start\|>assistant\n(.*?<\|im_end\|>)"
# What is learned where a template has no tags, as docs/cli.md says: all that it adds for a message of the assistant behind
# what it adds for a generation prompt, through the mark that ends the turn.
TURNS = {
    "chatml": CHATML,
    "qwen2_5": CHATML,
    "qwen3": CHATML,
    "qwen3_instruct_2507": CHATML,
    "chatml_default_system": CHATML,  # in form that of SmolLM2
    "lfm2": CHATML,
    "llama3": r"<\|start_header_id\|>assistant<\|end_header_id\|>\n\n(.*?<\|eot_id\|>)",
    "llama3_1": r"<\|start_header_id\|>assistant<\|end_header_id\|>\n\n(.*?<\|eot_id\|>)",
    "phi3": r"<\|assistant\|>\n(.*?<\|end\|>(?:\n<\|endoftext\|>)?)",
    "phi_4": r"<\|im_start\|>assistant<\|im_sep\|>(.*?<\|im_end\|>)",
    "gemma": r"<start_of_turn>model\n(.*?<end_of_turn>)",
    "gemma3": r"<start_of_turn>model\n(.*?<end_of_turn>)",
    "mistral_v2v3": r"(?:\[/INST\]|\[/TOOL_RESULTS\])(?!\[TOOL_RESULTS\])(.*?</s>)",
    "gptoss": r"<\|start\|>assistant(.*?(?:<\|return\|>|<\|end\|>|<\|call\|>))(?=<\|start\|>(?!assistant)|$)",
    "glm4moe": r"<\|assistant\|>(.*?)(?=<\|user\|>|<\|observation\|>|<\|system\|>|$)",
    "deepseekv3": r"(?:<｜Assistant｜>|<｜tool▁outputs▁end｜>)(.*?<｜end▁of▁sentence｜>)",
    "cohere": r"<\|START_OF_TURN_TOKEN\|><\|CHATBOT_TOKEN\|>(.*?<\|END_OF_TURN_TOKEN\|>)",
}
CASES = [
    ("qwen", "trl/qwen2_5"),
    ("qwen", "trl/qwen2_5_training"),
    ("qwen", "trl/qwen3"),
    ("qwen", "trl/qwen3_training"),
    ("qwen", "trl/qwen3_instruct_2507"),
    ("qwen", "trl/qwen3_instruct_2507_training"),
    ("llama3", "trl/llama3"),
    ("llama3", "trl/llama3_training"),
    ("llama3", "trl/llama3_1"),
    ("phi3", "trl/phi3"),
    ("phi3", "trl/phi3_training"),
    ("phi3", "trl/phi3_5_training"),
    ("mistral", "axolotl/mistral_v2v3"),
    ("gemma", "trl/gemma"),
    ("gemma", "trl/gemma_training"),
    ("gemma", "trl/gemma3"),
    ("gemma", "trl/gemma3_training"),
    ("gpt2", "axolotl/phi_4"),
    ("gpt2", "chatml_default_system"),
    ("gptoss", "trl/gptoss"),
    ("gptoss", "gptoss_training"),
    ("glm4", "trl/glm4moe"),
    ("glm4", "trl/glm4moe_training"),
    ("deepseek", "trl/deepseekv3"),
    ("deepseek", "trl/deepseekv3_training"),
    ("deepseek", "trl/deepseek_r1_distill_training"),
    ("cohere", "trl/cohere"),
    ("cohere", "trl/cohere_training"),
    ("lfm2", "trl/lfm2"),
    ("lfm2", "trl/lfm2_training"),
]


def path_of(template):
    if "/" in template:
        return f"templates/{template}.jinja"
    return f"chat_rows/{template}.jinja" if template.endswith("_training") else f"chat/{template}/chat_template.jinja"


def with_text_arguments(messages):
    """Arguments as texts of JSON."""
    messages = json.loads(json.dumps(messages))
    for message in messages:
        for call in message.get("tool_calls", []):
            call["function"]["arguments"] = json.dumps(call["function"]["arguments"], ensure_ascii=False)
    return messages


def encode(tokenizer, template, messages, row, **more):
    options = {"tools": row.get("tools"), **row.get("chat_template_kwargs", {})}
    return tokenizer.apply_chat_template(messages, chat_template=template, **options, **more)


def ranges(mask):
    """The ranges of tokens whose mask is 1."""
    found, start = [], None
    for index, value in enumerate([*mask, 0]):
        if value and start is None:
            start = index
        elif not value and start is not None:
            found.append([start, index])
            start = None
    return found


def turns(tokenizer, template, messages, row, pattern):
    """The tokens of the turns that `pattern` finds in the text of a conversation."""
    options = {"tools": row.get("tools"), **row.get("chat_template_kwargs", {})}
    text = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, **options)
    spans = [match.span(1) for match in re.finditer(pattern, text, re.DOTALL)]
    written = [message for message in messages if message["role"] == "assistant"]
    if len(spans) != len(written):
        print("turns without a mark:", text)
        return None
    # What the generation prompt has behind its mark, as an empty thought, is no part of a turn.
    opened = encode(tokenizer, template, messages, row, tokenize=False, add_generation_prompt=True)
    more = re.fullmatch(pattern.split("(.*?")[0] + "(.*)", opened.removeprefix(text), re.DOTALL)
    if more and more[1]:
        spans = [(start + len(more[1]) * text.startswith(more[1], start), end) for start, end in spans]
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    holds = lambda token: any(token[0] < end and start < token[1] for start, end in spans)
    return ranges([int(holds(token)) for token in encoded["offset_mapping"]])


def learned(tokenizer, template, pattern, row, messages):
    try:
        if pattern is None:
            encoded = encode(tokenizer, template, messages, row, return_assistant_tokens_mask=True)
            return {"ids": encoded["input_ids"], "learned": ranges(encoded["assistant_masks"])}
        ids = encode(tokenizer, template, messages, row)["input_ids"]
    except (jinja2.exceptions.TemplateError, TypeError) as error:
        return {"error": str(error)}
    return {"ids": ids, "learned": turns(tokenizer, template, messages, row, pattern)}


def completion(tokenizer, template, row):
    """As TRL's SFTTrainer has it: the completion starts where the tokens of prompt and whole part.

    Where the template writes the prompt otherwise when more follows, TRL warns, and there is no `start`.
    """
    try:
        prompt = encode(tokenizer, template, row["prompt"], row, add_generation_prompt=True)["input_ids"]
        ids = encode(tokenizer, template, row["prompt"] + row["completion"], row)["input_ids"]
    except jinja2.exceptions.TemplateError as error:
        return {"error": str(error)}
    start = common_prefix_length(prompt, ids)
    return {"ids": ids, "start": start if start == len(prompt) else None}


def make_case(tokenizers, name, path):
    tokenizer, short = tokenizers[name], path.split("/")[-1]
    source = re.sub(r"strftime_now\([^)]*\)", json.dumps(TODAY), (DATA / path_of(path)).read_text(encoding="utf-8"))
    marked = "endgeneration" in source
    calls = {"messages": ROWS[3]["messages"], "tools": [WEATHER]}
    objects = learned(tokenizer, source, None, calls, calls["messages"])
    texts = learned(tokenizer, source, None, calls, with_text_arguments(calls["messages"]))
    text_arguments = "error" in objects and "error" not in texts
    form = with_text_arguments if text_arguments else lambda messages: messages
    rows = [learned(tokenizer, source, None if marked else TURNS[short], row, form(row["messages"])) for row in ROWS]
    completions = [completion(tokenizer, source, row) for row in COMPLETIONS]
    case = {"tokenizer": name, "template": path_of(path), "marked": marked, "text_arguments": text_arguments}
    return {**case, "rows": rows, "completions": completions}


def main():
    fresh("chat_rows", "tokenizers")
    shutil.copy(TRL / "gptoss_training.jinja", DATA / "chat_rows")
    tokenizers = {}
    for name, tokenizer in make_tokenizers():
        folder = fresh("chat_rows", "tokenizers", name)
        tokenizer.save_pretrained(folder)
        tokenizers[name] = AutoTokenizer.from_pretrained(folder)
        assert type(tokenizers[name]) is type(tokenizer), (name, type(tokenizers[name]))
        text = (folder / "tokenizer.json").read_text(encoding="utf-8")
        compact = json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":"))
        (folder / "tokenizer.json").write_text(compact + "\n", encoding="utf-8")
    compact = dict(ensure_ascii=False, separators=(",", ":"))
    rows = {"today": TODAY, "rows": ROWS, "completions": COMPLETIONS}
    (DATA / "chat_rows" / "rows.json").write_text(json.dumps(rows, **compact) + "\n", encoding="utf-8")
    cases = [make_case(tokenizers, *case) for case in CASES]
    lines = ",\n".join(json.dumps(case, **compact) for case in cases)
    (DATA / "chat_rows" / "expected.json").write_text(f"[{lines}]\n", encoding="utf-8")
    for case in cases:
        good = sum("ids" in row for row in case["rows"])
        print(case["tokenizer"], case["template"], case["marked"], case["text_arguments"], f"{good} rows")


if __name__ == "__main__":
    main()

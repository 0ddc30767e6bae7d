"""data/tokenizer and data/chat: a small byte-level tokenizer, and chat templates with their output.

data/tokenizer is a PreTrainedTokenizerFast folder; expected.json there lists texts with their ids
without and with special tokens added, and the text decoded from the ids.

data/chat/<template>/ holds chat_template.jinja and expected.json:
  bos_token, eos_token  the strings the template is given
  header, end_of_turn   what comes before and after the content of an assistant turn
  conversations         each with messages, optional tools and variables (further names given to the
                        template, or "now", the time that strftime_now sees), and
    text, prompt        rendered without and with add_generation_prompt, or
    error               the message of the error that rendering raises
    assistant_spans     in `text`: for every assistant turn its content with the end-of-turn token,
                        as [start, end] in characters ("chars") and in UTF-8 bytes ("bytes")
"""

from common import fresh, write_json

import datetime as real_datetime
from pathlib import Path

import transformers.utils.chat_template_utils as chat_utils
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

TEMPLATES = Path(__file__).resolve().parent / "templates"
VOCAB = 320

CORPUS = [
    "The quick brown fox jumps over the lazy dog. The rotation keeps the length of the vector.",
    "A user asks a question and the assistant answers it. What is the capital of France?",
    "Numbers such as 12, 345 and 6789 are split into digits; café, naïve and 你好 use several bytes.",
    "def rotate(x, blocks):\n    return [block @ x for block in blocks]\n",
    "<|im_start|>user\nHello there!<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n",
]

TEXTS = [
    "",
    "Hello there!",
    " The capital of France is Paris.",
    "The year 2024, 1+1=2",
    "naïve café 你好 🙂",
    "tabs\tand\n\n  spaces   ",
    "it's we'll DON'T",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "not a token: <|im_start|, <|endoftext|>",
]

PLAIN = {"messages": [{"role": "user", "content": "Hello there!"}, {"role": "assistant", "content": "Hi."}]}
SYSTEM = {
    "messages": [
        {"role": "system", "content": "  Be brief. "},
        {"role": "user", "content": "What is 2+2?\n"},
        {"role": "assistant", "content": " 4 "},
        {"role": "user", "content": "Überprüfe: <b>\"3 > 2\"</b> & 你好 🙂"},
        {"role": "assistant", "content": "Stimmt – 🙂."},
    ]
}
NO_SYSTEM = {"messages": SYSTEM["messages"][1:]}
OPEN = {"messages": SYSTEM["messages"][:4]}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather <now> in a city & its \"région\"",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer", "default": 1}},
                "required": ["city"],
            },
        },
    }
]
TOOL_CALL = {
    "tools": TOOLS,
    "messages": [
        {"role": "user", "content": "Weather in Malmö?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Malmö", "days": 2}}},
                {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Lund"}}},
            ],
        },
        {"role": "tool", "name": "get_weather", "content": "{\"t\": 4.5}"},
        {"role": "tool", "name": "get_weather", "content": "{\"t\": null}"},
        {"role": "assistant", "content": "Cold."},
    ],
}
THINK = {
    "messages": [
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "<think>\neasy\n</think>\n\nYes, one."},
        {"role": "user", "content": "Two?"},
        {"role": "assistant", "content": "<think>\nhmm\n</think>\n\nTwo."},
    ]
}

# template: (bos, eos, header, end of turn, conversations)
CHATML = ("<|im_start|>", "<|im_end|>", "<|im_start|>assistant\n", "<|im_end|>")
LLAMA3 = ("<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>")
CASES = {
    "chatml_default_system": (*CHATML, [PLAIN, SYSTEM, NO_SYSTEM, OPEN]),
    "chatml_generation": (*CHATML, [PLAIN, SYSTEM, NO_SYSTEM]),
    "chatml_generation_inline": (*CHATML, [PLAIN, SYSTEM]),
    "llama3": (*LLAMA3, [PLAIN, SYSTEM, OPEN]),
    "llama3_tools_date": (
        *LLAMA3,
        [
            PLAIN | {"variables": {"date_string": "26 Jul 2024"}},
            SYSTEM | {"now": "2025-03-04T09:05:06"},
            TOOL_CALL | {"variables": {"date_string": "1 Jan 2025"}},
            TOOL_CALL | {"messages": TOOL_CALL["messages"][:1], "now": "2025-12-31T23:59:59"},
        ],
    ),
    "mistral_inst": (
        "<s>",
        "</s>",
        " [/INST]",
        "</s>",
        [
            PLAIN,
            SYSTEM,
            NO_SYSTEM,
            {"messages": [{"role": "assistant", "content": "I begin."}]},
            {"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]},
        ],
    ),
    "qwen25": ("", "<|im_end|>", *CHATML[2:], [PLAIN, SYSTEM, NO_SYSTEM, OPEN, TOOL_CALL]),
    "qwen3_think": (
        "",
        "<|im_end|>",
        *CHATML[2:],
        [PLAIN, SYSTEM, THINK, THINK | {"variables": {"enable_thinking": False}}, TOOL_CALL],
    ),
    "zephyr_namespace": ("<s>", "</s>", "<|assistant|>\n", "</s>", [PLAIN, SYSTEM, NO_SYSTEM, OPEN]),
}


def make_tokenizer():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<|bos|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    assert tokenizer.get_vocab_size() == VOCAB
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|bos|> $A", pair="<|bos|> $A $B:1", special_tokens=[("<|bos|>", 1)]
    )
    return tokenizer


def save_tokenizer(tokenizer):
    folder = fresh("tokenizer")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|bos|>",
        eos_token="<|im_end|>",
        pad_token="<pad>",
        additional_special_tokens=["<|im_start|>"],
        model_max_length=256,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = (TEMPLATES / "chatml_default_system.jinja").read_text()
    fast.save_pretrained(folder)
    fast = PreTrainedTokenizerFast.from_pretrained(folder)
    texts = []
    for text in TEXTS:
        plain = fast(text, add_special_tokens=False)["input_ids"]
        texts.append(
            {
                "text": text,
                "ids": plain,
                "ids_with_special": fast(text, add_special_tokens=True)["input_ids"],
                "decoded": fast.decode(plain),
                "decoded_skip_special": fast.decode(plain, skip_special_tokens=True),
            }
        )
    chat = fast.apply_chat_template(SYSTEM["messages"], tokenize=True, return_dict=True)["input_ids"]
    write_json(folder / "expected.json", {"texts": texts, "chat": {"messages": SYSTEM["messages"], "ids": chat}})


def freeze(now):
    """Makes strftime_now of transformers see the time `now`."""

    class Frozen(real_datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls.fromisoformat(now)

    chat_utils.datetime = Frozen


def spans(text, header, end, assistant_turns):
    """[start, end] of each assistant turn's content with its end-of-turn token, in characters."""
    found, position = [], 0
    for _ in range(assistant_turns):
        start = text.index(header, position) + len(header)
        position = text.index(end, start) + len(end)
        found.append([start, position])
    return found


def make_template(name, tokenizer):
    bos, eos, header, end, conversations = CASES[name]
    template = (TEMPLATES / f"{name}.jinja").read_text()
    folder = fresh("chat", name)
    (folder / "chat_template.jinja").write_text(template)
    options = {"bos_token": bos} if bos else {}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=eos, **options)
    fast.chat_template = template
    cases = []
    for conversation in conversations:
        messages = conversation["messages"]
        freeze(conversation.get("now", "2001-01-01T00:00:00"))

        def render(messages, prompt=False):
            return fast.apply_chat_template(
                messages,
                tools=conversation.get("tools"),
                tokenize=False,
                add_generation_prompt=prompt,
                **conversation.get("variables", {}),
            )

        case = dict(conversation)
        try:
            text = render(messages)
        except Exception as error:
            assert type(error).__name__ == "TemplateError", error
            cases.append(case | {"error": str(error)})
            continue
        case |= {"text": text, "prompt": render(messages, True)}
        turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        found = spans(text, header, end, len(turns))
        for turn, (start, stop) in zip(turns, found):
            # The same span by rendering the conversation up to the turn, where the template allows.
            before, after = render(messages[:turn], True), render(messages[: turn + 1])
            if text.startswith(after) and after.startswith(before) and name != "qwen3_think":
                assert len(before) == start and after[:stop].endswith(end) and not after[stop:].strip(), name
        if "endgeneration" in template:
            _, tracked = chat_utils.render_jinja_template(
                [messages], chat_template=template, return_assistant_tokens_mask=True, **fast.special_tokens_map
            )
            assert [list(span) for span in tracked[0]] == found, (tracked, found)
        size = lambda position: len(text[:position].encode())
        case["assistant_spans"] = [
            {"chars": [start, stop], "bytes": [size(start), size(stop)], "text": text[start:stop]}
            for start, stop in found
        ]
        cases.append(case)
    values = {"bos_token": bos, "eos_token": eos, "header": header, "end_of_turn": end, "conversations": cases}
    write_json(folder / "expected.json", values)
    errors = [case["error"] for case in cases if "error" in case]
    print(f"{name:24} {len(cases)} conversations", *errors, sep="\n   ")


def main():
    tokenizer = make_tokenizer()
    save_tokenizer(tokenizer)
    fresh("chat")
    text = tokenizer.to_str()
    for name in CASES:
        make_template(name, Tokenizer.from_str(text))


if __name__ == "__main__":
    main()

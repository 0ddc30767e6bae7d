"""data/templates: published chat templates with what transformers renders from them.

The templates are those that the wheels of trl, axolotl and unsloth carry (all Apache-2.0; versions in
requirements-templates.txt). `pip download --no-deps -r requirements-templates.txt -d WHEELS` fetches the wheels,
which are not installed; the script takes their folder as its argument.

  conversations.json    the conversations: messages, perhaps tools, documents and variables
  <package>/<name>.jinja
  <package>.json        for each template a list with an entry for each conversation:
    text                rendered without a generation prompt
    prompt              the end of the text with a generation prompt, behind the first `keep` characters
    error               instead of both: the message of raise_exception, or the name of Python's exception

The clock of the templates stands at 2025-03-04 09:05:06.
"""

import ast
import datetime as real_datetime
import json
import shutil
import sys
import zipfile
from pathlib import Path

import jinja2
import transformers.utils.chat_template_utils as chat_utils
from conversations import assistant, system, user
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

DATA = Path(__file__).resolve().parent.parent / "data" / "templates"
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}


class Clock(real_datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2025, 3, 4, 9, 5, 6)


chat_utils.datetime = Clock

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city, today & later: \"exact\" <b>numbers</b>",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Name of the city, such as Zürich 🏔"},
                "days": {"type": "integer", "description": "How many days", "default": 1},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "nullable": True},
                "places": {
                    "type": "array",
                    "items": {"type": "object", "properties": {"x": {"type": "number"}, "y": {"type": "number"}}},
                },
            },
            "required": ["city"],
        },
        "return": {"type": "object", "description": "What was found"},
    },
}
CLOCK = {
    "type": "function",
    "function": {"name": "now", "description": "The time.", "parameters": {"type": "object", "properties": {}}},
}


def call(name, arguments, **more):
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **more}


ODD = "it's \"odd\": <b>&amp;</b>\\n {{ x }} {% y %}\ttab\u00a0nbsp 👩\u200d💻 你好\r\nend  "
CONVERSATIONS = [
    {"messages": [user("Hello there!"), assistant("Hi.")]},
    {
        "messages": [
            system("  Be brief. "),
            user("What is 2+2?\n"),
            assistant(" 4 "),
            user("Überprüfe: <b>\"3 > 2\"</b> & 你好 🙂"),
            assistant("Stimmt – 🙂."),
        ]
    },
    {"messages": [user("One"), assistant("1"), user("Two"), assistant("2"), user("Three")]},
    {"messages": [system(ODD), user(ODD), assistant(ODD)]},
    {"messages": [user("Weather in Zürich?")], "tools": [WEATHER]},
    {
        "messages": [
            system("You use tools."),
            user("Weather in Zürich?"),
            assistant("", tool_calls=[call("get_weather", {"city": "Zürich", "days": 2, "unit": None}, id="abc123def")]),
            {"role": "tool", "name": "get_weather", "tool_call_id": "abc123def", "content": '{"temp": 21.5, "sky": "clear"}'},
            assistant("21.5 degrees."),
            user("Thanks"),
        ],
        "tools": [WEATHER, CLOCK],
    },
    {
        "messages": [
            user("Two things"),
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    call("get_weather", '{"city": "Bern", "places": [{"x": 1.0, "y": -2e-7}]}', id="call00001"),
                    call("now", "{}", id="call00002"),
                ],
            },
            {"role": "tool", "name": "get_weather", "tool_call_id": "call00001", "content": "rain"},
            {"role": "tool", "name": "now", "tool_call_id": "call00002", "content": "09:05"},
            assistant("Rain at five past nine."),
        ],
        "tools": [WEATHER, CLOCK],
    },
    {
        "messages": [
            user("Why?"),
            assistant("Because.", reasoning_content="First,\nthen second. "),
            user("And?"),
            assistant("So.", reasoning_content="Short."),
        ]
    },
    {"messages": [user("Why?"), assistant("Because.", thinking="A thought."), user("More")]},
    {"messages": [assistant("How can I help?"), user("Sing"), assistant("La la")]},
    {"messages": [user("x"), assistant("<think>\nhm, 1 < 2\n</think>\n\nYes."), user("y"), assistant("<think></think>No.")]},
    {
        "messages": [
            system([{"type": "text", "text": "You see text."}]),
            user([{"type": "text", "text": "Part one, "}, {"type": "text", "text": "part two."}]),
            assistant([{"type": "text", "text": "Both read."}]),
        ]
    },
    {"messages": [user("Think?"), assistant("No.")], "variables": {"enable_thinking": False, "reasoning_effort": "low"}},
    {
        "messages": [system("Use the documents."), user("Who?"), assistant("Ada [0].")],
        "documents": [{"title": "Ada", "text": "Ada wrote it."}, {"title": "Bob", "text": "Bob read\nit."}],
    },
    {
        "messages": [system("S"), user("u"), assistant("a", weight=0, name="bot"), {"role": "tool", "content": "t"}],
        "variables": {"enable_thinking": True, "date_string": "26 Jul 2024", "keep_past_thinking": True, "model_identity": "You are Qoft."},
    },
    {
        "messages": [
            user("Deep"),
            assistant(
                "I look.",
                reasoning_content="Needs the tool.",
                tool_calls=[call("get_weather", {"city": "O'Fallon \"IL\"", "nested": {"a": [1, 2.5, True, None], "é": "\n"}})],
            ),
            {"role": "tool", "content": [{"type": "text", "text": "sun"}]},
            assistant("Sun.", reasoning_content="Done."),
        ],
        "tools": [WEATHER],
        "variables": {"xml_tools": True, "builtin_tools": ["browser", "python"]},
    },
]


def wheel(folder, package):
    found = sorted(Path(folder).glob(f"{package}-*.whl"))
    assert len(found) == 1, f"{folder} needs one wheel of {package}, found {found}"
    return zipfile.ZipFile(found[0])


def files_of(archive, start):
    for name in sorted(archive.namelist()):
        if name.startswith(start) and name.endswith(".jinja"):
            yield Path(name).stem, archive.read(name).decode("utf-8")


def constants_of(archive, name):
    """The texts that a Python file assigns to names ending in _template."""
    for node in ast.parse(archive.read(name)).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            target = node.targets[0].id
            try:
                value = ast.literal_eval(node.value)
            except ValueError:
                continue
            is_text = isinstance(value, str) and ("{%" in value or "{{" in value) and "messages" in value
            if target.endswith("_template") and not target.startswith("_") and is_text:
                yield target.removesuffix("_template"), value


def sources(folder):
    return {
        "trl": dict(files_of(wheel(folder, "trl"), "trl/chat_templates/")),
        "axolotl": dict(files_of(wheel(folder, "axolotl"), "axolotl/utils/chat_templates/templates/")),
        "unsloth": dict(constants_of(wheel(folder, "unsloth"), "unsloth/chat_templates.py")),
    }


def tokenizer():
    tokens = {token: index for index, token in enumerate(TOKENS.values())}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(tokens, "<unk>")), **TOKENS)


def render(tokenizer, template, conversation, prompt):
    return tokenizer.apply_chat_template(
        conversation["messages"],
        tools=conversation.get("tools"),
        documents=conversation.get("documents"),
        chat_template=template,
        add_generation_prompt=prompt,
        tokenize=False,
        **conversation.get("variables", {}),
    )


def expected(tokenizer, template, conversation):
    try:
        text = render(tokenizer, template, conversation, False)
        prompt = render(tokenizer, template, conversation, True)
    except Exception as error:
        raised = type(error) is jinja2.exceptions.TemplateError
        return {"error": str(error) if raised else type(error).__name__}
    keep = 0
    while keep < min(len(text), len(prompt)) and text[keep] == prompt[keep]:
        keep += 1
    return {"text": text, "keep": keep, "prompt": prompt[keep:]}


def left_out(package, name, template):
    """Templates that only differ from another one in small ways are not kept."""
    is_training = package == "trl" and name.endswith("_training")
    return is_training and len(template) > 8500 or len(template) > 17000


def main():
    folder, everything = sys.argv[1], "--all" in sys.argv
    DATA.mkdir(parents=True, exist_ok=True)
    compact = dict(ensure_ascii=False, separators=(",", ":"))
    (DATA / "conversations.json").write_text(json.dumps(CONVERSATIONS, **compact) + "\n", encoding="utf-8")
    seen, model = set(), tokenizer()
    for package, templates in sources(folder).items():
        results = {}
        shutil.rmtree(DATA / package, ignore_errors=True)
        (DATA / package).mkdir()
        for name, template in templates.items():
            if template in seen or (left_out(package, name, template) and not everything):
                continue
            seen.add(template)
            (DATA / package / f"{name}.jinja").write_bytes(template.encode("utf-8"))
            results[name] = [expected(model, template, conversation) for conversation in CONVERSATIONS]
        lines = [f"{json.dumps(name)}:{json.dumps(value, **compact)}" for name, value in results.items()]
        (DATA / f"{package}.json").write_text("{" + ",\n".join(lines) + "}\n", encoding="utf-8")
        good = sum("text" in entry for value in results.values() for entry in value)
        print(f"{package}: {len(results)} templates, {good} texts")


main()

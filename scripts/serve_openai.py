#!/usr/bin/env python3
"""Talks to `qoft serve` with OpenAI's own Python client: everything that docs/serving.md says, and what is refused.

    pip install openai==3.57.0
    python3 scripts/serve_openai.py --qoft target/release/qoft

Tools are called by the model of crates/qoft-fixtures/data/scripted, which writes calls in the forms of published
templates. Exit status 1 with the first thing that is otherwise.
"""

import argparse
import asyncio
import json
import re
import signal
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import openai

ROOT = Path(__file__).resolve().parent.parent
QUICKSTART = ROOT / "crates" / "qoft-cli" / "quickstart"
FIXTURES = ROOT / "crates" / "qoft-fixtures" / "data"
TEMPLATES = ["trl/qwen3", "trl/llama3_1", "axolotl/mistral_v3_tekken"]
MESSAGES = [{"role": "user", "content": "And it came to pass"}]


def tool(name, properties):
    parameters = {"type": "object", "properties": properties}
    return {"type": "function", "function": {"name": name, "description": "Tells it.", "parameters": parameters}}


TOOLS = [tool("get_weather", {"city": {"type": "string", "description": "Where."}}), tool("get_time", {})]


@contextmanager
def served(qoft, model, *args):
    """The address of a server."""
    command = [qoft, "serve", "--model", model, "--port=0", *args]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        line = next(line for line in server.stderr if line.startswith("serving"))
        yield re.search(r"http://[\d.:]+/v1", line)[0]
    finally:
        server.send_signal(signal.SIGTERM)
        server.stderr.read()
        assert server.wait(60) == 0


def refused(kind, call, **fields):
    try:
        call(**fields)
    except kind as error:
        return error
    raise AssertionError(f"{fields} is not refused")


def quickstart(qoft, folder):
    adapter = folder / "mine"
    train = ["train", "--model", QUICKSTART, "--data", QUICKSTART / "eval.jsonl", "--output", adapter]
    train += ["--target-modules=all-linear", "--max-steps=4", "--max-length=32", "--learning-rate=0.02"]
    subprocess.run([qoft, *train], check=True, capture_output=True)
    args = ["--served-model-name=base", "--adapter", f"mine={adapter}", "--chat-template=chatml", "--api-key=secret"]
    with served(qoft, QUICKSTART, *args) as url:
        client = openai.OpenAI(base_url=url, api_key="secret", max_retries=0)
        assert [model.id for model in client.models.list()] == ["base", "mine"]
        assert client.models.retrieve("mine").id == "mine"

        chat = dict(model="mine", messages=MESSAGES, max_tokens=12, temperature=0)
        whole = client.chat.completions.create(**chat, logprobs=True, top_logprobs=2)
        text = whole.choices[0].message.content
        assert len(whole.choices[0].logprobs.content) == 12 and whole.usage.completion_tokens == 12
        chunks = list(client.chat.completions.create(**chat, stream=True, stream_options={"include_usage": True}))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == text
        assert chunks[-1].usage.completion_tokens == 12
        plain = client.chat.completions.create(**chat | {"model": "base"}).choices[0].message.content
        half = client.chat.completions.create(**chat | {"model": "mine=0.5"}).choices[0].message.content
        assert len({plain, half, text}) >= 2

        write = dict(model="base", prompt="In the evening he", max_tokens=12, temperature=0)
        text = client.completions.create(**write).choices[0].text
        assert "".join(chunk.choices[0].text for chunk in client.completions.create(**write, stream=True)) == text
        several = client.completions.create(**write | {"prompt": ["In the evening he"] * 2}, n=2)
        assert [choice.text for choice in several.choices] == [text] * 4
        assert client.completions.create(**write, echo=True).choices[0].text == write["prompt"] + text
        stopped = client.completions.create(**write, stop=text[5:8]).choices[0]
        assert (stopped.text, stopped.finish_reason) == (text[: text.index(text[5:8])], "stop")
        assert client.completions.create(**write, logit_bias={"300": 100}).choices[0].text != text
        assert client.completions.create(**write, presence_penalty=2, frequency_penalty=2).choices[0].text
        drawn = dict(write, temperature=1.2, extra_body={"top_k": 40, "min_p": 0.01, "repetition_penalty": 1.1})
        assert client.completions.create(**drawn, seed=1).choices == client.completions.create(**drawn, seed=1).choices

        error = refused(openai.NotFoundError, client.completions.create, **write | {"model": "other"})
        assert error.code == "model_not_found", error
        long = dict(write, prompt="word " * 600)
        assert refused(openai.BadRequestError, client.completions.create, **long).code == "context_length_exceeded"
        error = refused(openai.BadRequestError, client.chat.completions.create, **chat, response_format={"type": "json_object"})
        assert error.param == "response_format", error
        refused(openai.BadRequestError, client.completions.create, **write, logit_bias={"999999": 1})
        refused(openai.NotFoundError, client.embeddings.create, model="base", input="x")
        stranger = openai.OpenAI(base_url=url, api_key="wrong", max_retries=0)
        refused(openai.AuthenticationError, stranger.completions.create, **write)

        async def together():
            client = openai.AsyncOpenAI(base_url=url, api_key="secret", max_retries=0)
            return await asyncio.gather(*(client.completions.create(**write) for _ in range(48)))

        assert {answer.choices[0].text for answer in asyncio.run(together())} == {text}


def tools(qoft):
    for template in TEMPLATES:
        args = ["--served-model-name=base", "--chat-template", FIXTURES / "templates" / f"{template}.jinja"]
        with served(qoft, FIXTURES / "scripted", *args) as url:
            client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
            messages = [{"role": "user", "content": "How warm is it in Paris?"}]
            ask = dict(model="base", messages=messages, tools=TOOLS, temperature=0, max_tokens=20)
            choice = client.chat.completions.create(**ask).choices[0]
            assert choice.finish_reason == "tool_calls", (template, choice)
            calls = choice.message.tool_calls
            assert calls[0].function.name == "get_weather", (template, calls)
            assert json.loads(calls[0].function.arguments) == {"city": "Paris"}, (template, calls)
            # The client puts the deltas together.
            with client.chat.completions.stream(**ask) as stream:
                final = stream.get_final_completion().choices[0]
            assert final.finish_reason == "tool_calls", (template, final)
            same = lambda call: (call.function.name, call.function.arguments)
            assert [same(call) for call in final.message.tool_calls] == [same(call) for call in calls], template
            messages.append(choice.message.model_dump(exclude_none=True))
            messages += [{"role": "tool", "tool_call_id": call.id, "content": "20 degrees"} for call in calls]
            answer = client.chat.completions.create(**ask).choices[0]
            assert answer.message.content == "It is 20 degrees in Paris.", (template, answer)
            assert not answer.message.tool_calls, (template, answer)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--qoft", default="qoft", help="the program")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        quickstart(args.qoft, Path(folder))
    tools(args.qoft)
    print(f"all of it works with openai {openai.__version__}")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Loads `qoft serve` with many clients and looks whether anything goes wrong.

    python3 scripts/serve_load.py --qoft target/release/qoft --seconds 300 --clients 64 --json docs/benchmarks/serving.json

Trains two adapters on the quickstart's model for a few steps, asks `qoft generate` for the texts of some prompts with
each, and starts the server with both. Then all clients ask without a pause: most for one of these texts, by several
adapters and strengths, whole or as a stream; some break the connection in the middle, and some send what is no
request. Every answer has to be that of `generate`, every wrong request has to be refused, and nobody else may
notice. The memory of the process is read all the while. Only Python's own library is needed.

Exit status 1 if an answer differs, something fails, or the memory at the end is more than --most-growth MiB above
that after the first quarter.
"""

import argparse
import http.client
import json
import os
import platform
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

QUICKSTART = Path(__file__).resolve().parent.parent / "crates" / "qoft-cli" / "quickstart"
PROMPTS = ["In the evening he", "And it came to pass", "She said unto him,", "The king of the land"]
# The name of a request's model, and the adapters that `generate` gets for the same.
MODELS = {"base": [], "a": ["a=1"], "b": ["b=1"], "a=0.5": ["a=0.5"], "b+a=-0.5": ["b=1", "a=-0.5"]}
TOKENS = 24
WRONG = [
    b"{",
    b"[]",
    b'{"model": "base"}',
    b'{"model": "nobody", "prompt": "x"}',
    b'{"model": "base", "prompt": "x", "temperature": -1}',
    b'{"model": "base", "prompt": "x", "max_tokens": "many"}',
    b'{"model": "base", "prompt": [999999]}',
    b'{"model": "base", "prompt": "\xff"}',
    b'{"model": "base", "prompt": "' + b"x " * 3000 + b'"}',
]
BROKEN = [b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"POST /v1/completions HTTP/1.1\r\nContent-Length: x\r\n\r\n"]


class Wrong(Exception):
    """Something that should not happen."""


class Load:
    def __init__(self, port, expected, seconds):
        self.port, self.expected = port, expected
        self.until = time.monotonic() + seconds
        self.lock = threading.Lock()
        self.counts = dict(whole=0, streamed=0, killed=0, malformed=0)
        self.first, self.whole_times, self.problems = [], [], []

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)

    def client(self, number):
        draws = random.Random(number)
        connection = self.connect()
        while time.monotonic() < self.until:
            kind = draws.choices(["whole", "streamed", "killed", "malformed"], [5, 5, 1, 1])[0]
            try:
                if kind in ("whole", "streamed"):
                    self.ask(connection, draws, kind == "streamed")
                elif kind == "killed":
                    self.kill(draws)
                else:
                    self.malformed(draws)
                with self.lock:
                    self.counts[kind] += 1
            except (OSError, http.client.HTTPException, Wrong, ValueError, KeyError) as error:
                with self.lock:
                    self.problems.append(f"client {number}, {kind}: {type(error).__name__}: {error}")
                connection.close()
                connection = self.connect()
        connection.close()

    def body(self, draws, stream):
        model, prompt = draws.choice(list(self.expected))
        fields = dict(model=model, prompt=prompt, max_tokens=TOKENS, temperature=0, stream=stream)
        return (model, prompt), json.dumps(fields).encode()

    def ask(self, connection, draws, stream):
        key, body = self.body(draws, stream)
        began = time.monotonic()
        connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise Wrong(f"status {answer.status}: {answer.read()[:200]}")
        if stream:
            text, ended, first = "", False, None
            for line in answer:
                line = line.strip()
                if line == b"data: [DONE]":
                    ended = True
                elif line.startswith(b"data: "):
                    first = first or time.monotonic() - began
                    text += json.loads(line[6:])["choices"][0]["text"]
            if not ended:
                raise Wrong("the stream broke off")
            with self.lock:
                self.first.append(first)
        else:
            text = json.loads(answer.read())["choices"][0]["text"]
            with self.lock:
                self.whole_times.append(time.monotonic() - began)
        if text != self.expected[key]:
            raise Wrong(f"{key}: {text!r} instead of {self.expected[key]!r}")

    def kill(self, draws):
        """Asks, and goes away without a word: at once, or in the middle of the answer."""
        _, body = self.body(draws, draws.random() < 0.5)
        with socket.create_connection(("127.0.0.1", self.port), timeout=120) as connection:
            head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            whole = head.encode() + body
            connection.sendall(whole[: draws.choice([20, len(whole) - 5, len(whole)])])
            time.sleep(draws.random() * 0.5)
            # Linger of zero: a reset in place of a farewell.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")

    def malformed(self, draws):
        if draws.random() < 0.3:
            with socket.create_connection(("127.0.0.1", self.port), timeout=120) as connection:
                connection.sendall(draws.choice(BROKEN))
                try:
                    answer = connection.recv(200)
                except ConnectionResetError:
                    answer = b""
            if answer and b" 400 " not in answer:
                raise Wrong(f"bytes that are no request: {answer!r}")
            return
        connection = self.connect()
        connection.request("POST", "/v1/completions", draws.choice(WRONG), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        told = json.loads(answer.read())
        connection.close()
        if answer.status not in (400, 404) or "message" not in told["error"]:
            raise Wrong(f"status {answer.status}: {told}")


def resident(process):
    """MiB of a process that are in memory; 0 where that is not told."""
    try:
        text = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    except OSError:
        return 0.0
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024


def metrics(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line and line[0] != "#")}


def prepare(qoft, folder):
    """Trains the adapters, and has the texts of `generate`."""
    run = lambda *args: subprocess.run([qoft, *args], check=True, capture_output=True, text=True).stdout
    for name, rate in [("a", "0.02"), ("b", "0.05")]:
        run("train", "--model", QUICKSTART, "--data", QUICKSTART / "eval.jsonl", "--output", folder / name,
            "--target-modules=all-linear", "--max-steps=4", "--max-length=32", f"--learning-rate={rate}")
    rows = folder / "prompts.jsonl"
    rows.write_text("".join(json.dumps(dict(prompt=prompt)) + "\n" for prompt in PROMPTS), encoding="utf-8")
    expected = {}
    for model, adapters in MODELS.items():
        args = ["generate", "--model", QUICKSTART, "--temperature=0", f"--max-new-tokens={TOKENS}", "--json"]
        for adapter in adapters:
            args += ["--adapter", f"{folder}/{adapter}"]
        for prompt in PROMPTS:
            expected[model, prompt] = json.loads(run(*args, "--prompt", prompt))["text"]
    return expected


def middle(values):
    values = sorted(value for value in values if value is not None)
    part = lambda share: round(values[min(int(share * len(values)), len(values) - 1)], 4) if values else None
    return dict(median=part(0.5), p95=part(0.95))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--qoft", default="qoft", help="the program")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--most-growth", type=float, default=32, help="MiB")
    parser.add_argument("--json", type=Path, help="where the result goes")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        expected = prepare(args.qoft, folder)
        command = [args.qoft, "serve", "--model", QUICKSTART, "--served-model-name=base", "--port=0"]
        for name in ["a", "b"]:
            command += ["--adapter", f"{name}={folder / name}"]
        server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            line = next(line for line in server.stderr if line.startswith("serving"))
            port = int(re.search(r":(\d+)/v1", line)[1])
            result = attack(args, server, port, expected)
        finally:
            server.send_signal(signal.SIGTERM)
            said, status = server.stderr.read(), server.wait(60)
    if status != 0:
        result["problems"].append(f"the server ended with status {status}: {said}")
    text = json.dumps(result, indent=1) + "\n"
    print(text)
    if args.json:
        args.json.write_text(text, encoding="utf-8")
    sys.exit(bool(result["problems"]))


def attack(args, server, port, expected):
    began, start = time.monotonic(), resident(server.pid)
    load = Load(port, expected, args.seconds)
    threads = [threading.Thread(target=load.client, args=[number]) for number in range(args.clients)]
    for thread in threads:
        thread.start()
    memory = []
    while any(thread.is_alive() for thread in threads):
        memory.append((time.monotonic() - began, resident(server.pid)))
        time.sleep(min(1.0, args.seconds / 20))
    took = time.monotonic() - began
    deadline = time.monotonic() + 30
    while (left := metrics(port))["qoft_running_sequences"] + left["qoft_waiting_sequences"] > 0:
        if time.monotonic() > deadline:
            load.problems.append("texts are written that nobody waits for")
            break
        time.sleep(0.05)
    end = resident(server.pid)
    quarter = max(size for moment, size in memory if moment <= max(took / 4, memory[0][0]))
    if end > quarter + args.most_growth:
        load.problems.append(f"the memory grew from {quarter:.1f} to {end:.1f} MiB")
    tokens = left["qoft_generation_tokens_total"]
    return dict(
        clients=args.clients,
        seconds=round(took, 1),
        cpus=os.cpu_count(),
        machine=platform.machine(),
        requests=load.counts,
        compared_with_generate=load.counts["whole"] + load.counts["streamed"],
        models=list(MODELS),
        tokens_per_second=round(tokens / took, 1),
        tokens_per_step=round(tokens / left["qoft_steps_total"], 2),
        seconds_to_first_token=middle(load.first),
        seconds_of_whole_answers=middle(load.whole_times),
        memory_mib=dict(start=round(start, 1), after_a_quarter=round(quarter, 1), end=round(end, 1)),
        problems=load.problems[:20],
    )


if __name__ == "__main__":
    main()

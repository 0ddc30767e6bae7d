"""data/penalties.json: what vLLM makes of logits by biases and penalties.

    python make_penalties.py vllm-0.33.0-cp38-abi3-manylinux_2_28_x86_64.whl    # pip download --no-deps vllm==0.33.0

Each case has logits, the ids of prompt and text so far, the options, and the `scores` that vLLM draws from. Its
functions are taken out of the wheel as they are: the package itself needs a GPU.
"""

import ast
import sys
import types
import zipfile

from common import DATA, generator, write_json

import torch

VOCAB = 48
OPTIONS = [
    {},
    dict(presence_penalty=0.8),
    dict(frequency_penalty=0.6),
    dict(presence_penalty=-1.5, frequency_penalty=0.25),
    dict(presence_penalty=2.0, frequency_penalty=2.0, repetition_penalty=1.3),
    dict(frequency_penalty=-2.0, repetition_penalty=0.7),
    dict(logit_bias={3: 5.0, 7: -100.0}),
    dict(logit_bias={2: -4.0, 11: 6.5, 20: 1.0}, repetition_penalty=1.5, presence_penalty=0.5, frequency_penalty=0.1),
]


def functions(wheel, path, *names):
    """Functions of a module, also those of classes, without what else it imports."""
    tree = ast.parse(wheel.read(path))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name in names]
    module = {"torch": torch}
    exec(compile(ast.Module(found, []), path, "exec"), module)
    return [module[name] for name in names]


def main():
    with zipfile.ZipFile(sys.argv[1]) as wheel:
        layers = "vllm/model_executor/layers/utils.py"
        penalize, _ = functions(wheel, layers, "apply_penalties", "get_token_bin_counts_and_mask")
        repeat = functions(wheel, "vllm/_custom_ops.py", "apply_repetition_penalties", "apply_repetition_penalties_torch")
        tree = ast.parse(wheel.read("vllm/v1/sample/logits_processor/builtin.py"))
        biases = next(node for node in tree.body if getattr(node, "name", "") == "LogitBiasLogitsProcessor")
        apply = next(node for node in biases.body if getattr(node, "name", "") == "apply")
        module = {"torch": torch}
        exec(compile(ast.Module([apply], []), "builtin.py", "exec"), module)
    sys.modules["vllm"] = types.ModuleType("vllm")
    sys.modules["vllm._custom_ops"] = types.SimpleNamespace(apply_repetition_penalties=repeat[0])
    cases = []
    for number, options in enumerate(OPTIONS):
        draws = generator(3300 + number)
        logits = 2.0 * torch.randn(VOCAB, generator=draws)
        prompt, text = (torch.randint(0, VOCAB // 2, (size,), generator=draws).tolist() for size in (8, 14))
        scores = logits[None].clone()
        # In the order of `Sampler.apply_logits_processors`.
        bias = options.get("logit_bias", {})
        ids = torch.tensor(list(bias), dtype=torch.long)
        values = torch.tensor(list(bias.values()))
        state = types.SimpleNamespace(biases=bias, logits_slice=(torch.zeros_like(ids), ids), bias_tensor=values)
        scores = module["apply"](state, scores)
        number_of = lambda name, default: torch.tensor([options.get(name, default)])
        penalties = number_of("presence_penalty", 0.0), number_of("frequency_penalty", 0.0)
        penalize(scores, torch.tensor([prompt]), torch.tensor([text]), *penalties, number_of("repetition_penalty", 1.0))
        cases.append(dict(options=options, prompt=prompt, text=text, logits=logits.tolist(), scores=scores[0].tolist()))
    write_json(DATA / "penalties.json", cases)


if __name__ == "__main__":
    main()

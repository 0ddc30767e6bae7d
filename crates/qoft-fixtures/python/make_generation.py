"""data/generation: how transformers chooses tokens.

processors.json  cases of logits, the ids of the text so far and options, with the probabilities that the
                 processors of `generate` leave
greedy.json      what `generate` writes behind a prompt with a repetition penalty and two tokens that end a text,
                 by a model in data/models
"""

from common import fresh, generator, write_json
from make_models import load

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

VOCAB = 64
OPTIONS = [
    {},
    dict(temperature=0.6),
    dict(temperature=1.7, top_k=0),
    dict(top_k=5),
    dict(top_k=1000, top_p=0.8),
    dict(top_p=0.35),
    dict(top_k=0, top_p=0.95, temperature=0.7),
    dict(top_k=0, min_p=0.1),
    dict(min_p=0.3, top_k=7, temperature=1.4),
    dict(repetition_penalty=1.3, top_k=0),
    dict(repetition_penalty=0.8, temperature=0.9, top_p=0.6),
    dict(repetition_penalty=1.2, temperature=0.5, top_k=20, top_p=0.9, min_p=0.05),
]


def probabilities(model, logits, ids, options):
    config = GenerationConfig(do_sample=True, **options)
    config.update(**config._get_default_generation_params(), defaults_only=True)
    processors = model._get_logits_processor(config, input_ids_seq_length=len(ids))
    scores = processors(torch.tensor([ids]), logits[None].clone())
    return scores.softmax(-1)[0]


def main():
    folder = fresh("generation")
    sizes = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=VOCAB, **sizes))
    cases = []
    for number, options in enumerate(OPTIONS):
        logits = 2.0 * torch.randn(VOCAB, generator=generator(3000 + number))
        ids = torch.randint(0, VOCAB, (12,), generator=generator(3100 + number)).tolist()
        if number % 3 == 0:
            # Equal ones, of which none may be lost.
            logits[10:14] = logits.topk(5)[0][-1]
        if number % 4 == 1:
            logits[20] = -torch.inf
        found = probabilities(model, logits, ids, options)
        numbers = [max(value, -1e30) for value in logits.tolist()]
        cases.append(dict(options=options, input_ids=ids, logits=numbers, probabilities=found.tolist()))
        print(options, int((found > 0).sum()), "kept")
    write_json(folder / "processors.json", cases)

    name = "llama"
    model = load(folder.parent / "models" / name)
    prompt = [5, 6, 7, 8, 9]
    ids = torch.tensor([prompt])

    def generate(**options):
        return model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, **options)[0, 5:].tolist()

    free = generate(max_new_tokens=16, eos_token_id=None, pad_token_id=0)
    options = dict(repetition_penalty=1.5, max_new_tokens=16)
    penalized = generate(eos_token_id=None, pad_token_id=0, **options)
    ends = [penalized[9], penalized[12]]
    ended = generate(eos_token_id=ends, pad_token_id=0, **options)
    assert free != penalized and len(ended) < 16
    write_json(
        folder / "greedy.json",
        dict(model=name, prompt=prompt, options=options, free=free, penalized=penalized, ends=ends, ended=ended),
    )


if __name__ == "__main__":
    main()

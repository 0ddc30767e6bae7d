"""data/saved_embeddings: adapters that PEFT saved with the embedding and the output head.

PEFT does so where the vocabulary of a model was changed before the training (`save_embedding_layers`);
no key of adapter_config.json says it. Loading the adapter puts these weights in the place of the
model's.

  <model>         an adapter of data/models/<model> with such weights, all random
  more            the same of llama with two more tokens than the model has
  expected.json
    rows          token ids of the evaluation rows
    cases         {model: the mean loss over all predicted tokens with the adapter, by PEFT}
"""

from common import DATA, fresh, generator, losses, random_rows, randomize, write_json

import torch
from peft import OFTConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

ROWS = random_rows([24, 17, 9], 64, 903)
# The head of the first one is the embedding; that of the second has a weight of its own.
MODELS = ("llama", "mistral")


def load(name):
    return AutoModelForCausalLM.from_pretrained(
        DATA / "models" / name, dtype=torch.float32, device_map="cpu", attn_implementation="eager"
    ).eval()


def save(name, folder, tokens=0):
    model = load(name)
    if tokens:
        model.resize_token_embeddings(model.config.vocab_size + tokens)
    randomize(model, 31)
    config = OFTConfig(target_modules=["q_proj", "down_proj"], oft_block_size=8, task_type="CAUSAL_LM")
    model = get_peft_model(model, config)
    gen = generator(32)
    with torch.no_grad():
        for key, parameter in sorted(model.named_parameters()):
            if "oft_" in key:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=gen))
    model.save_pretrained(folder, save_embedding_layers=True)
    (folder / "README.md").unlink()
    config = folder / "adapter_config.json"
    config.write_text(config.read_text().replace(str(DATA), "../.."))


def main():
    root = fresh("saved_embeddings")
    expected = {"rows": ROWS, "cases": {}}
    for name in MODELS:
        save(name, root / name)
        model = PeftModel.from_pretrained(load(name), root / name).eval()
        expected["cases"][name] = losses(model, ROWS)[0]
        print(f"{name:20} {expected['cases'][name]}")
    save("llama", root / "more", tokens=2)
    write_json(root / "expected.json", expected)


if __name__ == "__main__":
    main()

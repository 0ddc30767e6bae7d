"""data/gpt2/<case>: adapters on GPT-2, whose dense layers (Conv1D) store weights as [in, out].

PEFT's OFT takes no Conv1D. In the case `dense` its modules are replaced by torch.nn.Linear with the
transposed weight, which computes the same; PEFT adapts these. In `nf4` and `int8` transformers has
replaced them by bitsandbytes' layers, which PEFT adapts as they are. Each case holds a checkpoint,
`adapter/`, `trained/` and reference.json; make_scheme_references.py says what they are. int8 layers
run with dequantized weights throughout, in training mode.

The case `dense` also has merged.safetensors: the layers of the first block after merge_and_unload,
as the converted model has them, [out, in].
"""

from common import DATA, check_no_repack, fresh, losses, plain_4bit_forward, random_rows, randomize, write_json
from make_peft import clean_config, randomize_adapter
from make_train import make_rows, train

import tempfile

import torch
from peft import OFTConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, GPT2Config
from transformers.pytorch_utils import Conv1D

plain_4bit_forward()

VOCAB = 96
OPTIONS = dict(target_modules="all-linear", oft_block_size=16)
LR, ACCUMULATION, CLIP = 2e-3, 1, 1.0

# case: (n_embd, n_inner, quantization); bitsandbytes' blocks of 64 do not straddle rows.
CASES = {
    "dense": (32, 64, None),
    "nf4": (64, 128, BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")),
    "int8": (64, 128, BitsAndBytesConfig(load_in_8bit=True)),
}


def make_model(case):
    width, inner, quantization = CASES[case]
    config = GPT2Config(
        vocab_size=VOCAB,
        n_embd=width,
        n_inner=inner,
        n_layer=2,
        n_head=4,
        n_positions=32,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    randomize(model, 3000)
    folder = fresh("gpt2", case)
    if quantization is None:
        model.save_pretrained(folder)
    else:
        with tempfile.TemporaryDirectory() as source:
            model.save_pretrained(source)
            quantized = AutoModelForCausalLM.from_pretrained(
                source, dtype=torch.float32, quantization_config=quantization, device_map="cpu"
            )
        quantized.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    return folder


def to_linear(model):
    """Replaces each Conv1D by a Linear that computes the same."""
    for parent in list(model.modules()):
        for name, module in list(parent.named_children()):
            if isinstance(module, Conv1D):
                linear = torch.nn.Linear(*module.weight.shape)
                linear.weight.data = module.weight.data.T.contiguous()
                linear.bias.data = module.bias.data
                setattr(parent, name, linear)
    return model


def load(case):
    """The model in the mode that multiplies with dequantized weights."""
    model = AutoModelForCausalLM.from_pretrained(
        DATA / "gpt2" / case, dtype=torch.float32, device_map="cpu", attn_implementation="eager"
    )
    check_no_repack(model)
    if case == "dense":
        rows = random_rows([24], VOCAB, 1)
        before = losses(model, rows)[0]
        model = to_linear(model)
        assert abs(losses(model, rows)[0] - before) < 1e-6
    # The Trainer knows by the name of a class whether its loss shifts the labels. GPT2LMHeadModel does
    # not end in ForCausalLM, so the Trainer would divide by the number of all labels.
    model.loss_type = "ForCausalLM"
    return model.train()


def make_case(case):
    folder = make_model(case)
    adapter = fresh("gpt2", case, "adapter")
    model = get_peft_model(load(case), OFTConfig(task_type="CAUSAL_LM", **OPTIONS))
    randomize_adapter(model)
    model.save_pretrained(adapter)
    clean_config(adapter, "..")

    rows = random_rows([24, 17, 9], VOCAB, 900)
    adapted = PeftModel.from_pretrained(load(case), adapter)
    loss, row_losses, _ = losses(load(case), rows)
    adapted_loss, adapted_row_losses, _ = losses(adapted.train(), rows)
    training = make_rows(VOCAB)
    reference = {
        "rows": rows,
        "loss": loss,
        "row_losses": row_losses,
        "adapted_loss": adapted_loss,
        "adapted_row_losses": adapted_row_losses,
        "train": {"rows": training}
        | train(load(case), training, OPTIONS, LR, ACCUMULATION, CLIP, fresh("gpt2", case, "trained"), ".."),
    }
    write_json(folder / "reference.json", reference)
    if case == "dense":
        merged = adapted.merge_and_unload().state_dict()
        layers = {k: v.contiguous() for k, v in merged.items() if ".h.0." in k and k.endswith("weight") and v.dim() == 2}
        save_file(layers, folder / "merged.safetensors", metadata={"format": "pt"})
    steps = reference["train"]["losses"]
    print(f"{case:8} {loss:.5f}, adapted {adapted_loss:.5f}, trained {steps[0]:.5f} -> {steps[-1]:.5f}")


def main():
    fresh("gpt2")
    for case in CASES:
        make_case(case)


if __name__ == "__main__":
    main()

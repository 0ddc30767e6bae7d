"""data/custom: OFT on small models of one's own, as in PEFT's tests/test_custom_models.py.

The cases of CASES are PEFT's own list of OFT configurations for custom models, under the names that
they have there. All models run in float64, so that expected values have no rounding of their own.

  <model>/model.safetensors   the weights of a model
  <case>                      a PEFT folder with random values, and expected.safetensors:
    input                     what the model is given
    base, adapted, merged     its output without the adapter, with it, and after merge_and_unload
    grad.<layer>              the gradient of sum(adapted * numbers(adapted.shape)) in its parameters
  expected.json
    cases                     {case: {peft: the name in PEFT's list, model}}
    trained                   the parameters that train after each step of PEFT's tests of requires_grad

Where PEFT is wrong, the expectation is what stands in this docstring, and the script checks that PEFT
is wrong still:
- Two active adapters are applied in order, x R1 R2 W^T, which PEFT's forward does. Its merge
  multiplies in the other order, so `merged` is the output with the adapters beside the weight.
- A linear layer with an input of four dimensions turns its rows; PEFT takes it for an image and fails.
- A convolution multiplies what a filter sees at one place with the rotation. PEFT folds the rotated
  patches back into an image by adding up overlaps, so that even an identity changes the output. PEFT's
  merge is right for square kernels; non-square ones, groups and dilation fail there. The filters here
  are W blockdiag(R)^T, with PEFT's own R.

Outputs of large images are stored as every STEP-th value.
"""

from common import DATA, fresh, generator, write_json

import json
from collections import OrderedDict

import torch
import torch.nn.functional as F
from make_peft import clean_config
from peft import OFTConfig, PeftModel, get_peft_model
from peft.tuners.oft.layer import OFTRotationModule
from safetensors.torch import save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

STEP = 997
EXACT = {"r": 2, "oft_block_size": 0, "target_modules": ["lin0"], "use_cayley_neumann": False}
COFT = {"coft": True, "eps": 1e-2}
BLOCKS = {"r": 0, "oft_block_size": 2, "target_modules": ["lin0"]}
CONV = {"r": 5, "oft_block_size": 0, "target_modules": ["conv2d"]}
EMB = {"r": 1, "oft_block_size": 0, "target_modules": ["emb"]}

CASES = {
    "Vanilla MLP 1 OFT": ("mlp", EXACT | {"target_modules": "lin0"}),
    "Vanilla MLP 2 OFT": ("mlp", EXACT),
    "Vanilla MLP 5 OFT": ("mlp", EXACT | {"modules_to_save": ["lin1"]}),
    "Vanilla MLP 6 OFT": ("mlp", EXACT | {"module_dropout": 0.1}),
    "Vanilla MLP 7 OFT": ("mlp", {"r": 2, "oft_block_size": 0, "target_modules": ["lin0"]} | COFT),
    "Vanilla MLP 8 OFT": ("mlp", EXACT | {"block_share": True}),
    "Vanilla MLP 9 OFT": (
        "mlp",
        {"r": 2, "oft_block_size": 0, "target_modules": ["lin0"], "block_share": True} | COFT,
    ),
    "Vanilla MLP 10 OFT": ("mlp", BLOCKS | {"use_cayley_neumann": True}),
    "Vanilla MLP 11 OFT": ("mlp", BLOCKS | {"use_cayley_neumann": False}),
    "Vanilla MLP 12 OFT": ("mlp", BLOCKS | COFT | {"block_share": True, "use_cayley_neumann": True}),
    "Vanilla MLP 13 OFT": ("mlp", BLOCKS | COFT | {"block_share": True, "use_cayley_neumann": False}),
    "Embedding + transformers Conv1D 1 OFT": ("emb_conv1d", EMB),
    "Embedding + transformers Conv1D 2 OFT": ("emb_conv1d", EMB | {"block_share": True}),
    "Conv2d 1 OFT": ("conv2d", CONV),
    "Conv2d 3 OFT": ("conv2d", CONV | {"coft": True}),
    "Conv2d 4 OFT": ("conv2d", CONV | {"block_share": True}),
    "Conv2d 5 OFT": ("conv2d", CONV | {"coft": True, "block_share": True}),
}

# Two adapters on one model: "OFT Same" and "OFT Different" of PEFT's list, and blocks of more than two,
# whose rotations do not commute.
PAIRS = {
    "same": [{"oft_block_size": 2, "target_modules": ["lin0"]}] * 2,
    "different": [{"oft_block_size": 2, "target_modules": [name]} for name in ("lin0", "lin1")],
    "same_blocks_of_5": [{"oft_block_size": 5, "target_modules": ["lin0"]}] * 2,
    "other_sizes": [{"oft_block_size": size, "target_modules": ["lin0", "lin1"]} for size in (5, 10)],
}

# A convolution, its input, and the size of blocks: the first layer of a ResNet on a whole image, an
# inner one, and what PEFT cannot do at all.
IMAGES = {
    "resnet_stem": (nn.Conv2d(3, 6, 7, stride=2, padding=3), [1, 3, 224, 224], 7),
    "inner_64_channels": (nn.Conv2d(64, 4, 3, padding=1), [1, 64, 56, 56], 16),
    "pointwise": (nn.Conv2d(12, 8, 1), [2, 12, 40, 40], 4),
    "groups": (nn.Conv2d(16, 8, 3, padding=1, groups=2), [2, 16, 40, 40], 8),
    "dilated": (nn.Conv2d(6, 5, 3, padding=2, dilation=2), [1, 6, 48, 48], 6),
    "not_square": (nn.Conv2d(4, 6, (1, 5), padding=(0, 2)), [1, 4, 40, 64], 5),
}


def numbers(shape):
    """Numbers from -1 to 1 that any language can make exactly."""
    count = torch.Size(shape).numel()
    hashed = (torch.arange(count) * 2654435761 % 2**32) // 256
    return (hashed.double() / 2**23 - 1).reshape(shape)


def mlp():
    layers = [("lin0", nn.Linear(10, 20)), ("relu", nn.ReLU()), ("lin1", nn.Linear(20, 2))]
    return nn.Sequential(OrderedDict([*layers, ("sm", nn.LogSoftmax(dim=-1))]))


def emb_conv1d():
    layers = [("emb", nn.Embedding(100, 5)), ("conv1d", Conv1D(1, 5)), ("relu", nn.ReLU())]
    layers += [("flat", nn.Flatten()), ("lin0", nn.Linear(10, 2)), ("sm", nn.LogSoftmax(dim=-1))]
    return nn.Sequential(OrderedDict(layers))


def conv2d():
    layers = [("conv2d", nn.Conv2d(5, 10, 3)), ("relu", nn.ReLU()), ("flat", nn.Flatten())]
    layers += [("lin0", nn.Linear(10, 2)), ("sm", nn.LogSoftmax(dim=-1))]
    return nn.Sequential(OrderedDict(layers))


MODELS = {"mlp": mlp, "emb_conv1d": emb_conv1d, "conv2d": conv2d}


def model_input(name):
    """PEFT's input, the numbers from 0 to 89, and as many small ones where they are no ids."""
    x = torch.arange(90).view(9, 10)
    if name == "emb_conv1d":
        return x
    x = torch.cat([x.double(), torch.randn(9, 10, generator=generator(3)).float().double()])
    return x.reshape(-1, 5, 3, 3) if name == "conv2d" else x


def build(name):
    """The same weights each time, which are f32 numbers."""
    torch.manual_seed(0)
    return MODELS[name]().double().eval()


def save(folder, file, tensors):
    plain = lambda t: t.detach().clone().contiguous().to(torch.float32 if t.is_floating_point() else t.dtype)
    save_file({key: plain(value) for key, value in tensors.items()}, folder / f"{file}.safetensors")


def write_adapter(folder, name, config, seed):
    """A PEFT folder with random values."""
    model = get_peft_model(build(name).float(), OFTConfig(**config))
    gen = generator(seed)
    with torch.no_grad():
        for key, parameter in sorted(model.named_parameters()):
            if "oft_" in key:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=gen))
            elif "modules_to_save" in key:
                parameter.copy_(parameter + 0.1 * torch.randn(parameter.shape, generator=gen))
    model.save_pretrained(folder)
    clean_config(folder, name)


def gradients(model, y):
    model.zero_grad()
    (y * numbers(y.shape)).sum().backward()
    for key, parameter in model.named_parameters():
        if "oft_" in key and parameter.grad is not None:
            key = key.removeprefix("base_model.model.").split(".oft_")[0]
            yield f"grad.{key}", parameter.grad.clone()


def make_case(title, name, config):
    case = title.removesuffix(" OFT").removeprefix("Vanilla ").replace(" + transformers", "")
    case = case.lower().replace(" ", "_")
    folder = fresh("custom", case)
    write_adapter(folder, name, config, len(title))
    x = model_input(name)
    model = PeftModel.from_pretrained(build(name), folder, is_trainable=True).eval()
    y = model(x)
    expected = {"input": x, "base": build(name)(x), "adapted": y} | dict(gradients(model, y))
    # COFT has projected the parameters in the forward; merging again starts from the file.
    merged = PeftModel.from_pretrained(build(name), folder).eval().merge_and_unload()
    expected["merged"] = merged(x)
    torch.testing.assert_close(expected["merged"], y, rtol=1e-9, atol=1e-9)
    assert (y - expected["base"]).abs().max() > 1e-4, case
    save(folder, "expected", expected)
    print(f"{case:24} changes the output by {(y - expected['base']).abs().max():.4f}")
    return case, {"peft": title, "model": name}


def make_pair(case, configs):
    folder, x = fresh("custom", f"pair_{case}"), model_input("mlp")
    for number, config in enumerate(configs):
        write_adapter(folder / str(number), "mlp", {"r": 0} | config, 50 + number)

    def adapted():
        model = PeftModel.from_pretrained(build("mlp"), folder / "0", adapter_name="0")
        model.load_adapter(folder / "1", adapter_name="1")
        return model.eval()

    expected, model = {"input": x, "base": build("mlp")(x)}, adapted()
    for names in (["0"], ["1"], ["0", "1"], ["1", "0"]):
        model.base_model.set_adapter(names)
        expected["adapted." + "".join(names)] = model(x)
    model = adapted()
    model.base_model.set_adapter(["0", "1"])
    off = (model.merge_and_unload()(x) - expected["adapted.01"]).abs().max()
    # PEFT multiplies the first adapter in first; in blocks of two that makes no difference.
    wrong = len({tuple(c["target_modules"]) for c in configs}) == 1 and max(c["oft_block_size"] for c in configs) > 2
    assert (off > 1e-2) == wrong, (case, off)
    save(folder, "expected", expected)
    print(f"pair_{case:19} PEFT's merge is off by {off:.1e}")


def rotation(values, config, features):
    """blockdiag(R) by PEFT."""
    size = config["oft_block_size"]
    module = OFTRotationModule(values.shape[0], values.shape[1], size, features)
    module.weight.data = values.double()
    return module.get_weight().detach()


def make_image(case, conv, shape, size):
    folder = fresh("custom", f"image_{case}")
    gen = generator(len(case))
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=gen) / conv.weight[0].numel() ** 0.5)
    conv = conv.double()
    features = conv.weight[0].numel()
    values = (0.1 * torch.randn(features // size, size * (size - 1) // 2, generator=gen)).float()
    config = {"r": 0, "oft_block_size": size, "target_modules": ["conv2d"]}
    settings = OFTConfig(**config, inference_mode=True)
    settings.save_pretrained(folder)
    clean_config(folder, case)
    save(folder, "adapter_model", {"base_model.model.conv2d.oft_R.weight": values})
    save(folder, "model", {"weight": conv.weight, "bias": conv.bias})

    x = numbers(shape)
    turned = (conv.weight.reshape(-1, features) @ rotation(values, config, features).T).reshape(conv.weight.shape)
    adapted = F.conv2d(x, turned, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups)
    base = conv(x)
    check_peft(case, conv, config, x, base)
    sample = lambda y: y.detach().flatten()[::STEP]
    save(folder, "expected", {"base": sample(base), "adapted": sample(adapted)})
    options = {"stride": conv.stride, "padding": conv.padding, "dilation": conv.dilation, "groups": conv.groups}
    write_json(folder / "options.json", {"input": shape, "output": list(base.shape)} | options)
    print(f"image_{case:18} changes the output by {(adapted - base).abs().max():.4f}")


def check_peft(case, conv, config, x, base):
    """PEFT changes the output with an identity, or fails, where a filter sees more than one value."""
    model = nn.Sequential(OrderedDict(conv2d=conv))
    try:
        off = (get_peft_model(model, OFTConfig(**config))(x) - base).abs().max().item()
    except (ValueError, RuntimeError) as error:
        print(f"{'':24} PEFT fails: {str(error).splitlines()[0][:70]}")
        return
    assert (off > 0.1) == (conv.kernel_size != (1, 1)), (case, off)
    print(f"{'':24} PEFT's identity is off by {off:.4f}")


def make_four_dimensions():
    """Rows of a linear layer, whatever the rank of the input."""
    folder = fresh("custom", "four_dimensions")
    write_adapter(folder, "mlp", BLOCKS, 70)
    model = PeftModel.from_pretrained(build("mlp"), folder).eval()
    x = numbers([2, 3, 4, 10])
    try:
        model(x)
        raise AssertionError("PEFT takes four dimensions now")
    except RuntimeError:
        pass
    save(folder, "expected", {"adapted": model(x.reshape(-1, 10)).reshape(2, 3, 4, 2)})


def trained(second):
    """The adapters of each layer that train, after the steps of test_requires_grad_oft_*."""
    model = get_peft_model(mlp(), OFTConfig(target_modules=["lin0"], r=2, oft_block_size=0))
    model.add_adapter("adapter1", OFTConfig(target_modules=[second], r=2, oft_block_size=0))
    found = []

    def note(step):
        model(torch.ones(1, 10))
        names = [key for key, parameter in model.named_parameters() if parameter.requires_grad]
        found.append([step, [key.removeprefix("base_model.model.").removesuffix(".weight") for key in names]])

    for name in ("default", "adapter1"):
        model.set_adapter(name)
        note(name)
    with model.disable_adapter():
        note("")
    model.set_adapter("adapter1")
    note("adapter1")
    return found


def main():
    root = fresh("custom")
    for name in MODELS:
        save(fresh("custom", name), "model", build(name).state_dict())
    cases = dict(make_case(title, *case) for title, case in CASES.items())
    for case, configs in PAIRS.items():
        make_pair(case, configs)
    for case, (conv, shape, size) in IMAGES.items():
        make_image(case, conv, shape, size)
    make_four_dimensions()
    expected = {"cases": cases, "trained": {"different": trained("lin1"), "same": trained("lin0")}}
    write_json(root / "expected.json", json.loads(json.dumps(expected)))


if __name__ == "__main__":
    main()

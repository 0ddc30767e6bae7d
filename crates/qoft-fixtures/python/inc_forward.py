"""The quantized inputs of linear layers in a checkpoint of Intel Neural Compressor, in a dense f32 model.

`attach(model, expected)` gives the linear layers of a dense model the input that the real layer multiplies
with: the layer rounds its input to float8 with a static scale, and back. The gradient passes
as if nothing had been rounded or clamped.
"""

import torch


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, quantized):
        return quantized

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


def quantize_input(x, scale_inv, scale, max_value=448.0, fp8_dtype=torch.float8_e4m3fn, qdq=False):
    """The input that the layer multiplies with.

    On a Gaudi the input is multiplied by `scale_inv`, and the product of the float8 numbers by `scale`
    later, in f32; here `scale` is applied at once. In QDQ mode the input is divided by `scale`,
    and the dequantized value is rounded to bf16.
    """
    with torch.no_grad():
        scaled = x / scale if qdq else x * scale_inv
        value = scaled.clamp(-max_value, max_value).to(fp8_dtype).to(x.dtype) * scale
        if qdq:
            value = value.to(torch.bfloat16).to(x.dtype)
    return StraightThrough.apply(x, value)


class QuantizedInput(torch.nn.Linear):
    """A dense linear layer whose input is quantized first."""

    def __init__(self, linear, scale_inv, scale, options):
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.register_buffer("scale_inv", scale_inv, persistent=False)
        self.register_buffer("scale_input", scale, persistent=False)
        self.options = options

    def forward(self, x):
        return super().forward(quantize_input(x, self.scale_inv, self.scale_input, **self.options))


def attach(model, expected, **options):
    """Replaces the layers that have scales in expected.safetensors; `options` are those of quantize_input.

    Without options the layers are those of E4M3 files made for the full range of 448. Where all scales are
    powers of two QDQ mode makes no difference, but for values below the normal range of bf16.
    """
    for path, linear in list(model.named_modules()):
        if f"{path}.scale_input" in expected:
            scales = expected[f"{path}.scale_inv"].clone(), expected[f"{path}.scale_input"].clone()
            model.set_submodule(path, QuantizedInput(linear, *scales, options))

"""EETQ's quantizer and weight layout on a machine without a GPU.

`quant_weights` has the signature of the Python binding and calls the same compiled function of the
published wheel, `symmetric_quantize`, which quantizes and re-lays the weight on the host. It asks the
CUDA runtime for the compute capability of the device; a small stand-in for that library
answers with `layout("sm80")` or `layout("sm70")`. The GEMM of the GPU is not available.
`transformers_without_gpu` lets the EETQ path of transformers run with it.
"""

import ctypes
import importlib.machinery
import importlib.metadata
import os
import subprocess
import sys
import tempfile
import types
from pathlib import Path

import torch

CUDART = r"""
static int capability = 80;
void set_capability(int value) { capability = value; }
int cudaGetDevice(int *device) { *device = 0; return 0; }
int cudaDeviceGetAttribute(int *value, int attribute, int device) {
  *value = attribute == 75 ? capability / 10 : capability % 10; /* 75 is the major number */
  return 0;
}
void **__cudaRegisterFatBinary(void *binary) { static void *handle; return &handle; }
void __cudaRegisterFatBinaryEnd(void **handle) {}
void __cudaUnregisterFatBinary(void **handle) {}
void __cudaRegisterFunction(void) {}
void __cudaRegisterVar(void) {}
"""
QUANTIZE = "_ZN17fastertransformer18symmetric_quantizeI{}EEvPaS{}_PT_PKT0_RKSt6vectorImSaImEENS_9QuantTypeE"
SYMBOLS = {torch.float16: QUANTIZE.format("6__halfS1_", 2), torch.float32: QUANTIZE.format("ff", 1)}


def open_libraries():
    """The stand-in of libcudart and the compiled library of the wheel."""
    assert importlib.metadata.version("EETQ") == "1.0.0"
    wheel = importlib.metadata.distribution("EETQ").locate_file("EETQ.cpython-310-x86_64-linux-gnu.so")
    with tempfile.TemporaryDirectory() as build:
        build = Path(build)
        (build / "cudart.c").write_text(CUDART)
        (build / "version.map").write_text("libcudart.so.12 { global: *; };")
        library = build / "libcudart.so.12"
        flags = ["-shared", "-fPIC", "-Wl,-soname,libcudart.so.12", "-Wl,--version-script=version.map"]
        subprocess.run(["cc", *flags, "cudart.c", "-o", library.name], cwd=build, check=True)
        cudart = ctypes.CDLL(str(library))
    # Lazy binding: the functions that need a GPU are never resolved.
    loader = ctypes.CDLL(None)
    loader.dlopen.restype, loader.dlopen.argtypes = ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_int]
    handle = loader.dlopen(str(wheel).encode(), os.RTLD_LAZY)
    assert handle, "the library of the EETQ wheel cannot be opened"
    return cudart, ctypes.CDLL(str(wheel), handle=handle)


CUDART_LIBRARY, EETQ_LIBRARY = open_libraries()


def layout(name):
    """Chooses the layout of the weights: that of compute capability 7.5 to 8.9, or of 7.0."""
    CUDART_LIBRARY.set_capability({"sm80": 80, "sm70": 70}[name])


def quant_weights(weight, dtype, return_unprocessed):
    """weight [K, N] -> ([plain int8 [K, N],] int8 in the layout of the GPU, scales [N])."""
    assert dtype == torch.int8 and weight.is_contiguous() and weight.device.type == "cpu"
    rows, columns = weight.shape
    plain = torch.empty(rows, columns, dtype=torch.int8)
    processed, scales = torch.empty_like(plain), torch.empty(columns, dtype=weight.dtype)
    sizes = (ctypes.c_size_t * 2)(rows, columns)
    begin = ctypes.addressof(sizes)
    vector = (ctypes.c_size_t * 3)(begin, begin + 16, begin + 16)  # a std::vector<size_t> of two
    pointers = [ctypes.c_void_p(t.data_ptr()) for t in (processed, plain, scales, weight)]
    function = EETQ_LIBRARY[SYMBOLS[weight.dtype]]
    function.restype = None
    function(*pointers, vector, 0)
    return [plain, processed, scales] if return_unprocessed else [processed, scales]


def dequantize(plain, scales):
    """W [N, K] in f32 from the plain int8 [K, N] and the stored scales.

    The product is exact here; EETQ's kernels, which have no CPU version, round it to f16.
    """
    return (plain.to(torch.float32) * scales.to(torch.float32)).t().contiguous()


def transformers_without_gpu():
    """Replaces the check for a GPU and the kernels from the hub."""
    import transformers.integrations.hub_kernels as hub_kernels
    import transformers.quantizers.quantizer_eetq as quantizer

    hub_kernels.get_kernel = lambda *_, **__: types.SimpleNamespace(quant_weights=quant_weights)
    quantizer.is_kernels_available = lambda: True
    torch.cuda.is_available = lambda: True


def eetq_package():
    """Lets `eetq`, the Python package of the wheel, be imported.

    It gets its extension module, and the function for shards that newer transformers lack.
    """
    import transformers.modeling_utils as modeling

    extension = types.ModuleType("EETQ")
    extension.quant_weights = quant_weights
    extension.preprocess_weights = extension.w8_a16_gemm = extension.rotary_embedding_neox = None
    extension.__spec__ = importlib.machinery.ModuleSpec("EETQ", None)
    sys.modules["EETQ"] = extension
    modeling.shard_checkpoint = lambda state, max_shard_size, weights_name: ({weights_name: state}, None)
    from eetq.modules import W8A16Linear

    W8A16Linear.__init__.__defaults__ = (True, "cpu")  # the default device is "cuda:0"

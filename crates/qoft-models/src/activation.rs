//! Activations by the names that transformers gives them.

use qoft_core::Result;
use qoft_core::kernels::ops::Activation;

use crate::json::Object;

const NAMES: [(&str, Activation); 8] = [
    ("gelu_new", Activation::GeluTanh),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("gelu_fast", Activation::GeluTanh),
    ("gelu", Activation::Gelu),
    ("relu", Activation::Relu),
    ("silu", Activation::Silu),
    ("swish", Activation::Silu),
    ("tanh", Activation::Tanh),
];

/// The activation under a key of `config.json`; nothing if the key is absent.
///
/// # Errors
/// If it is another one; the error lists those that there are.
pub fn activation(json: Object, key: &str) -> Result<Option<Activation>> {
    json.choice(key, &NAMES)
}

//! The behaviour that every quantization backend of qoft must have, as a test suite.
//!
//! A scheme's own crate runs it on checkpoints that the scheme's own library wrote:
//!
//! ```no_run
//! use qoft_conformance::{PeakAlloc, Subject};
//! # use qoft_core::{Dense, Registration};
//! # static REGISTRATION: Registration = Registration::new(&Dense);
//!
//! #[global_allocator]
//! static ALLOCATOR: PeakAlloc = PeakAlloc;
//!
//! // #[test]
//! fn conforms() {
//!     Subject::new(&REGISTRATION).folders(["tests/data/plain"]).check();
//! }
//! # conforms();
//! ```
//!
//! A folder holds a checkpoint (`config.json` and safetensors) and, in `expected.safetensors`,
//! the dense `f32` weight `<path>.weight` of each quantized layer as the library dequantizes it.
//! The checks, in this order:
//!
//! 1. every layer in `expected.safetensors` is claimed and dequantizes bit for bit;
//! 2. any tile equals that part of the whole weight;
//! 3. nobody else's layer is claimed: neither the dense ones of the same checkpoint nor layers
//!    of other schemes, which the suite makes up;
//! 4. forward, gradient of the input and gradient of an adapter are right;
//! 5. the memory that a layer holds is what it says, and loading it takes no dense copy;
//! 6. an adapter on it can be saved and loaded;
//! 7. a quantization of the input is repeatable and leaves finite numbers finite;
//! 8. a changed weight that is written is read back, and other layers stay as they are;
//! 9. damaged tensors and configurations give errors, never a panic, when a layer is loaded and
//!    when it is written; a broken scale is an error;
//! 10. options refuse values that they do not know;
//! 11. dense weights that are quantized are read back, and impossible settings are errors.
//!
//! What a backend's capabilities leave out is not checked.
//!
//! Then it goes on with random damage for a second, or for as many as the environment variable
//! `FUZZ_SECONDS` says.
//!
//! [`ArchitectureSubject`] does the same for architectures of models, and [`FamilySubject`] for families of
//! adapters.
//!
//! [`TestLayer`] is for what only the scheme's own crate knows: files that are unusual, of a kind
//! that it refuses, or damaged, and what its errors say about them.

mod adapter;
mod architecture;
mod compute;
mod damage;
mod family;
mod foreign;
mod input;
mod layer;
mod layer_file;
mod memory;
mod options;
mod quantize;
mod quantized;
mod reference;
mod requantize;
mod subject;
mod test_layer;

pub use architecture::ArchitectureSubject;
pub use family::FamilySubject;
pub use peak_alloc::PeakAlloc;
pub use quantized::{Quantized, quantized};
pub use reference::expected_weights;
pub use requantize::{Requantized, requantize, requantize_with};
pub use subject::Subject;
pub use test_layer::{TestLayer, TestTensor};

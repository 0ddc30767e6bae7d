//! The behaviour that every quantization backend of qoft must have, as a test suite.
//!
//! A scheme's own crate runs it on checkpoints that the scheme's own library wrote:
//!
//! ```ignore
//! use qoft_conformance::{PeakAlloc, Subject};
//!
//! #[global_allocator]
//! static ALLOCATOR: PeakAlloc = PeakAlloc;
//!
//! #[test]
//! fn conforms() {
//!     Subject::new(&my_scheme::REGISTRATION).folders(["tests/data/plain"]).check();
//! }
//! ```

mod reference;
mod subject;

pub use peak_alloc::PeakAlloc;
pub use reference::{decode, expected_weights};
pub use subject::Subject;

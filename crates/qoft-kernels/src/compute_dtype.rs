//! The dtype in which products are computed.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::gemm::multiplies_pairs;

/// The dtype to which both factors of a product with a frozen weight are rounded. Sums are `f32`, as is
/// all that is no such product.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ComputeDtype {
    /// Nothing is rounded.
    #[default]
    F32,
    /// bfloat16, where there are more rows than a few: products of few are bound by reading the weight, which
    /// stays packed.
    Bf16,
}

impl ComputeDtype {
    /// What it is called in options.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }

    /// Whether this machine's processor multiplies it faster than by way of `f32`.
    pub fn is_native(self) -> bool {
        match self {
            Self::F32 => true,
            Self::Bf16 => multiplies_pairs(),
        }
    }
}

impl fmt::Display for ComputeDtype {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

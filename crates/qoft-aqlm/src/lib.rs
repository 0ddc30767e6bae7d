//! AQLM checkpoints (additive codebooks) for qoft.

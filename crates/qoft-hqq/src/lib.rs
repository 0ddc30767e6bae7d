//! HQQ checkpoints (1 to 8 bits) for qoft.

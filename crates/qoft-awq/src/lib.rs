//! AWQ checkpoints for qoft.

//! EETQ checkpoints (int8) for qoft.

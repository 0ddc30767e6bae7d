//! GPTQ checkpoints (2, 3, 4 and 8 bits) for qoft.

//! Intel Neural Compressor FP8 checkpoints for qoft.

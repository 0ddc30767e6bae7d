//! Names of the files of a checkpoint beside those of the adapter.

/// Where a run is.
pub(super) const STATE: &str = "trainer_state.json";
/// What the optimizer remembers.
pub(super) const OPTIMIZER: &str = "optimizer.bin";

//! What a loaded layer holds in memory, and what loading it takes.

use peak_alloc::PeakAlloc;
use qoft_core::Purpose;

use crate::layer::Layer;

/// Bytes for names, reference counts and the like.
const SLACK: usize = 4096;

/// Holds no more than `packed_bytes`, and never has a dense copy beside it.
pub(crate) fn check(layer: &Layer) {
    assert_counting();
    // What threads set up for themselves when they first work is not the layer's.
    drop(layer.load(Purpose::Forward));
    let source = layer.source(None);
    let file_bytes: usize = source
        .suffixes()
        .filter_map(|suffix| source.get(suffix))
        .map(|tensor| tensor.bytes().len())
        .sum();
    // Nor is what some do so late that it falls into a later load: the least of several counts.
    let (mut held, mut peak) = (usize::MAX, usize::MAX);
    let mut loaded = layer.load(Purpose::Forward);
    for _ in 0..3 {
        drop(loaded);
        let before = PeakAlloc.current_usage();
        PeakAlloc.reset_peak_usage();
        loaded = layer.load(Purpose::Forward);
        held = held.min(PeakAlloc.current_usage().saturating_sub(before));
        peak = peak.min(PeakAlloc.peak_usage().saturating_sub(before));
    }
    let stated = loaded.weight.packed_bytes();
    let bias = loaded.bias.as_ref().map_or(0, |bias| bias.len() * 4);
    assert!(
        held <= stated + bias + SLACK,
        "{layer}: holds {held} bytes, packed_bytes() says {stated}"
    );
    // A dense f32 copy of an 8-bit weight takes four times its bytes.
    let allowed = 3 * stated.max(file_bytes) + bias + 2 * SLACK;
    assert!(
        peak <= allowed,
        "{layer}: loading takes {peak} bytes for a weight of {stated}"
    );
}

/// The test program has to count its memory.
fn assert_counting() {
    let before = PeakAlloc.current_usage();
    let probe = std::hint::black_box(vec![1u8; 1 << 20]);
    // Other threads may free a little at the same time.
    let counted = PeakAlloc.current_usage() >= before + probe.len() / 2;
    assert!(
        counted,
        "put this into the test program: #[global_allocator] static ALLOCATOR: PeakAlloc = PeakAlloc;"
    );
}

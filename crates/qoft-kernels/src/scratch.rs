//! Memory that a thread uses again and again.

use std::cell::RefCell;

/// Numbers of a cache line.
const LINE: usize = 16;

thread_local! {
    static FREE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Calls `f` with `length` values that can be anything: what an earlier use left behind. The first one
/// begins a cache line, so that no vector lies in two of them.
pub(crate) fn with_scratch<R>(length: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    // It is taken out while it is used: `f` may need more, or run another task of its thread pool.
    let mut values = FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
    if values.len() < length + LINE {
        values.resize(length + LINE, 0.0);
    }
    let start = values.as_ptr().align_offset(size_of::<[f32; LINE]>());
    let result = f(&mut values[start..start + length]);
    FREE.with_borrow_mut(|free| free.push(values));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_inside_of_each_other_do_not_meet() {
        with_scratch(3, |a| {
            a.fill(1.0);
            with_scratch(5, |b| b.fill(2.0));
            assert_eq!(a, [1.0; 3]);
        });
        with_scratch(2, |a| assert_eq!(a.len(), 2));
    }

    #[test]
    fn values_begin_a_cache_line() {
        for length in [1, 16, 1000, 100_000] {
            with_scratch(length, |values| {
                assert_eq!(values.len(), length);
                assert!(values.as_ptr().addr().is_multiple_of(64));
            });
        }
    }
}

//! Memory that a thread uses again and again.

use std::cell::RefCell;

thread_local! {
    static FREE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Calls `f` with `length` values that can be anything: what an earlier use left behind.
pub(crate) fn with_scratch<R>(length: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    // It is taken out while it is used: `f` may need more, or run another task of its thread pool.
    let mut values = FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
    if values.len() < length {
        values.resize(length, 0.0);
    }
    let result = f(&mut values[..length]);
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
}

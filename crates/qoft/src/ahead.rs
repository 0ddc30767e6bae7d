//! Making one thing while the one before it is used.

use qoft_core::Result;

/// Hands what is made of each item to `take`, in their order, while the next one is made.
pub(crate) fn one_ahead<'a, T: Sync, M: Send>(
    items: &'a [T],
    make: impl Fn(&'a T) -> Result<M> + Sync,
    mut take: impl FnMut(&'a T, M) -> Result<()> + Send,
) -> Result<()> {
    let Some((first, rest)) = items.split_first() else {
        return Ok(());
    };
    let (mut item, mut made) = (first, make(first)?);
    for next in rest {
        let (taken, ahead) = rayon::join(|| take(item, made), || make(next));
        taken?;
        (item, made) = (next, ahead?);
    }
    take(item, made)
}

#[cfg(test)]
mod tests {
    use qoft_core::Error;

    use super::*;

    #[test]
    fn everything_is_taken_in_order_and_nothing_after_an_error() {
        for stop in 0..5 {
            let mut taken = Vec::new();
            let result = one_ahead(
                &[0, 1, 2, 3],
                |&item| Ok(10 * item),
                |&item, made| {
                    if item == stop {
                        return Err(Error::file("x", "stop"));
                    }
                    taken.push((item, made));
                    Ok(())
                },
            );
            assert_eq!(result.is_err(), stop < 4);
            let expected: Vec<_> = (0..stop.min(4)).map(|item| (item, 10 * item)).collect();
            assert_eq!(taken, expected);
        }
        assert!(one_ahead(&[(); 0], |()| Ok(()), |(), ()| Ok(())).is_ok());
        let failing = |&item: &i32| match item {
            2 => Err(Error::file("x", "made")),
            item => Ok(item),
        };
        let mut last = 0;
        let result = one_ahead(&[1, 2, 3], failing, |_, made| {
            last = made;
            Ok(())
        });
        assert!(result.is_err());
        assert_eq!(last, 1);
    }
}

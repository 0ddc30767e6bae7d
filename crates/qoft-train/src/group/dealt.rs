//! Work that is dealt out piece by piece.

use super::{Group, GroupError, Reader, Words};

/// Does the pieces of work, of which the one at place `i` is done by rank `i` modulo their number, and
/// returns on all of them what each piece came to, in the order of the pieces.
///
/// Between rounds all of them learn whether one has been asked to stop by `stop`; then nothing is returned.
/// `progress` is told how many pieces are done.
///
/// # Errors
/// [`GroupError`], or the error of a piece.
pub(crate) fn dealt<P, E: From<GroupError>>(
    group: &dyn Group,
    pieces: impl ExactSizeIterator<Item = P>,
    stop: &dyn Fn() -> bool,
    progress: &mut dyn FnMut(usize, usize),
    mut work: impl FnMut(P) -> Result<Vec<u8>, E>,
) -> Result<Option<Vec<Vec<u8>>>, E> {
    let (size, total) = (group.size(), pieces.len());
    let mut pieces = pieces.enumerate().peekable();
    let mut found = Vec::with_capacity(total);
    while pieces.peek().is_some() {
        let stopping = stop();
        let mut own = Vec::new();
        let first = found.len();
        // Of a round that is not worth it nothing is done, but the others are told.
        for (at, piece) in pieces.by_ref().take(size) {
            if at - first == group.rank() && !stopping {
                own = work(piece)?;
            }
        }
        let mut words = Words::default();
        words.flags(&[stopping]);
        let mut message = words.into_bytes();
        let head = message.len();
        message.append(&mut own);
        let mut all = group.gather(&message)?;
        let asked = all.iter().any(|said| {
            Reader::new(said)
                .flags()
                .is_none_or(|flags| flags != [false])
        });
        if asked {
            return Ok(None);
        }
        all.truncate(total - first);
        found.extend(all.into_iter().map(|mut said| said.split_off(head)));
        progress(found.len(), total);
    }
    Ok(Some(found))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::group::Alone;

    #[test]
    fn pieces_come_back_in_their_order_until_somebody_asks_to_stop() {
        let asked = Cell::new(false);
        let mut done = Vec::new();
        let mut run = |last: u8| {
            dealt::<u8, GroupError>(
                &Alone,
                [1, 2, 3].into_iter(),
                &|| asked.get(),
                &mut |at, of| done.push((at, of)),
                |piece| {
                    asked.set(piece == last);
                    Ok(vec![piece, 9])
                },
            )
        };
        let found = run(7).unwrap().unwrap();
        assert_eq!(found, [[1, 9], [2, 9], [3, 9]]);
        assert!(run(2).unwrap().is_none());
        assert_eq!(done, [(1, 3), (2, 3), (3, 3), (1, 3), (2, 3)]);
    }
}

//! Values that all processes send to rank 0, and get back together.

use qoft_train::group::GroupError;

use crate::link::{Element, Message, Tag, waiting};
use crate::packed::{packed, unpacked};
use crate::signs::Waiting;
use crate::world::World;

impl World {
    /// See [`Group::gather`](qoft_train::group::Group::gather). Rank 0 collects: it sees who is missing.
    pub(crate) fn gather_values(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, GroupError> {
        if self.rank == 0 {
            let all = self.collect(own)?;
            let bytes = packed(&all);
            let others = 1..self.size;
            let messages = others.map(|rank| Message::send(rank, Tag::Values, &bytes));
            self.finish(&mut messages.collect::<Result<Vec<_>, _>>()?)?;
            return Ok(all);
        }
        let mut sent = vec![Message::send(0, Tag::Value, own)?];
        let mut patience = Waiting::begin(self)?;
        loop {
            sent[0].is_done()?;
            if let Some((_, bytes)) = waiting(Some(0), Tag::Values)? {
                let bytes = self.receive(0, Tag::Values, bytes)?;
                self.finish(&mut sent)?;
                return unpacked(&bytes, self.size).ok_or_else(|| GroupError::Unexpected {
                    rank: 0,
                    found: format!("{} bytes", bytes.len()),
                    expected: format!("values of {} ranks", self.size),
                });
            }
            // Rank 0 waits for others, of which it will speak.
            if patience.hears(0)? {
                patience.renew();
            }
            patience.wait(&[0])?;
        }
    }

    /// The values of all, on rank 0.
    fn collect(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, GroupError> {
        let mut all: Vec<Option<Vec<u8>>> = vec![None; self.size];
        all[0] = Some(own.to_vec());
        let mut patience = Waiting::begin(self)?;
        loop {
            for (rank, value) in all.iter_mut().enumerate() {
                if value.is_none()
                    && let Some((_, bytes)) = waiting(Some(rank), Tag::Value)?
                {
                    *value = Some(self.receive(rank, Tag::Value, bytes)?);
                }
            }
            let missing = all.iter().enumerate().filter(|(_, value)| value.is_none());
            let missing: Vec<usize> = missing.map(|(rank, _)| rank).collect();
            if missing.is_empty() {
                return Ok(all.into_iter().flatten().collect());
            }
            patience.wait(&missing)?;
        }
    }

    /// Fails if another process said that it did; rank 0 is told.
    pub(crate) fn look_for_failures(&self) -> Result<(), GroupError> {
        if self.rank > 0 {
            return Ok(());
        }
        let Some((rank, bytes)) = waiting(None, Tag::Failure)? else {
            return Ok(());
        };
        let mut message: Message<u8> = Message::receive(rank, Tag::Failure, bytes)?;
        let mut patience = self.patience();
        while !message.is_done()? && patience.wait() {}
        Err(GroupError::Failed {
            rank,
            text: String::from_utf8_lossy(&message.into_values()).into_owned(),
        })
    }

    /// Receives a message that is there.
    fn receive<T: Element>(
        &self,
        rank: usize,
        tag: Tag,
        length: usize,
    ) -> Result<Vec<T>, GroupError> {
        let mut message = [Message::receive(rank, tag, length)?];
        self.finish(&mut message)?;
        let [message] = message;
        Ok(message.into_values())
    }

    /// Waits until messages are through.
    pub(crate) fn finish<T: Element>(&self, messages: &mut [Message<T>]) -> Result<(), GroupError> {
        let mut patience = Waiting::begin(self)?;
        loop {
            let mut left = Vec::new();
            for message in messages.iter_mut() {
                if !message.is_done()? {
                    left.push(message.peer);
                }
            }
            if left.is_empty() {
                return Ok(());
            }
            patience.wait(&left)?;
        }
    }
}

//! Signs of life of those that wait, so that they are told from those that hang.

use std::time::Duration;

use qoft_train::group::GroupError;

use crate::link::{Message, Tag, waiting};
use crate::patience::Patience;
use crate::world::World;

/// So often a process that waits says so until it gives up.
const SIGNS: u32 = 8;

/// A wait for other processes.
pub(crate) struct Waiting<'a> {
    world: &'a World,
    patience: Patience,
    /// When to say again that this one waits.
    next_sign: Duration,
    /// Those that said that they wait, too.
    heard: Vec<bool>,
    /// Signs on their way.
    sent: Vec<Message<u8>>,
}

impl<'a> Waiting<'a> {
    pub(crate) fn begin(world: &'a World) -> Result<Self, GroupError> {
        let mut begun = Self {
            world,
            patience: world.patience(),
            next_sign: world.timeout.get() / SIGNS,
            heard: vec![false; world.size],
            sent: Vec::new(),
        };
        // Signs of earlier waits say nothing.
        begun.listen()?;
        begun.heard.fill(false);
        Ok(begun)
    }

    /// Whether a process said that it waits, too, since this was last asked.
    pub(crate) fn hears(&mut self, rank: usize) -> Result<bool, GroupError> {
        self.listen()?;
        Ok(std::mem::take(&mut self.heard[rank]))
    }

    /// Begins anew.
    pub(crate) fn renew(&mut self) {
        self.patience.renew();
        self.next_sign = self.world.timeout.get() / SIGNS;
    }

    /// Lets some time pass before the next look for what `ranks` have to send or to take.
    pub(crate) fn wait(&mut self, ranks: &[usize]) -> Result<(), GroupError> {
        self.world.look_for_failures()?;
        if self.patience.waited() >= self.next_sign {
            self.next_sign += self.world.timeout.get() / SIGNS;
            self.listen()?;
            let mut left = Vec::new();
            for mut message in self.sent.drain(..) {
                if !message.is_done()? {
                    left.push(message);
                }
            }
            self.sent = left;
            for rank in (0..self.world.size).filter(|rank| *rank != self.world.rank) {
                self.sent.push(Message::send(rank, Tag::Alive, &[0])?);
            }
        }
        if self.patience.wait() {
            return Ok(());
        }
        self.listen()?;
        let mut ranks = ranks.to_vec();
        ranks.sort_unstable();
        ranks.dedup();
        // Those that wait themselves do so because of others.
        let hanging: Vec<usize> = ranks.iter().copied().filter(|r| !self.heard[*r]).collect();
        let silent = if hanging.is_empty() { ranks } else { hanging };
        Err(GroupError::Silent {
            ranks: silent,
            seconds: self.patience.waited().as_secs(),
        })
    }

    /// Takes all signs that came.
    fn listen(&mut self) -> Result<(), GroupError> {
        while let Some((rank, bytes)) = waiting(None, Tag::Alive)? {
            let mut message: Message<u8> = Message::receive(rank, Tag::Alive, bytes)?;
            let mut patience = self.world.patience();
            while !message.is_done()? && patience.wait() {}
            self.heard[rank] = true;
        }
        Ok(())
    }
}

//! Waiting that comes to an end.

use std::time::{Duration, Instant};

/// After this long, waiting no longer keeps a processor busy.
const BUSY: Duration = Duration::from_millis(2);
/// Sleep between two looks: short at first, since most answers come soon.
const NAP: Duration = Duration::from_micros(100);
/// After this long, answers are not expected soon.
const LONG: Duration = Duration::from_secs(1);
const LONG_NAP: Duration = Duration::from_millis(1);
/// The most that counts between two looks: a job that was suspended as a whole did not wait meanwhile.
const STEP: Duration = Duration::from_secs(1);

/// How long something was waited for.
#[derive(Debug)]
pub(crate) struct Patience {
    limit: Duration,
    waited: Duration,
    looked: Instant,
}

impl Patience {
    /// Waits for so long.
    pub(crate) fn new(limit: Duration) -> Self {
        Self {
            limit,
            waited: Duration::ZERO,
            looked: Instant::now(),
        }
    }

    /// Begins anew, since a sign of life came.
    pub(crate) fn renew(&mut self) {
        *self = Self::new(self.limit);
    }

    /// How long it was waited.
    pub(crate) fn waited(&self) -> Duration {
        self.waited
    }

    /// Lets some time pass before the next look. Returns whether it is worth going on.
    pub(crate) fn wait(&mut self) -> bool {
        if self.waited < BUSY {
            std::thread::yield_now();
        } else if self.waited < LONG {
            std::thread::sleep(NAP);
        } else {
            std::thread::sleep(LONG_NAP);
        }
        self.waited += self.looked.elapsed().min(STEP);
        self.looked = Instant::now();
        self.waited < self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_ends_and_can_begin_anew() {
        let mut patience = Patience::new(Duration::from_millis(20));
        while patience.wait() {}
        assert!(patience.waited() >= Duration::from_millis(20));
        patience.renew();
        assert!(patience.wait());
    }

    #[test]
    fn a_long_pause_counts_little() {
        let mut patience = Patience::new(Duration::from_secs(60));
        patience.looked -= Duration::from_secs(3600);
        assert!(patience.wait());
        assert!(patience.waited() <= STEP);
    }
}

//! Whether a participant is to hear of the others' ends, and the asking for it until it is so.

use std::time::Instant;

use super::retry::{Retry, warn_first};
use crate::error::Result;

/// Calling order: `poll` after each `handle_*` and at [`poll_timeout`](Self::poll_timeout), while the subscription is there.
#[derive(Debug)]
pub(super) struct Hearing {
    wanted: bool,
    /// What it is; `None`: not known, as what was last asked for failed, maybe half done.
    heard: Option<bool>,
    /// What is asked for now.
    asked: Option<bool>,
    retry: Retry,
}

impl Hearing {
    /// At first it hears.
    pub(super) fn new() -> Self {
        Self { wanted: true, heard: Some(true), asked: None, retry: Retry::new() }
    }

    pub(super) fn handle_wish(&mut self, wanted: bool) {
        self.wanted = wanted;
    }

    /// What was asked for was done, or not.
    pub(super) fn handle_answer(&mut self, now: Instant, answer: Result<()>) {
        let asked = self.asked.take();
        match answer {
            Ok(()) => {
                self.heard = asked;
                self.retry.succeeded();
            }
            Err(error) => {
                self.heard = None;
                // What is heard without need does no harm, and what is not heard is told by heartbeats.
                let first = self.retry.failed(now, &error);
                warn_first!(first, %error, "listening to the others' ends was not changed; it is tried again");
            }
        }
    }

    /// What to ask for now.
    pub(super) fn poll(&mut self, now: Instant) -> Option<bool> {
        let due = self.is_open() && self.retry.may_go(now);
        due.then(|| *self.asked.insert(self.wanted))
    }

    /// When `poll` has something, if not now.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.retry.next().filter(|_| self.is_open())
    }

    fn is_open(&self) -> bool {
        self.asked.is_none() && self.heard != Some(self.wanted)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::error::{Error, ErrorKind};

    fn failed() -> Result<()> {
        Err(Error::new(ErrorKind::Timeout, "no answer"))
    }

    // Guards: takeovers are fast. Who is to hear and was not subscribed asks again until it is, after 50 ms at first and seconds in the end.
    #[test]
    fn what_failed_is_asked_for_again_at_a_pace_until_it_is_done() {
        let (mut hearing, mut now) = (Hearing::new(), Instant::now());
        assert_eq!((hearing.poll(now), hearing.poll_timeout()), (None, None));
        hearing.handle_wish(false);
        assert_eq!((hearing.poll(now), hearing.poll(now)), (Some(false), None), "once at a time");
        hearing.handle_answer(now, Ok(()));
        hearing.handle_wish(true);
        assert_eq!(hearing.poll(now), Some(true));
        for _ in 0..20 {
            hearing.handle_answer(now, failed());
            hearing.handle_wish(true); // each heartbeat says so
            assert_eq!(hearing.poll(now), None, "not at once");
            let at = hearing.poll_timeout().expect("it is tried again");
            assert!(at > now && at <= now + Duration::from_secs(4), "{:?}", at - now);
            now = at;
            assert_eq!(hearing.poll(now), Some(true));
            assert_eq!(hearing.poll_timeout(), None, "an answer is waited for");
        }
        hearing.handle_answer(now, Ok(()));
        assert_eq!((hearing.poll(now), hearing.poll_timeout()), (None, None));
    }

    // Guards: as above. What is wanted may change while it is asked for, or after it failed, maybe half done.
    #[test]
    fn what_is_wanted_last_is_asked_for_whatever_became_of_what_was_wanted_before() {
        let (mut hearing, now) = (Hearing::new(), Instant::now());
        hearing.handle_wish(false);
        assert_eq!(hearing.poll(now), Some(false));
        hearing.handle_wish(true);
        assert_eq!(hearing.poll(now), None);
        hearing.handle_answer(now, Ok(()));
        assert_eq!(hearing.poll(now), Some(true));
        hearing.handle_answer(now, failed());
        hearing.handle_wish(false);
        let later = hearing.poll_timeout().expect("what it hears is not known");
        assert_eq!(hearing.poll(later), Some(false));
    }
}

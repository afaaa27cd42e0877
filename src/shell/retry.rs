//! What fails again and again: said once, and tried again at a pace.

use std::time::Instant;

use super::backoff::Backoff;
use crate::error::{Error, ErrorKind};

/// Whether a thing fails. Whoever is woken by warnings is woken once: when it begins to.
#[derive(Debug, Default)]
pub(crate) enum Outage {
    /// It does not.
    #[default]
    None,
    /// It failed as the connection has ended. Mostly the program has, too, and that is worth a warning only if there is a
    /// next time.
    Ended,
    /// It fails, and that was said.
    Said,
}

impl Outage {
    /// It failed. Whether that is to be warned of.
    pub(crate) fn begins(&mut self, error: &Error) -> bool {
        let (next, first) = match self {
            Self::None if error.kind() == ErrorKind::Closed => (Self::Ended, false),
            Self::None | Self::Ended => (Self::Said, true),
            Self::Said => (Self::Said, false),
        };
        *self = next;
        first
    }

    /// It succeeded. Whether it failed before.
    pub(crate) fn ends(&mut self) -> bool {
        !matches!(std::mem::take(self), Self::None)
    }

    pub(crate) fn lasts(&self) -> bool {
        !matches!(self, Self::None)
    }
}

/// Warns of what begins to fail. As long as it does, it is tried again and again, and that is for who debugs.
macro_rules! warn_first {
    ($first:expr, $($said:tt)+) => {
        if $first { tracing::warn!($($said)+) } else { tracing::debug!($($said)+) }
    };
}
pub(crate) use warn_first;

/// Paces what is tried again.
#[derive(Debug)]
pub(crate) struct Retry {
    backoff: Backoff,
    not_before: Option<Instant>,
    outage: Outage,
}

impl Retry {
    pub(crate) fn new() -> Self {
        Self { backoff: Backoff::new(), not_before: None, outage: Outage::default() }
    }

    /// It failed. Whether that is to be warned of.
    pub(crate) fn failed(&mut self, now: Instant, error: &Error) -> bool {
        self.not_before = Some(now + self.backoff.next_delay());
        self.outage.begins(error)
    }

    /// It succeeded. Whether it failed before.
    pub(crate) fn succeeded(&mut self) -> bool {
        (self.backoff, self.not_before) = (Backoff::new(), None);
        self.outage.ends()
    }

    pub(crate) fn may_go(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|at| at <= now)
    }

    /// When the next try is to be, if the last one failed.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.not_before
    }

    /// Whether it is time for the next try; once.
    pub(crate) fn take_due(&mut self, now: Instant) -> bool {
        self.not_before.take_if(|at| *at <= now).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Guards: an outage is warned of once, and a program that ends with something on its way warns of nothing; but one that
    // goes on with a connection that has ended is told.
    #[test]
    fn an_outage_is_said_once_and_the_end_of_the_connection_only_to_who_goes_on() {
        let [timeout, closed] = [ErrorKind::Timeout, ErrorKind::Closed].map(|kind| Error::new(kind, "no"));
        let mut outage = Outage::default();
        assert!(!outage.lasts() && !outage.ends());
        assert_eq!([&timeout, &timeout, &closed].map(|error| outage.begins(error)), [true, false, false]);
        assert!(outage.lasts() && outage.ends() && !outage.lasts());
        assert_eq!([&closed, &closed, &closed].map(|error| outage.begins(error)), [false, true, false]);
        assert!(outage.ends());
        assert!(!outage.begins(&closed) && outage.lasts() && outage.ends());
    }
}

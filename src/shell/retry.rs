//! What fails again and again: said once, and tried again at a pace.

use std::time::Instant;

use super::backoff::Backoff;

/// Whether a thing fails. Whoever is woken by warnings is woken once: when it begins to.
#[derive(Debug, Default)]
pub(crate) struct Outage {
    lasts: bool,
}

impl Outage {
    /// It failed. Whether it did not before.
    pub(crate) fn begins(&mut self) -> bool {
        !std::mem::replace(&mut self.lasts, true)
    }

    /// It succeeded. Whether it failed before.
    pub(crate) fn ends(&mut self) -> bool {
        std::mem::take(&mut self.lasts)
    }

    pub(crate) fn lasts(&self) -> bool {
        self.lasts
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

    /// It failed. Whether it did not before.
    pub(crate) fn failed(&mut self, now: Instant) -> bool {
        self.not_before = Some(now + self.backoff.next_delay());
        self.outage.begins()
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

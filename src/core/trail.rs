//! What tells two states of the core apart, as a list of numbers: for the model check in `tests/model`, which has to know
//! whether it has been in a state before.
//!
//! A `walk` takes every field of its type apart by name, so that a new field is not forgotten: it does not compile. It says
//! of each number what it is compared with, as only that matters: a revision with other revisions, an instant with
//! `now`. What cannot change what happens next (stale entries, numbers that only tell two things apart) is left out.

use std::time::Instant;

use crate::id::{Epoch, JobId, Revision};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// As it is.
    Value(u64),
    /// Only compared with others of its kind; an epoch, too.
    Revision(u64),
    /// Only compared with `now`: once it has come, it does not matter when it came.
    Due(Instant),
    /// A time is counted from here on.
    Since(Instant),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trail(pub(crate) Vec<Mark>);

impl Trail {
    pub(crate) fn value(&mut self, value: impl Into<u64>) {
        self.0.push(Mark::Value(value.into()));
    }

    pub(crate) fn count(&mut self, count: usize) {
        self.0.push(Mark::Value(count as u64));
    }

    pub(crate) fn revision(&mut self, revision: Revision) {
        self.0.push(Mark::Revision(revision.0));
    }

    pub(crate) fn epoch(&mut self, epoch: Epoch) {
        self.0.push(Mark::Revision(epoch.0));
    }

    pub(crate) fn due(&mut self, at: Instant) {
        self.0.push(Mark::Due(at));
    }

    pub(crate) fn since(&mut self, at: Instant) {
        self.0.push(Mark::Since(at));
    }

    pub(crate) fn job(&mut self, job: &JobId) {
        self.bytes(job.as_str().as_bytes());
    }

    /// FNV-1a: enough for the few short texts of a model.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        self.value(bytes.iter().fold(0xcbf2_9ce4_8422_2325, step));
    }
}

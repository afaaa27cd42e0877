//! What a worker has to do with a job, by one assignment.

use bytes::Bytes;

use crate::id::{Epoch, Revision};

/// A job that the worker has to do with, by one assignment.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) grant: Revision,
    pub(super) epoch: Epoch,
    pub(super) born: Revision,
    /// As of when its payload is known.
    pub(super) payload_at: Revision,
    pub(super) stage: Stage,
}

#[derive(Clone, Debug)]
pub(super) enum Stage {
    /// Its `Add` waits for the consumer.
    Waiting,
    /// The consumer has it.
    Active,
    /// Its `Delete` waits for the consumer, or handles are out.
    Deleting(Then),
    /// Let go of here; the server is being told.
    Returning,
}

/// What follows when the handles to an assignment are gone (rule 7).
#[derive(Clone, Debug)]
pub(super) enum Then {
    /// The server is told.
    Release,
    /// The job is this worker's again already: that assignment begins.
    Begin(Box<Successor>), // rare, and every slot would have room for it
    /// It was this worker's again, and that is over too: the server is told of this grant. Not earlier, or
    /// another worker would get the job while handles are out here.
    HandBack(Revision),
}

/// An assignment that waits for the one before it to be let go of.
#[derive(Clone, Debug)]
pub(super) struct Successor {
    pub(super) grant: Revision,
    pub(super) born: Revision,
    pub(super) payload: Bytes,
    pub(super) payload_at: Revision,
}

impl Slot {
    /// The newest grant by which the server has given us the job, as far as is known.
    pub(super) fn newest(&self) -> Revision {
        match &self.stage {
            Stage::Deleting(Then::Begin(next)) => next.grant,
            Stage::Deleting(Then::HandBack(grant)) => *grant,
            Stage::Deleting(Then::Release) | Stage::Waiting | Stage::Active | Stage::Returning => self.grant,
        }
    }
}

//! What a worker's stream yields.

use std::fmt;
use std::sync::Arc;

use crate::error::Error;
use crate::id::{Epoch, JobId};
use crate::job::{Hold, Job};
use crate::message::{CloseReason, DeleteReason};

/// What happened to a worker's jobs.
///
/// Per job the stream yields one `Add`, then any number of `Update`s, then at most one `Delete`, strictly in
/// turn, whatever was lost, repeated or reordered underneath. The last event is one `Close`, after a `Delete`
/// for every job still held; then the stream ends.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// The job is this worker's. Start working on it, and stop at its `Delete`.
    Add(Job),
    /// The job is still this worker's, but not as it was: take the payload and the epoch from here. Sent when a master
    /// [updated](crate::Master::update) it (updates that nobody has seen yet become one, the last), and when a
    /// restart or failover of the server made the older epoch unsafe to rely on.
    Update(Job),
    /// Stop working on the job, then drop every handle to it: its [`Job`]s and this [`Deletion`]. That is the
    /// release; only then does the job go to another worker, or is it gone.
    Delete(Deletion),
    /// The worker holds nothing any more and the stream ends. To go on, make a new worker.
    Close(CloseReason),
    /// Something went wrong that the worker lives with. Nothing has to be done but to look at it: what
    /// concerns a job follows as events of its own.
    Error(Error),
}

/// The end of an assignment: stop, clean up, then drop it.
///
/// The job counts as held by this worker until this value and every [`Job`] of the assignment are dropped, or
/// the release timeout has passed.
pub struct Deletion {
    hold: Arc<Hold>,
    reason: DeleteReason,
}

impl Deletion {
    pub(crate) fn new(hold: Arc<Hold>, reason: DeleteReason) -> Self {
        Self { hold, reason }
    }

    /// Which job.
    pub fn id(&self) -> &JobId {
        &self.hold.job
    }

    /// The epoch of the assignment that ends.
    pub fn epoch(&self) -> Epoch {
        self.hold.epoch()
    }

    /// Why it ends.
    pub fn reason(&self) -> DeleteReason {
        self.reason
    }
}

impl fmt::Debug for Deletion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deletion")
            .field("id", self.id())
            .field("epoch", &self.epoch())
            .field("reason", &self.reason)
            .finish()
    }
}

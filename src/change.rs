//! What happens in a cluster, as a [`Watch`](crate::Watch) tells it.

use std::collections::BTreeSet;

use crate::id::{Epoch, JobId, Revision, WorkerId};

/// Something that happened in the cluster.
///
/// Changes come in the order of their revisions, each once and none left out. Where that is not possible, as at the
/// beginning, or when more was missed than the server remembers, there is [`Reset`](Self::Reset), then what
/// is there now, told as if it had just happened, in no order, then [`Synced`](Self::Synced). Whoever keeps a picture of
/// the cluster forgets it at `Reset`, and has it right again at `Synced`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// Forget everything: what follows, up to `Synced`, is what there is.
    Reset,
    /// All is told up to this revision.
    Synced {
        /// Which revision: to go on from it later, give it to [`WatchOptions::since`](crate::WatchOptions::since).
        revision: Revision,
    },
    /// A job was added. It waits for a worker until it is assigned.
    JobAdded {
        /// When.
        revision: Revision,
        /// Which job.
        job: JobId,
    },
    /// A job was given to a worker.
    JobAssigned {
        /// When.
        revision: Revision,
        /// Which job.
        job: JobId,
        /// To whom.
        worker: WorkerId,
        /// By which epoch. After a failover it is higher for all assignments, and a `Reset` tells so.
        epoch: Epoch,
    },
    /// A job has another payload.
    JobUpdated {
        /// When.
        revision: Revision,
        /// Which job.
        job: JobId,
    },
    /// A job is to go to another worker, for balance. Its worker still holds it.
    JobMoving {
        /// When.
        revision: Revision,
        /// Which job.
        job: JobId,
    },
    /// A job's worker has let go of it, or is dead. If the job was deleted it is gone, otherwise it waits until it is
    /// assigned.
    JobReleased {
        /// When.
        revision: Revision,
        /// Which job.
        job: JobId,
        /// Who held it.
        worker: WorkerId,
    },
    /// A job was deleted. If a worker holds it, that one is told, and the job is gone when it is released.
    JobDeleted {
        /// When.
        revision: Revision,
        /// Which job.
        job: JobId,
    },
    /// A job was set aside, as it was the end of one worker after the other.
    JobQuarantined {
        /// When.
        revision: Revision,
        /// Which job.
        job: JobId,
    },
    /// A job that was set aside has another chance. It waits for a worker until it is assigned.
    JobRequeued {
        /// When.
        revision: Revision,
        /// Which job.
        job: JobId,
    },
    /// A worker joined.
    WorkerJoined {
        /// When.
        revision: Revision,
        /// Which worker.
        worker: WorkerId,
    },
    /// A worker gives up its jobs, to stay or to go, and is given no new ones.
    WorkerDraining {
        /// When.
        revision: Revision,
        /// Which worker.
        worker: WorkerId,
    },
    /// A worker that was draining takes jobs again.
    WorkerResumed {
        /// When.
        revision: Revision,
        /// Which worker.
        worker: WorkerId,
    },
    /// A worker left by itself.
    WorkerLeft {
        /// When.
        revision: Revision,
        /// Which worker.
        worker: WorkerId,
    },
    /// A worker's lock had ended: it is dead, and its jobs are released one by one.
    WorkerExpired {
        /// When.
        revision: Revision,
        /// Which worker.
        worker: WorkerId,
    },
}

/// Which kind of [`Change`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each is the variant of `Change` of the same name")]
pub enum ChangeKind {
    Reset,
    Synced,
    JobAdded,
    JobAssigned,
    JobUpdated,
    JobMoving,
    JobReleased,
    JobDeleted,
    JobQuarantined,
    JobRequeued,
    WorkerJoined,
    WorkerDraining,
    WorkerResumed,
    WorkerLeft,
    WorkerExpired,
}

impl Change {
    /// Which kind it is.
    pub fn kind(&self) -> ChangeKind {
        match self {
            Self::Reset => ChangeKind::Reset,
            Self::Synced { .. } => ChangeKind::Synced,
            Self::JobAdded { .. } => ChangeKind::JobAdded,
            Self::JobAssigned { .. } => ChangeKind::JobAssigned,
            Self::JobUpdated { .. } => ChangeKind::JobUpdated,
            Self::JobMoving { .. } => ChangeKind::JobMoving,
            Self::JobReleased { .. } => ChangeKind::JobReleased,
            Self::JobDeleted { .. } => ChangeKind::JobDeleted,
            Self::JobQuarantined { .. } => ChangeKind::JobQuarantined,
            Self::JobRequeued { .. } => ChangeKind::JobRequeued,
            Self::WorkerJoined { .. } => ChangeKind::WorkerJoined,
            Self::WorkerDraining { .. } => ChangeKind::WorkerDraining,
            Self::WorkerResumed { .. } => ChangeKind::WorkerResumed,
            Self::WorkerLeft { .. } => ChangeKind::WorkerLeft,
            Self::WorkerExpired { .. } => ChangeKind::WorkerExpired,
        }
    }

    /// When it happened; `None` for `Reset`. Between `Reset` and `Synced` it is when the state began that is told of, as
    /// far as the server knows.
    pub fn revision(&self) -> Option<Revision> {
        match self {
            Self::Reset => None,
            Self::Synced { revision }
            | Self::JobAdded { revision, .. }
            | Self::JobAssigned { revision, .. }
            | Self::JobUpdated { revision, .. }
            | Self::JobMoving { revision, .. }
            | Self::JobReleased { revision, .. }
            | Self::JobDeleted { revision, .. }
            | Self::JobQuarantined { revision, .. }
            | Self::JobRequeued { revision, .. }
            | Self::WorkerJoined { revision, .. }
            | Self::WorkerDraining { revision, .. }
            | Self::WorkerResumed { revision, .. }
            | Self::WorkerLeft { revision, .. }
            | Self::WorkerExpired { revision, .. } => Some(*revision),
        }
    }

    /// The job that it is about, if it is about one.
    pub fn job(&self) -> Option<&JobId> {
        match self {
            Self::JobAdded { job, .. }
            | Self::JobAssigned { job, .. }
            | Self::JobUpdated { job, .. }
            | Self::JobMoving { job, .. }
            | Self::JobReleased { job, .. }
            | Self::JobDeleted { job, .. }
            | Self::JobQuarantined { job, .. }
            | Self::JobRequeued { job, .. } => Some(job),
            Self::Reset
            | Self::Synced { .. }
            | Self::WorkerJoined { .. }
            | Self::WorkerDraining { .. }
            | Self::WorkerResumed { .. }
            | Self::WorkerLeft { .. }
            | Self::WorkerExpired { .. } => None,
        }
    }
}

/// Which changes a watcher wants to hear of. `Reset` and `Synced` it hears of always.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    /// `None`: of every kind.
    pub(crate) kinds: Option<BTreeSet<ChangeKind>>,
    /// What the ids of jobs begin with. What is about workers it does not concern.
    pub(crate) prefix: String,
}

impl Filter {
    pub(crate) fn passes(&self, change: &Change) -> bool {
        matches!(change, Change::Reset | Change::Synced { .. })
            || (self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&change.kind()))
                && change.job().is_none_or(|job| job.as_str().starts_with(&self.prefix)))
    }
}

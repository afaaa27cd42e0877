//! A picture of the cluster in memory, kept by what a watch tells.

#[cfg(test)]
mod truth_test;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use futures::{FutureExt, StreamExt};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Watch;
use crate::change::Change;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{JobId, Revision, WorkerId};
use crate::redis::store::JobState;

/// A picture of a cluster in memory: which jobs and workers there are and who holds what, as of one revision, kept up
/// to date by push. Cheap to clone; it ends with its last clone.
///
/// It is behind the server by as long as a message takes; while the server cannot be reached, by so long. For
/// what must not be done twice ask the [`Epoch`](crate::Epoch), not the mirror.
#[derive(Clone)]
pub struct Mirror {
    shared: Arc<RwLock<Snapshot>>,
    revision: watch::Receiver<Revision>,
    _driver: Arc<DropGuard>,
}

/// Jobs and workers as of one revision.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    revision: Revision,
    jobs: HashMap<JobId, JobState>,
    workers: BTreeMap<WorkerId, bool>,
    /// Deleted jobs that are held still, and have been added again.
    again: HashSet<JobId>,
}

impl Snapshot {
    /// As of when it is.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The jobs, and where each is; in no order.
    pub fn jobs(&self) -> impl ExactSizeIterator<Item = (&JobId, JobState)> {
        self.jobs.iter().map(|(id, state)| (id, *state))
    }

    /// Where a job is; `None` if there is no such job.
    pub fn job(&self, id: &JobId) -> Option<JobState> {
        self.jobs.get(id).copied()
    }

    /// Who holds a job, also if it is to let go of it, or is dead and its jobs are not handed on yet.
    pub fn owner_of(&self, id: &JobId) -> Option<WorkerId> {
        self.jobs.get(id).and_then(owner)
    }

    /// The workers by number, and whether each is given jobs.
    pub fn workers(&self) -> impl ExactSizeIterator<Item = (WorkerId, bool)> {
        self.workers.iter().map(|(worker, takes)| (*worker, *takes))
    }

    fn apply(&mut self, change: Change) {
        self.revision = self.revision.max(change.revision().unwrap_or_default());
        match change {
            Change::Reset | Change::Synced { .. } | Change::JobUpdated { .. } => {}
            Change::JobAdded { job, .. } => match self.jobs.get(&job) {
                Some(JobState::Releasing { .. }) => {
                    self.again.insert(job);
                }
                _ => {
                    self.jobs.insert(job, JobState::Pending);
                }
            },
            Change::JobAssigned { job, worker, epoch, .. } => {
                self.again.remove(&job);
                self.jobs.insert(job, JobState::Assigned { worker, epoch });
            }
            Change::JobMoving { job, .. } => {
                if let Some(state) = self.jobs.get_mut(&job)
                    && let JobState::Assigned { worker, epoch } = *state
                {
                    *state = JobState::Moving { worker, epoch };
                }
            }
            Change::JobReleased { job, .. } => match self.jobs.get(&job) {
                Some(JobState::Releasing { .. }) if !self.again.remove(&job) => {
                    self.jobs.remove(&job);
                }
                Some(_) => {
                    self.jobs.insert(job, JobState::Pending);
                }
                None => {}
            },
            Change::JobDeleted { job, .. } => {
                self.again.remove(&job);
                let Some(state) = self.jobs.get_mut(&job) else { return };
                match *state {
                    JobState::Assigned { worker, epoch } | JobState::Moving { worker, epoch } => {
                        *state = JobState::Releasing { worker, epoch };
                    }
                    JobState::Releasing { .. } => {}
                    JobState::Pending | JobState::Quarantined => {
                        self.jobs.remove(&job);
                    }
                }
            }
            Change::JobQuarantined { job, .. } => {
                self.jobs.insert(job, JobState::Quarantined);
            }
            Change::JobRequeued { job, .. } => {
                self.jobs.insert(job, JobState::Pending);
            }
            Change::WorkerJoined { worker, .. } | Change::WorkerResumed { worker, .. } => {
                self.workers.insert(worker, true);
            }
            Change::WorkerDraining { worker, .. } => {
                self.workers.insert(worker, false);
            }
            Change::WorkerLeft { worker, .. } | Change::WorkerExpired { worker, .. } => {
                self.workers.remove(&worker);
            }
        }
    }
}

fn owner(state: &JobState) -> Option<WorkerId> {
    match state {
        JobState::Assigned { worker, .. }
        | JobState::Releasing { worker, .. }
        | JobState::Moving { worker, .. } => Some(*worker),
        JobState::Pending | JobState::Quarantined => None,
    }
}

impl Mirror {
    /// Begins with a watch of everything, from the beginning; returns when it is complete.
    pub(crate) async fn start(watch: Watch) -> Result<Self> {
        let shared = Arc::new(RwLock::new(Snapshot::default()));
        let (sender, mut revision) = watch::channel(Revision::default());
        let stop = CancellationToken::new();
        // Ends with the last clone.
        tokio::spawn(keep(watch, shared.clone(), sender, stop.clone()));
        let driver = Arc::new(stop.drop_guard());
        let complete = revision.wait_for(|revision| *revision > Revision::default()).await.is_ok();
        if !complete {
            return Err(Error::new(
                ErrorKind::Closed,
                "the mirror ended before it was complete; begin a new one",
            ));
        }
        Ok(Self { shared, revision, _driver: driver })
    }

    /// Who holds a job now, also if it is to let go of it, or is dead and its jobs are not handed on yet
    /// ([`workers`](Snapshot::workers) has no dead one); from memory.
    pub fn owner_of(&self, id: &JobId) -> Option<WorkerId> {
        self.lock().owner_of(id)
    }

    /// Where a job is now; from memory. `None` if there is no such job.
    pub fn job(&self, id: &JobId) -> Option<JobState> {
        self.lock().job(id)
    }

    /// As of when the picture is.
    pub fn revision(&self) -> Revision {
        self.lock().revision
    }

    /// Looks at everything as of one revision. Be quick: the mirror is not kept up meanwhile.
    pub fn read<T>(&self, look: impl FnOnce(&Snapshot) -> T) -> T {
        look(&self.lock())
    }

    /// Resolves when the picture is as of that revision or later, such as that of the [`Epoch`](crate::Epoch) of an `Add`.
    ///
    /// A revision that belongs to no change is reached with the next change only: after a restart of the server epochs
    /// are lifted, and an order that changes nothing takes one as well. So wait with a timeout for that of a
    /// [`Stats`](crate::Stats).
    ///
    /// # Cancel safety
    ///
    /// May be dropped and called again.
    pub async fn reaches(&self, revision: Revision) {
        let mut receiver = self.revision.clone();
        let _ = receiver.wait_for(|at| *at >= revision).await;
    }

    fn lock(&self) -> RwLockReadGuard<'_, Snapshot> {
        self.shared.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// While what there is is told anew, the old picture stays.
async fn keep(
    mut watch: Watch,
    shared: Arc<RwLock<Snapshot>>,
    revision: watch::Sender<Revision>,
    stop: CancellationToken,
) {
    let mut next: Option<Snapshot> = Some(Snapshot::default());
    loop {
        let first = tokio::select! {
            () = stop.cancelled() => return,
            change = watch.next() => change,
        };
        let Some(first) = first else { return };
        // All that is there goes in at once, as far as it is quick.
        let mut changes = vec![first];
        while changes.len() < 256
            && let Some(Some(change)) = watch.next().now_or_never()
        {
            changes.push(change);
        }
        let mut current = shared.write().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            match (&change, &mut next) {
                (Change::Reset, _) => next = Some(Snapshot::default()),
                (Change::Synced { revision }, Some(_)) => {
                    *current = next.take().unwrap_or_default();
                    current.revision = *revision;
                }
                (_, Some(next)) => next.apply(change),
                (_, None) => current.apply(change),
            }
        }
        let at = current.revision;
        drop(current);
        revision.send_replace(at);
    }
}

impl fmt::Debug for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let snapshot = self.lock();
        f.debug_struct("Mirror")
            .field("revision", &snapshot.revision)
            .field("jobs", &snapshot.jobs.len())
            .field("workers", &snapshot.workers.len())
            .finish()
    }
}

//! What a handler is given: its job as it is now, and whether, why and until when it has to stop.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use crate::error::Result;
use crate::id::{Epoch, JobId};
use crate::job::Job;
use crate::message::DeleteReason;

/// One assignment in the hands of a handler. It is gone, and the job released, with the handler's end: whoever else
/// looks at it has a `Weak`.
pub(super) struct Assignment {
    id: JobId,
    state: Mutex<State>,
    /// The job, or when the handler has to end, is another.
    changed: Notify,
    /// Cancelled when the handler is to stop; by then the state says why.
    token: CancellationToken,
}

struct State {
    job: Job,
    /// How many updates `job` has seen.
    version: u64,
    stop: Option<Stop>,
    /// The handler asked to delete the job.
    deleted: bool,
}

#[derive(Clone, Copy)]
struct Stop {
    reason: DeleteReason,
    deadline: Instant,
}

impl Assignment {
    pub(super) fn new(job: Job) -> Arc<Self> {
        let id = job.id().clone();
        let state = State { job, version: 0, stop: None, deleted: false };
        let token = CancellationToken::new();
        Arc::new(Self { id, state: Mutex::new(state), changed: Notify::new(), token })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change of the state is one assignment to a field: there is no half of one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn id(&self) -> &JobId {
        &self.id
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.lock().job.epoch()
    }

    pub(super) fn update(&self, job: Job) {
        let mut state = self.lock();
        state.job = job;
        state.version += 1;
        drop(state);
        self.changed.notify_waiters();
    }

    /// The handler is to stop. May be said again: the nearer deadline counts, with its reason.
    pub(super) fn stop(&self, reason: DeleteReason, deadline: Instant) {
        let mut state = self.lock();
        if state.stop.is_none_or(|stop| deadline < stop.deadline) {
            state.stop = Some(Stop { reason, deadline });
        }
        drop(state);
        self.changed.notify_waiters();
        self.token.cancel();
    }

    pub(super) async fn stopped(&self) {
        self.token.cancelled().await;
    }

    /// Whether the job is to be let go of. The job itself may know a moment before its `Delete` was taken from the stream.
    pub(super) fn is_ending(&self) -> bool {
        let state = self.lock();
        state.stop.is_some() || state.job.cancellation_token().is_cancelled()
    }

    pub(super) fn is_deleted(&self) -> bool {
        self.lock().deleted
    }

    fn deadline(&self) -> Option<Instant> {
        self.lock().stop.map(|stop| stop.deadline)
    }

    /// Resolves when the handler should have ended and has not.
    pub(super) async fn overdue(&self) {
        loop {
            // Hears of every change after this line.
            let changed = self.changed.notified();
            match self.deadline() {
                None => changed.await,
                Some(deadline) => tokio::select! {
                    () = sleep_until(deadline.into()) => return,
                    () = changed => {}
                },
            }
        }
    }
}

/// A job in the hands of a handler of [`serve`](crate::Worker::serve): the job, and when to stop.
///
/// Cloning copies a pointer, for what the handler spawns. Like a [`Job`], **every clone is a handle**: the job is
/// released when the handler has ended and every clone, and every `Job` taken from one, is dropped.
pub struct Task {
    assignment: Arc<Assignment>,
    /// The version that this handle knows.
    seen: AtomicU64,
}

impl Task {
    pub(super) fn new(assignment: Arc<Assignment>) -> Self {
        let seen = assignment.lock().version.into();
        Self { assignment, seen }
    }

    /// Which job.
    pub fn id(&self) -> &JobId {
        self.assignment.id()
    }

    /// The fencing number of this assignment, now: store it with what the job writes, and refuse a smaller one
    /// there. It can grow while the job is held.
    pub fn epoch(&self) -> Epoch {
        self.assignment.epoch()
    }

    /// The newest payload as the type that the master added; what may differ is told at [`Job::payload`]. To borrow from it,
    /// take [`job`](Self::job) and ask that.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`](crate::ErrorKind::Decode) if the payload is not a `T`. A handler that returns it is started again, in
    /// vain until the payload is another: [`delete`](Self::delete) a job that can never be done.
    pub fn payload<T: DeserializeOwned>(&self) -> Result<T> {
        self.job().payload()
    }

    /// The newest payload as it was added: MessagePack, not looked at.
    pub fn payload_bytes(&self) -> Bytes {
        self.assignment.lock().job.payload_bytes().clone()
    }

    /// The job as it is now: one more handle to it.
    pub fn job(&self) -> Job {
        self.assignment.lock().job.clone()
    }

    /// Asks the cluster to delete the job: how a job is done for good. After it, the handler may return and is not started
    /// again; if it goes on, [`stopped`](Self::stopped) follows. `false` if this life of the job was over already.
    ///
    /// # Errors
    ///
    /// Those of [`Job::delete`]. Nothing has changed then, as far as is known: a handler that returns is started again.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the job may or may not be deleted; a handler that returns before it is told to stop is
    /// started again.
    pub async fn delete(&self) -> Result<bool> {
        let done = self.job().delete().await?;
        self.assignment.lock().deleted = true;
        Ok(done)
    }

    /// Resolves when the handler is to stop: clean up and return, before the [`deadline`](Self::deadline). At once if that is so
    /// already.
    ///
    /// # Cancel safety
    ///
    /// May be dropped and called again, as in a `select!` in a loop.
    pub async fn stopped(&self) {
        self.assignment.stopped().await;
    }

    /// Whether the handler is to stop.
    pub fn is_stopped(&self) -> bool {
        self.assignment.token.is_cancelled()
    }

    /// A token that is cancelled when [`stopped`](Self::stopped) resolves, for what takes one. Each call makes a new one:
    /// cancelling it by hand concerns whoever has it, and changes nothing in the cluster.
    pub fn cancellation_token(&self) -> CancellationToken {
        self.assignment.token.child_token()
    }

    /// Until when the handler must have ended, once it is to stop; `None` while the job is held. Then its future
    /// is dropped where it stands.
    ///
    /// Nine tenths of the [release timeout](crate::ClusterBuilder::release_timeout) after the `Delete`, or, after a lost lock, of the
    /// [fence margin](crate::ClusterBuilder::fence_margin): the last tenth is for the dropping, as another worker may begin when it is over. It can
    /// come nearer, when the lock is lost while the handler stops.
    pub fn deadline(&self) -> Option<Instant> {
        self.assignment.deadline()
    }

    /// Why the handler is to stop; `None` while the job is held.
    pub fn reason(&self) -> Option<DeleteReason> {
        self.assignment.lock().stop.map(|stop| stop.reason)
    }

    /// Resolves with the job as it is now when it was changed by an [`Event::Update`](crate::Event::Update) since this handle was made or
    /// this last resolved. Several changes become one. Never resolves if none comes: select it with
    /// [`stopped`](Self::stopped).
    ///
    /// # Cancel safety
    ///
    /// May be dropped and called again; no change is lost. A clone has a count of its own and hears of each change, too.
    pub async fn updated(&self) -> Job {
        loop {
            // Hears of every change after this line.
            let changed = self.assignment.changed.notified();
            if let Some(job) = self.take_update() {
                return job;
            }
            changed.await;
        }
    }

    fn take_update(&self) -> Option<Job> {
        let state = self.assignment.lock();
        let news = self.seen.swap(state.version, Ordering::Relaxed) < state.version;
        news.then(|| state.job.clone())
    }
}

impl Clone for Task {
    fn clone(&self) -> Self {
        let seen = self.seen.load(Ordering::Relaxed).into();
        Self { assignment: self.assignment.clone(), seen }
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("id", self.id())
            .field("epoch", &self.epoch())
            .field("reason", &self.reason())
            .finish_non_exhaustive()
    }
}

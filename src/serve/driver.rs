//! From a worker's events to its handlers, and from one worker to the next.
//!
//! ```text
//!  joining --worker--> following --Close(LockExpired, ClusterReset)--> settling --all handlers ended--> joining
//!     |                   |                                               |
//!     +---- shutdown -----+-- terminate; Close(Terminated) --> settling --+--> done
//! ```
//!
//! A job has one handler in this process at most, whichever of its workers the job came by: a job that comes back
//! while its handler of before is still at it waits for that one's end.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::BoxFuture;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, sleep_until};

use super::handler::{Context, supervise};
use super::task::Assignment;
use crate::cluster::Shared;
use crate::error::{ErrorKind, Result};
use crate::event::Event;
use crate::id::{JobId, WorkerId};
use crate::job::Job;
use crate::message::{CloseReason, DeleteReason};
use crate::shell::backoff::Backoff;
use crate::worker::{Worker, WorkerOptions};

/// A worker that lived this long was well: the next one that is lost is replaced as fast as the first.
const STEADY: Duration = Duration::from_secs(10);

/// How long after its deadline a handler is still waited for: what it takes to drop a future on a busy machine. One
/// that blocks its thread is not over then either, and is left behind.
const STRAGGLE: Duration = Duration::from_secs(1);

pub(super) struct Driver {
    cluster: Arc<Shared>,
    options: WorkerOptions,
    context: Arc<Context>,
    shutdown: BoxFuture<'static, ()>,
    /// The shutdown has resolved: it is not to be polled again, and no worker is to be made.
    leaving: bool,
    slots: HashMap<JobId, Slot>,
    /// The supervisors, one for each slot. They end with this.
    handlers: JoinSet<JobId>,
    joins: Backoff,
}

/// What is known of a job: its handler, and what is to begin when that has ended.
struct Slot {
    /// Holds nothing: the job is released when its handler is over, whether or not that was noticed here.
    current: Weak<Assignment>,
    next: Option<(WorkerId, Job)>,
}

impl Driver {
    pub(super) fn new(
        cluster: Arc<Shared>,
        options: WorkerOptions,
        context: Context,
        shutdown: BoxFuture<'static, ()>,
    ) -> Self {
        Self {
            cluster,
            options,
            context: Arc::new(context),
            shutdown,
            leaving: false,
            slots: HashMap::new(),
            handlers: JoinSet::new(),
            joins: Backoff::new(),
        }
    }

    pub(super) async fn run(mut self, mut worker: Option<Worker>) -> Result<()> {
        loop {
            let worker = match worker.take() {
                Some(worker) => worker,
                None => match self.join().await? {
                    Some(worker) => worker,
                    None => return Ok(()),
                },
            };
            let joined = Instant::now();
            self.follow(worker).await;
            self.settle().await;
            if joined.elapsed() >= STEADY {
                self.joins.reset();
            }
            self.pause().await;
        }
    }

    /// A worker; `None` if it is time to go before there is one.
    async fn join(&mut self) -> Result<Option<Worker>> {
        while !self.leaving {
            // Not cut short by a shutdown: a worker that joined unseen would be given jobs until its lock ends.
            let joining = Box::pin(Worker::start(self.cluster.clone(), self.options.clone()));
            match self.meanwhile(joining).await {
                Ok(worker) => return Ok(Some(worker)),
                Err(error) if is_hopeless(error.kind()) => return Err(error),
                Err(error) => self.context.report(error.note("joining is tried again")),
            }
            self.pause().await;
        }
        Ok(None)
    }

    /// Starts and stops handlers as the worker's events say, to the end of the stream.
    async fn follow(&mut self, mut worker: Worker) {
        let id = worker.id();
        if self.leaving {
            drop(worker.terminate());
        }
        loop {
            tokio::select! {
                event = worker.next() => match event {
                    Some(event) => self.handle_event(id, event),
                    None => return,
                },
                Some(ended) = self.handlers.join_next() => self.handle_ended(ended),
                () = &mut self.shutdown, if !self.leaving => {
                    tracing::info!(worker = %id, "shutting down: the handlers are told to stop");
                    self.leaving = true;
                    drop(worker.terminate()); // begun by the call
                }
            }
        }
    }

    /// The worker is gone: waits until its handlers are, too. By their deadline they are, if they can be dropped.
    async fn settle(&mut self) {
        self.stop_all(DeleteReason::LockExpired);
        let patience = Instant::now() + self.time_to_stop(DeleteReason::LockExpired) + STRAGGLE;
        let mut patience = pin!(sleep_until(patience.into()));
        while !self.handlers.is_empty() {
            tokio::select! {
                Some(ended) = self.handlers.join_next() => self.handle_ended(ended),
                () = &mut self.shutdown, if !self.leaving => self.leaving = true,
                () = &mut patience => {
                    let left = self.handlers.len();
                    tracing::warn!(left, "handlers block their threads and cannot be aborted; they are left behind");
                    return;
                }
            }
        }
    }

    /// Before the next try; not if it is time to go.
    async fn pause(&mut self) {
        if !self.leaving {
            tokio::select! {
                () = sleep(self.joins.next_delay()) => {}
                () = &mut self.shutdown => self.leaving = true,
            }
        }
    }

    /// Waits for something, and does what is due meanwhile.
    async fn meanwhile<F: Future + Unpin>(&mut self, mut awaited: F) -> F::Output {
        loop {
            tokio::select! {
                output = &mut awaited => return output,
                Some(ended) = self.handlers.join_next() => self.handle_ended(ended),
                () = &mut self.shutdown, if !self.leaving => self.leaving = true,
            }
        }
    }

    fn handle_event(&mut self, worker: WorkerId, event: Event) {
        match event {
            Event::Add(job) => match self.slots.get_mut(job.id()) {
                Some(slot) => {
                    tracing::debug!(%worker, job = %job.id(), "the job is back before its handler has ended, and waits for that");
                    slot.next = Some((worker, job));
                }
                None => self.begin(worker, job),
            },
            Event::Update(job) => match self.slots.get_mut(job.id()) {
                Some(Slot { next: Some((_, next)), .. }) => *next = job,
                Some(slot) => drop(slot.current.upgrade().map(|current| current.update(job))),
                None => {} // it was taken out of the stream before this serves
            },
            // The deletion is dropped: what is left of the assignment is in its handler's hands.
            Event::Delete(deletion) => {
                let deadline = Instant::now() + self.time_to_stop(deletion.reason());
                match self.slots.get_mut(deletion.id()) {
                    Some(slot) if slot.next.is_some() => slot.next = None,
                    Some(slot) => slot.stop(deletion.reason(), deadline),
                    None => {}
                }
            }
            Event::Close(CloseReason::Terminated) => tracing::info!(%worker, "the worker has left"),
            Event::Close(CloseReason::Evicted) => {
                tracing::warn!(%worker, "the worker was told to go, and has gone; it is not replaced");
                self.leaving = true;
            }
            Event::Close(reason) => {
                tracing::warn!(%worker, ?reason, "the worker lost its lock; its handlers are to stop at once");
                // Those that were stopping already have less time than they thought.
                self.stop_all(match reason {
                    CloseReason::ClusterReset => DeleteReason::ClusterReset,
                    CloseReason::LockExpired | CloseReason::Terminated | CloseReason::Evicted => {
                        DeleteReason::LockExpired
                    }
                });
            }
            Event::Error(error) => self.context.report(error),
        }
    }

    fn begin(&mut self, worker: WorkerId, job: Job) {
        let id = job.id().clone();
        let assignment = Assignment::new(job);
        self.slots.insert(id, Slot { current: Arc::downgrade(&assignment), next: None });
        self.handlers.spawn(supervise(self.context.clone(), worker, assignment));
    }

    fn handle_ended(&mut self, ended: Result<JobId, JoinError>) {
        // A supervisor catches what panics, and is aborted with all of this only.
        let Ok(id) = ended else { return };
        if let Some(Slot { next: Some((worker, job)), .. }) = self.slots.remove(&id) {
            self.begin(worker, job);
        }
    }

    fn stop_all(&mut self, reason: DeleteReason) {
        let deadline = Instant::now() + self.time_to_stop(reason);
        for slot in self.slots.values_mut() {
            slot.next = None;
            slot.stop(reason, deadline);
        }
    }

    /// How long a handler has to end: a tenth less than it takes until another may begin, for the dropping.
    fn time_to_stop(&self, reason: DeleteReason) -> Duration {
        let settings = &self.cluster.settings;
        let until_another = match reason {
            DeleteReason::LockExpired | DeleteReason::ClusterReset => settings.fence_margin(),
            DeleteReason::Removed
            | DeleteReason::Rebalanced
            | DeleteReason::Terminated
            | DeleteReason::Drained
            | DeleteReason::Evicted => settings.release_timeout,
        };
        until_another * 9 / 10
    }
}

impl Slot {
    fn stop(&self, reason: DeleteReason, deadline: Instant) {
        if let Some(current) = self.current.upgrade() {
            current.stop(reason, deadline);
        }
    }
}

/// What no waiting mends.
fn is_hopeless(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::InvalidSetting | ErrorKind::Incompatible | ErrorKind::Denied)
}

//! A worker: the stream of its jobs, and the driver behind it.

mod desk;
mod driver;
mod options;

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::Stream;
use futures::stream::FusedStream;
use serde::{Deserialize, Serialize};
use tracing::Instrument;

use crate::cluster::Shared;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::id::WorkerId;
use crate::redis::store::{Ended, Entry, Member, Refusal};
use crate::redis::subscriber::Listener;
use crate::serve::{Serve, Task};
use crate::shell::link::Link;
use desk::Desk;
use driver::Driver;
pub use options::{NameConflict, WorkerOptions};

/// How long a reserved number waits for its join.
const RESERVATION: Duration = Duration::from_secs(30);

/// A member of the cluster that is given jobs: a stream of [`Event`]s.
///
/// The worker lives by itself, in a task of its own: heartbeats go on and jobs are received whether or not the
/// stream is polled. What waits for a slow consumer is at most one pending change a job; a job that came and
/// went unseen leaves no trace.
///
/// Dropping the worker is [`terminate`](Self::terminate) in the background, as far as that is possible: events that nobody has seen
/// are dropped, and each job is released when its last handle is dropped.
///
/// # Guarantees
///
/// While a job is held here, no other worker of the cluster holds it, as long as its handlers stop within the
/// [fence margin](crate::ClusterBuilder::fence_margin) after their `Delete` and within the
/// [release timeout](crate::ClusterBuilder::release_timeout). A process that is paused altogether cannot notice in time: compare
/// [`Job::epoch`](crate::Job::epoch) where the results are stored.
#[must_use = "a worker that is dropped gives its jobs back"]
pub struct Worker {
    desk: Arc<Desk>,
    id: WorkerId,
    /// Where to join again, and how.
    cluster: Arc<Shared>,
    options: WorkerOptions,
}

/// What a worker says of itself to whoever asks for the cluster's [workers](crate::Master::workers).
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Info {
    #[serde(default)]
    pub(crate) host: String,
    #[serde(default)]
    pub(crate) pid: u32,
    #[serde(default)]
    pub(crate) version: String,
    #[serde(default)]
    pub(crate) name: Option<String>,
}

impl Info {
    fn of_this_process(name: Option<String>) -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
            .ok()
            .or_else(|| std::env::var("HOSTNAME").ok())
            .or_else(|| std::env::var("COMPUTERNAME").ok())
            .unwrap_or_default();
        Self {
            host: host.trim().to_owned(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            name,
        }
    }
}

impl Worker {
    pub(crate) async fn start(cluster: Arc<Shared>, options: WorkerOptions) -> Result<Self> {
        options.check()?;
        let Reserved { member, run_id } = reserve(&cluster, &options).await?;
        // Subscribed and confirmed before the join, so that no frame is sent that nobody hears.
        let link = Link::start(&cluster, run_id, Listener::Worker(member.worker)).await?;
        let entry = Entry {
            ttl: cluster.settings.lock_ttl,
            terms: options.terms(),
            name: options.name.clone().map(|name| (name, options.grace)),
            usurp: options.name_conflict == NameConflict::TakeOver,
        };
        let sent = Instant::now();
        let joined = match cluster.store.join(&member, &entry).await {
            Ok(Ok(joined)) => joined,
            Ok(Err(refusal)) => {
                link.close().await;
                // The number is not needed; if this is not heard, it lapses by itself.
                let _ = cluster.store.leave(&member).await;
                return Err(match refusal {
                    Refusal::NameTaken(remaining) => name_taken(&options, remaining),
                    Refusal::Ended(_) | Refusal::Full => Error::new(
                        ErrorKind::Closed,
                        "the worker's number lapsed before it could join; call worker() again",
                    ),
                });
            }
            Err(error) => {
                link.close().await;
                return Err(error);
            }
        };
        let span = tracing::info_span!("worker", cluster = cluster.settings.id, worker = %member.worker);
        tracing::info!(parent: &span, waiting = joined.pending, name = options.name, "joined");
        let id = member.worker;
        let (desk, dropped) = Desk::new(&cluster, entry.terms, options.fence, sent);
        let driver = Driver::new(cluster.clone(), member, link, desk.clone(), dropped, joined, options.fence);
        // Ends by itself when the worker has left or lost its lock, which dropping the worker sets off.
        tokio::spawn(driver.run().instrument(span));
        Ok(Self { desk, id, cluster, options })
    }

    /// The worker's number.
    pub fn id(&self) -> WorkerId {
        self.id
    }

    /// Leaves the cluster in order: no new job, a [`Delete`](Event::Delete) for each one held, each goes on to another
    /// worker when its handles are dropped (or the release timeout has passed), then [`Close`](Event::Close) and the end
    /// of the stream.
    ///
    /// Begins at once, whether or not the returned future is awaited. The future resolves when the worker has
    /// left, so **keep polling the stream**: a job whose `Delete` was not taken out of it counts as held.
    ///
    /// A server that is away is not waited for without bound: a worker that cannot say that it leaves closes with
    /// [`LockExpired`](crate::CloseReason::LockExpired), at the latest one [`lock_ttl`](crate::ClusterBuilder::lock_ttl) after the
    /// call, or one [release timeout](crate::ClusterBuilder::release_timeout) if that is longer and a
    /// [lenient](crate::Fence::Lenient) worker's handles are out for so long. Its jobs go to others once its lock has ended.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing; call again to wait again.
    pub fn terminate(&self) -> impl Future<Output = ()> + Send + 'static {
        self.desk.terminate()
    }

    /// Gives up its jobs and stays: no new job, a [`Delete`](Event::Delete) for each one held
    /// ([`Drained`](crate::DeleteReason::Drained)), each goes on to another worker when its handles are dropped (or the
    /// release timeout has passed). Where no other worker has room, jobs wait.
    ///
    /// Begins at once, whether or not the returned future is awaited. The future resolves when the worker
    /// holds nothing, or is [resumed](Self::resume), or has ended; **keep polling the stream** until then.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing; call again to wait again.
    pub fn drain(&self) -> impl Future<Output = ()> + Send + 'static {
        self.desk.drain()
    }

    /// Ends a [drain](Self::drain): the worker is given jobs again. One that a master has drained goes on only when a
    /// master [resumes](crate::Master::resume) it.
    pub fn resume(&self) {
        self.desk.resume();
    }

    /// Changes how many jobs the worker holds at most; `None`: any number. The cluster knows a round trip later.
    ///
    /// Jobs that are held above a smaller capacity are given to workers with room (by rebalancing, if that is on).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidSetting`] for zero.
    pub fn set_capacity(&self, jobs: Option<u32>) -> Result<()> {
        self.desk.set_terms(|terms| terms.capacity = jobs)
    }

    /// Changes the worker's [weight](WorkerOptions::weight). The cluster knows a round trip later.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidSetting`] outside of 1 to 1,000.
    pub fn set_weight(&self, weight: u32) -> Result<()> {
        self.desk.set_terms(|terms| terms.weight = weight)
    }

    /// Runs an async function for each job instead of giving out events: the easy way to use a worker. As
    /// [`Cluster::serve`](crate::Cluster::serve), which see; this worker is the first to be served, and those that follow a lost one
    /// have other numbers.
    ///
    /// Jobs that were taken out of the stream before are not given to the handler.
    pub fn serve<F, Fut, E>(self, handler: F) -> Serve
    where
        F: Fn(Task) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        Serve::new(self.cluster.clone(), self.options.clone(), Some(self), handler)
    }

    /// A handle to steer the worker from another task, while this one is borrowed by its stream.
    pub fn handle(&self) -> WorkerHandle {
        WorkerHandle { desk: self.desk.clone(), id: self.id }
    }
}

impl Stream for Worker {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.desk.poll_event(cx)
    }
}

impl FusedStream for Worker {
    fn is_terminated(&self) -> bool {
        self.desk.is_finished()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.desk.abandon();
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Steers a [`Worker`] from elsewhere. Holds no job and does not keep the worker alive.
#[derive(Clone)]
pub struct WorkerHandle {
    desk: Arc<Desk>,
    id: WorkerId,
}

impl WorkerHandle {
    /// The worker's number.
    pub fn id(&self) -> WorkerId {
        self.id
    }

    /// As [`Worker::terminate`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing; call again to wait again.
    pub fn terminate(&self) -> impl Future<Output = ()> + Send + 'static {
        self.desk.terminate()
    }

    /// As [`Worker::drain`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing; call again to wait again.
    pub fn drain(&self) -> impl Future<Output = ()> + Send + 'static {
        self.desk.drain()
    }

    /// As [`Worker::resume`].
    pub fn resume(&self) {
        self.desk.resume();
    }

    /// As [`Worker::set_capacity`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidSetting`] for zero.
    pub fn set_capacity(&self, jobs: Option<u32>) -> Result<()> {
        self.desk.set_terms(|terms| terms.capacity = jobs)
    }

    /// As [`Worker::set_weight`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidSetting`] outside of 1 to 1,000.
    pub fn set_weight(&self, weight: u32) -> Result<()> {
        self.desk.set_terms(|terms| terms.weight = weight)
    }
}

impl fmt::Debug for WorkerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerHandle").field("id", &self.id).finish_non_exhaustive()
    }
}

struct Reserved {
    member: Member,
    run_id: String,
}

/// Opens the cluster, as it may have been wiped since, and reserves a number in it.
async fn reserve(cluster: &Shared, options: &WorkerOptions) -> Result<Reserved> {
    let info = Info::of_this_process(options.name.clone());
    let info = rmp_serde::to_vec_named(&info).map_err(|source| {
        Error::new(ErrorKind::Encode, "the worker's description was not encoded").with_source(source)
    })?;
    let most = cluster.settings.max_workers;
    for _ in 0..3 {
        let run_id = cluster.run_id().await?;
        let incarnation = cluster.store.open(&run_id).await?.incarnation;
        match cluster.store.reserve(&incarnation, RESERVATION, info.clone(), most).await? {
            Ok(member) => return Ok(Reserved { member, run_id }),
            Err(Refusal::Ended(Ended::Reset)) => {}
            Err(_) => {
                let text = format!(
                    "the cluster has {most} workers, as many as max_workers allows; stop some, or raise it"
                );
                return Err(Error::new(ErrorKind::LimitReached, text));
            }
        }
    }
    Err(Error::new(
        ErrorKind::Server,
        "the cluster is wiped again and again while a worker joins; find out by whom",
    ))
}

fn name_taken(options: &WorkerOptions, remaining: Duration) -> Error {
    let name = options.name.as_deref().unwrap_or_default();
    Error::new(
        ErrorKind::NameTaken,
        format!(
            "a worker named {name:?} lives: its lock ends in {remaining:?} without a heartbeat. Stop it, use another name, \
             or allow NameConflict::TakeOver"
        ),
    )
}

//! A worker: the stream of its jobs, and the driver behind it.

mod desk;
mod driver;

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
use crate::redis::store::Member;
use crate::redis::subscriber::Channels;
use crate::serve::{Serve, Task};
use crate::shell::link::Link;
use desk::Desk;
use driver::Driver;

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
    /// Where to join again.
    cluster: Arc<Shared>,
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
}

impl Info {
    fn of_this_process() -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
            .ok()
            .or_else(|| std::env::var("HOSTNAME").ok())
            .or_else(|| std::env::var("COMPUTERNAME").ok())
            .unwrap_or_default();
        Self {
            host: host.trim().to_owned(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

impl Worker {
    pub(crate) async fn start(cluster: Arc<Shared>) -> Result<Self> {
        let member = reserve(&cluster).await?;
        let channels = Channels { inbox: Some(member.member.worker), released: false };
        // Subscribed and confirmed before the join, so that no frame is sent that nobody hears.
        let link = Link::start(&cluster, member.run_id, channels).await?;
        let member = member.member;
        let sent = Instant::now();
        let joined = match cluster.store.join(&member, cluster.settings.lock_ttl).await {
            Ok(Ok(joined)) => joined,
            refused => {
                link.close().await;
                return match refused {
                    Err(error) => Err(error),
                    _ => Err(Error::new(
                        ErrorKind::Closed,
                        "the worker's number lapsed before it could join; call worker() again",
                    )),
                };
            }
        };
        let span = tracing::info_span!("worker", cluster = cluster.settings.id, worker = %member.worker);
        tracing::info!(parent: &span, waiting = joined.pending, "joined");
        let id = member.worker;
        let (desk, dropped) = Desk::new(&cluster, sent);
        let driver = Driver::new(cluster.clone(), member, link, desk.clone(), dropped, joined);
        // Ends by itself when the worker has left or lost its lock, which dropping the worker sets off.
        tokio::spawn(driver.run().instrument(span));
        Ok(Self { desk, id, cluster })
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
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing; call again to wait again.
    pub fn terminate(&self) -> impl Future<Output = ()> + Send + 'static {
        self.desk.terminate()
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
        Serve::new(self.cluster.clone(), Some(self), handler)
    }

    /// A handle that can terminate the worker from another task, while this one is borrowed by its stream.
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

/// Terminates a [`Worker`] from elsewhere. Holds no job and does not keep the worker alive.
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
async fn reserve(cluster: &Shared) -> Result<Reserved> {
    let info = rmp_serde::to_vec_named(&Info::of_this_process()).map_err(|source| {
        Error::new(ErrorKind::Encode, "the worker's description was not encoded").with_source(source)
    })?;
    for _ in 0..3 {
        let run_id = cluster.run_id().await?;
        let incarnation = cluster.store.open(&run_id).await?.incarnation;
        if let Some(worker) = cluster.store.reserve(&incarnation, RESERVATION, info.clone()).await? {
            return Ok(Reserved { member: Member { worker, incarnation }, run_id });
        }
    }
    Err(Error::new(
        ErrorKind::Server,
        "the cluster is wiped again and again while a worker joins; find out by whom",
    ))
}

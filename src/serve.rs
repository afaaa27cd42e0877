//! The easy way to use a worker: an async function for each job.

mod driver;
mod handler;
mod task;

use std::error::Error as StdError;
use std::fmt;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::task::JoinSet;
use tracing::Instrument;

use self::driver::Driver;
use self::handler::{Context, Handler, OnError, Restarts};
pub use self::task::Task;
use crate::cluster::Shared;
use crate::error::{Error, ErrorKind, Result};
use crate::worker::{Worker, WorkerOptions};

/// A worker that runs a handler for each of its jobs: made by [`Cluster::serve`](crate::Cluster::serve) or
/// [`Worker::serve`], begun and ended by `.await`.
///
/// ```no_run
/// use std::error::Error;
///
/// use assemblage::{Cluster, Task};
/// # async fn fetch(_mailbox: &str) -> std::io::Result<usize> { Ok(0) }
///
/// async fn watch(task: Task) -> Result<(), Box<dyn Error + Send + Sync>> {
///     let mailbox: String = task.payload()?;
///     loop {
///         tokio::select! {
///             () = task.stopped() => return Ok(()),
///             mails = fetch(&mailbox) => println!("{mailbox}: {} new", mails?),
///         }
///     }
/// }
///
/// # async fn example() -> assemblage::Result<()> {
/// let cluster = Cluster::builder("mail").connect_url("redis://localhost").await?;
/// cluster
///     .serve(watch)
///     .with_graceful_shutdown(tokio::signal::ctrl_c())
///     .on_error(|error| eprintln!("{error}"))
///     .await
/// # }
/// ```
///
/// # A handler's life
///
/// The handler is called when the job comes to this worker, in a task of the job's own. It works until
/// [`Task::stopped`] resolves (the job was deleted, or goes elsewhere), cleans up and returns. **With its end the
/// job is released**: only then may another worker begin, and
/// [`delete_and_wait`](crate::Master::delete_and_wait) resolve.
///
/// - A job is held until it is deleted. A handler that returns before, with `Ok` or an error, or that panics, is started
///   again after a while: see [`restart_backoff`](Self::restart_backoff). For a job that is done for good there is
///   [`Task::delete`].
/// - An error or a panic is reported, with the job's id, by `tracing` and to [`on_error`](Self::on_error), and concerns no other job.
///   (Where panics abort the process, by `panic = "abort"`, there is nothing to catch.)
/// - A handler that has not ended by its [deadline](Task::deadline) is aborted: its future is dropped where it stands, at an
///   `.await`. So the promise of one owner holds for handlers that ignore that they should stop.
///
/// # A worker's life
///
/// When the worker loses its lock (no answer from the server for too long, or the cluster was wiped), the
/// handlers are told to stop, with the fence margin as their time. When all have ended, it joins again as a new worker,
/// after a wait that grows from 50 ms to 2 s (and up to as much again, by chance) while it is in vain, and is given jobs
/// anew. A worker that was told to go, by [`Master::evict`](crate::Master::evict) or as another has taken its name, leaves in
/// order and is not replaced: the `Serve` resolves with `Ok`.
///
/// # Guarantees
///
/// In this process, no job has two handlers at once, whatever was lost or joined again meanwhile. In the cluster,
/// those of [`Worker`] hold.
///
/// **Not promised:** code that blocks its thread without an `.await` cannot be aborted, and may keep the heartbeats from
/// going out, with which the worker loses *all* its jobs: put it into `spawn_blocking`. Nor can a task be that a
/// handler spawned: give it a clone of the [`Task`], and end it. Past the handler's deadline, either may overlap the next owner in another
/// process.
#[must_use = "nothing is served until it is awaited"]
pub struct Serve {
    cluster: Arc<Shared>,
    options: WorkerOptions,
    worker: Option<Worker>,
    handler: Handler,
    on_error: Option<OnError>,
    restarts: Restarts,
    shutdown: BoxFuture<'static, ()>,
}

impl Serve {
    pub(crate) fn new<F, Fut, E>(
        cluster: Arc<Shared>,
        options: WorkerOptions,
        worker: Option<Worker>,
        handler: F,
    ) -> Self
    where
        F: Fn(Task) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        Self {
            cluster,
            options,
            worker,
            handler: handler::erase(handler),
            on_error: None,
            restarts: Restarts::DEFAULT,
            shutdown: Box::pin(std::future::pending()),
        }
    }

    /// How its workers take part: capacity, weight, a name, and so on. Default: as the worker was made with on which
    /// [`Worker::serve`] was called, which keeps its options in any case.
    pub fn options(mut self, options: WorkerOptions) -> Self {
        self.options = options;
        self
    }

    /// When this future resolves, with whatever, the worker leaves in order: every handler is told to stop, each job
    /// goes to another worker when its handler has ended, and the `Serve` resolves with `Ok`. A handler has the
    /// release timeout for it at most. A server that is away is not waited for without bound, see
    /// [`Worker::terminate`].
    ///
    /// Default: never. A second call replaces the first. For a process that is to end at SIGTERM, as under systemd or
    /// Kubernetes:
    ///
    /// ```no_run
    /// # async fn watch(_task: assemblage::Task) -> assemblage::Result<()> { Ok(()) }
    /// # async fn example(cluster: assemblage::Cluster) -> Result<(), Box<dyn std::error::Error>> {
    /// use tokio::signal::unix::{SignalKind, signal};
    ///
    /// let mut terminate = signal(SignalKind::terminate())?;
    /// cluster.serve(watch).with_graceful_shutdown(async move { terminate.recv().await }).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_graceful_shutdown<S>(mut self, signal: S) -> Self
    where
        S: Future + Send + 'static,
    {
        self.shutdown = Box::pin(signal.map(drop));
        self
    }

    /// Hears of all that goes wrong and is lived with: handlers' failures (kind [`Handler`](ErrorKind::Handler), with the
    /// job, and the handler's own error as its source), joins that are tried again, and what the worker tells by
    /// [`Event::Error`](crate::Event::Error).
    ///
    /// Default: nothing; `tracing` has each of them in any case, as a warning. It is called where it happens, from
    /// several tasks at once: it must not block.
    pub fn on_error(mut self, listener: impl Fn(Error) + Send + Sync + 'static) -> Self {
        self.on_error = Some(Arc::new(listener));
        self
    }

    /// How long to wait before a handler that ended is started again: `first`, then twice as long each time up to
    /// `longest`; by chance up to as much again, so that many that failed together do not start together. A run of
    /// `longest` or more counts as a success: the next wait is the `first`.
    ///
    /// Default 250 ms, which does not hurt what it fails at, to 30 s, which people can wait for after they mended it.
    /// `first` must be at least 1 ms, `longest` not shorter and at most a day; awaiting fails otherwise.
    pub fn restart_backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.restarts = Restarts { first, longest };
        self
    }
}

/// Serves until the graceful shutdown is over: then `Ok`.
///
/// # Errors
///
/// [`ErrorKind::InvalidSetting`] for a [`restart_backoff`](Serve::restart_backoff) that is refused; and when no worker can be made and no
/// waiting mends it: [`Denied`](ErrorKind::Denied) (the user may not do what a worker does), [`Incompatible`](ErrorKind::Incompatible) (the
/// cluster is of another version now), `InvalidSetting`. Every other failure to join is reported and tried again, the
/// first one included: a server that is away, or wants another password for a while.
///
/// # Cancel safety
///
/// If the future is dropped, the handlers are aborted, each at its next `.await`, and the worker leaves in the
/// background, as when a [`Worker`] is dropped. For handlers that are to clean up, use
/// [`with_graceful_shutdown`](Serve::with_graceful_shutdown).
impl IntoFuture for Serve {
    type Output = Result<()>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { cluster, options, worker, handler, on_error, restarts, shutdown } = self;
            restarts.check()?;
            let driver = Driver::new(cluster, options, Context { handler, on_error, restarts }, shutdown);
            // A task of its own: stops and deadlines are seen to while whoever awaits this is busy with something else. The
            // set owns it: it ends with this future.
            let mut task = JoinSet::new();
            task.spawn(driver.run(worker).in_current_span());
            match task.join_next().await {
                Some(Ok(result)) => result,
                Some(Err(error)) if error.is_panic() => resume_unwind(error.into_panic()),
                Some(Err(_)) | None => Err(Error::new(ErrorKind::Closed, "the runtime is shutting down")),
            }
        })
    }
}

impl fmt::Debug for Serve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve")
            .field("cluster", &self.cluster.settings.id)
            .field("worker", &self.worker)
            .field("restarts", &self.restarts)
            .finish_non_exhaustive()
    }
}

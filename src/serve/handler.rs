//! One job's handler: run, started again while the job is held, dropped at its deadline.
//!
//! ```text
//!  run --returned, failed, panicked--> job held? --yes--> wait (backoff) --> run
//!   |                                     |                  |
//!   |                                     no                 stop
//!   +--stop: deadline--> dropped ---------+------------------+--> the job's last handle is dropped: released
//! ```
//!
//! All of it is one task, and the handler's future a part of it: where the task ends, nothing of the handler is left.

use std::any::Any;
use std::error::Error as StdError;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::sleep;
use tracing::Instrument;

use super::task::{Assignment, Task};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{JobId, WorkerId};

type BoxError = Box<dyn StdError + Send + Sync>;

/// The application's handler, of whatever type it was. Makes the future only; its code runs when that is polled.
pub(super) type Handler = Arc<dyn Fn(Task) -> BoxFuture<'static, Result<(), BoxError>> + Send + Sync>;

/// The application's ear for errors.
pub(super) type OnError = Arc<dyn Fn(Error) + Send + Sync>;

pub(super) fn erase<F, Fut, E>(handler: F) -> Handler
where
    F: Fn(Task) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<BoxError>,
{
    let handler = Arc::new(handler);
    Arc::new(move |task| {
        let handler = handler.clone();
        Box::pin(async move { handler(task).await.map_err(Into::into) })
    })
}

/// What the handlers of all jobs share.
pub(super) struct Context {
    pub(super) handler: Handler,
    pub(super) on_error: Option<OnError>,
    pub(super) restarts: Restarts,
}

impl Context {
    /// Says what went wrong, by the log and to whoever listens.
    pub(super) fn report(&self, error: Error) {
        tracing::warn!("{error}");
        let Some(on_error) = &self.on_error else { return };
        // It runs in tasks whose end would cost a job.
        if catch_unwind(AssertUnwindSafe(|| on_error(error))).is_err() {
            tracing::error!("on_error panicked; mend it, as what it was told of is not handled");
        }
    }
}

/// How long to wait before a handler is started again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Restarts {
    pub(super) first: Duration,
    pub(super) longest: Duration,
}

impl Restarts {
    pub(super) const DEFAULT: Self =
        Self { first: Duration::from_millis(250), longest: Duration::from_secs(30) };

    pub(super) fn check(self) -> Result<()> {
        let Self { first, longest } = self;
        if first < Duration::from_millis(1) || longest < first || longest > Duration::from_secs(86_400) {
            let text = format!(
                "restart_backoff is {first:?} to {longest:?}; the first delay must be at least 1ms, the longest no shorter \
                 than the first and at most a day"
            );
            return Err(Error::new(ErrorKind::InvalidSetting, text));
        }
        Ok(())
    }

    fn delays(self) -> ExponentialBackoff {
        let builder = ExponentialBuilder::new().with_min_delay(self.first).with_max_delay(self.longest);
        builder.with_jitter().without_max_times().build()
    }
}

/// How a run of a handler ended.
enum End {
    Returned,
    Failed(BoxError),
    Panicked(String),
    /// It did not end by its deadline and was dropped.
    Overdue,
}

/// Runs the handler until the job is to be let go of. The job is released when this is over.
pub(super) async fn supervise(context: Arc<Context>, worker: WorkerId, assignment: Arc<Assignment>) -> JobId {
    let id = assignment.id().clone();
    // What is not ours is caught further inside; but whoever waits for this job's end must hear of it in any case.
    if AssertUnwindSafe(hold(&context, worker, assignment)).catch_unwind().await.is_err() {
        tracing::error!(%worker, job = %id, "a handler's supervisor panicked; report it as a defect of the crate");
    }
    id
}

async fn hold(context: &Context, worker: WorkerId, assignment: Arc<Assignment>) {
    let mut delays = context.restarts.delays();
    while !assignment.is_ending() {
        // Of the gravest level, so that these fields are there at whatever level is logged.
        let span =
            tracing::error_span!("handler", %worker, job = %assignment.id(), epoch = %assignment.epoch());
        let began = Instant::now();
        let end = run(context, &assignment).instrument(span.clone()).await;
        let ending = assignment.is_ending() || assignment.is_deleted();
        let brief = began.elapsed() < context.restarts.longest;
        let delay = if ending {
            None
        } else {
            if !brief {
                delays = context.restarts.delays();
            }
            Some(delays.next().unwrap_or(context.restarts.longest))
        };
        span.in_scope(|| conclude(context, &assignment, end, delay, brief));
        match delay {
            Some(delay) => tokio::select! {
                biased;
                () = assignment.stopped() => {}
                () = sleep(delay) => {}
            },
            None if assignment.is_ending() => {}
            // It asked to delete its job: the `Delete` comes.
            None => assignment.stopped().await,
        }
    }
}

async fn run(context: &Context, assignment: &Arc<Assignment>) -> End {
    tracing::debug!("the handler starts");
    let task = Task::new(assignment.clone());
    let mut handler = Box::pin(AssertUnwindSafe((context.handler)(task)).catch_unwind());
    let end = tokio::select! {
        biased;
        () = assignment.overdue() => End::Overdue,
        result = &mut handler => match result {
            Ok(Ok(())) => End::Returned,
            Ok(Err(error)) => End::Failed(error),
            Err(panic) => End::Panicked(text_of(&*panic)),
        },
    };
    // What is dropped here is the application's.
    match catch_unwind(AssertUnwindSafe(|| drop(handler))) {
        Ok(()) => end,
        Err(panic) => End::Panicked(text_of(&*panic)),
    }
}

/// Says how it ended, after a brief run or a long one. With a delay it is started again after it; without one it is to
/// stop.
fn conclude(context: &Context, assignment: &Assignment, end: End, delay: Option<Duration>, brief: bool) {
    let next = match delay {
        Some(delay) => format!("its job is still held, so it is started again in {delay:.1?}"),
        None => "it was to stop anyway, and its job is let go of".to_owned(),
    };
    let failed = |text: &str| Error::new(ErrorKind::Handler, text).with_job(assignment.id().clone());
    let error = match end {
        // As often as its backoff lets it: a handler that ends at once is one that was written for a queue of tasks.
        End::Returned if delay.is_some() && brief => {
            tracing::warn!(
                "the handler returned; {next}. To hold the job it awaits `stopped`; to be done for good, it deletes the job"
            );
            return;
        }
        End::Returned if delay.is_some() => {
            tracing::info!("the handler returned; {next}");
            return;
        }
        End::Returned => {
            tracing::debug!("the handler has ended");
            return;
        }
        End::Failed(source) => failed("a handler failed").with_source(source).note(&next),
        End::Panicked(panic) => {
            failed(&format!("a handler panicked ({panic}): a defect to be mended")).note(&next)
        }
        End::Overdue => failed(
            "a handler did not end by its deadline after it was told to stop, and was aborted. Watch `stopped`, and \
             clean up faster, or raise release_timeout, or fence_margin for what a lost lock needs",
        ),
    };
    context.report(error);
}

/// What a panic said, and not for ever.
fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a text");
    text.chars().take(200).collect()
}

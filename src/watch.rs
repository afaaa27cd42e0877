//! Watching a cluster: the stream of everything that happens, and the mirror that is kept by it.

mod driver;
mod mirror;
mod picture;

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures::Stream;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::Instrument;

pub use self::mirror::{Mirror, Snapshot};
use crate::change::{Change, ChangeKind, Filter};
use crate::cluster::Shared;
use crate::core::feed::Feed;
use crate::error::{Error, ErrorKind, Result};
use crate::id::Revision;
use crate::redis::subscriber::Listener;
use crate::shell::link::Link;

/// Everything that happens in a cluster: a stream of [`Change`]s, in the order of their revisions, each once.
///
/// It begins with [`Reset`](Change::Reset), what there is, and [`Synced`](Change::Synced), unless
/// [`since`](WatchOptions::since) can be gone on from. After that, changes are pushed. What a lost connection or a
/// slow consumer has missed comes from the journal that the server keeps while somebody watches, and where that does
/// not reach back far enough, from a new `Reset`. The stream does not end by itself; while the server cannot be
/// reached it is silent, and the log says why.
///
/// Workers and masters pay for a watcher only in the server's time for one more message per change. A consumer that
/// is slow slows nobody: what waits for it is [bounded](WatchOptions::buffer).
#[must_use = "a stream does nothing unless polled"]
pub struct Watch {
    desk: Arc<Desk>,
    _driver: DropGuard,
}

/// Where the driver and the consumer meet.
pub(super) struct Desk {
    state: Mutex<State>,
    /// There is room again, and something to ask for.
    driver: Notify,
}

pub(super) struct State {
    pub(super) feed: Feed,
    consumer: Option<Waker>,
}

/// How to watch. `WatchOptions::default()`: everything, from the beginning.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WatchOptions {
    /// Go on after this revision. Default `None`: begin with what there is.
    pub since: Option<Revision>,
    /// Of which kinds to hear; `None`, the default: of all.
    pub kinds: Option<Vec<ChangeKind>>,
    /// What the ids of jobs must begin with. Default: nothing, so all.
    pub job_prefix: String,
    /// How many changes wait for the consumer at most. Default 10,000.
    pub buffer: usize,
    /// How many batches of changes (what one script does is one) the server keeps for watchers. Default 10,000.
    pub journal: u32,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self { since: None, kinds: None, job_prefix: String::new(), buffer: 10_000, journal: 10_000 }
    }
}

impl WatchOptions {
    /// Goes on after this revision, as a [`Synced`](Change::Synced) or the last change had told it: without a `Reset`,
    /// if the server still has everything since. It keeps changes for ten minutes after the last watcher is gone. A
    /// process that is to go on after its own restart keeps [`Revision::get`] and comes back with `Revision::from`.
    #[must_use]
    pub fn since(mut self, revision: Revision) -> Self {
        self.since = Some(revision);
        self
    }

    /// Tells only of these kinds (and of `Reset` and `Synced`).
    #[must_use]
    pub fn kinds(mut self, kinds: impl IntoIterator<Item = ChangeKind>) -> Self {
        self.kinds = Some(kinds.into_iter().collect());
        self
    }

    /// Tells only of jobs whose id begins so. What happens to workers is told all the same.
    #[must_use]
    pub fn job_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.job_prefix = prefix.into();
        self
    }

    /// So many changes wait for a slow consumer, and no more than what one script did or one page has on top of them;
    /// and once more as many while something before them is asked for. What finds no room is asked for later,
    /// from the journal, or there is a `Reset`. At least 1.
    #[must_use]
    pub fn buffer(mut self, changes: usize) -> Self {
        self.buffer = changes;
        self
    }

    /// The server keeps about so many batches of changes; 0 switches it off, and whatever is missed costs a `Reset`. Of
    /// several watchers the largest number counts, also of those that are gone, until nobody has watched for ten minutes: keep
    /// to what the server's memory allows.
    #[must_use]
    pub fn journal(mut self, batches: u32) -> Self {
        self.journal = batches;
        self
    }
}

impl Watch {
    pub(crate) async fn start(cluster: Arc<Shared>, options: WatchOptions) -> Result<Self> {
        if options.buffer == 0 {
            let text = "buffer is 0; it must be at least 1, or nothing could be told";
            return Err(Error::new(ErrorKind::InvalidSetting, text));
        }
        let WatchOptions { since, kinds, job_prefix, buffer, journal } = options;
        let run_id = cluster.reopen().await?;
        let link = Link::start(&cluster, run_id, Listener::Watcher).await?;
        let length = u64::from(journal);
        cluster.store.watch(driver::KEEP, length).await?;
        let filter = Filter { kinds: kinds.map(|kinds| kinds.into_iter().collect()), prefix: job_prefix };
        let state = State { feed: Feed::new(buffer, filter, since), consumer: None };
        let desk = Arc::new(Desk { state: Mutex::new(state), driver: Notify::new() });
        let stop = CancellationToken::new();
        let span = tracing::info_span!("watch", cluster = cluster.settings.id);
        // Ends with the stream.
        tokio::spawn(driver::run(cluster, link, desk.clone(), length, stop.clone()).instrument(span));
        Ok(Self { desk, _driver: stop.drop_guard() })
    }
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in between leaves the state as it was between two inputs: it is made of whole steps.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the feed, then wakes the consumer if there is something for it.
    pub(super) fn act<T>(&self, action: impl FnOnce(&mut Feed) -> T) -> T {
        let mut state = self.lock();
        let result = action(&mut state.feed);
        let consumer = if state.feed.has_change() { state.consumer.take() } else { None };
        drop(state);
        if let Some(consumer) = consumer {
            consumer.wake();
        }
        result
    }

    /// Resolves when there is something to ask for.
    pub(super) async fn driver_wanted(&self) {
        self.driver.notified().await;
    }
}

impl Stream for Watch {
    type Item = Change;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Change>> {
        let mut state = self.desk.lock();
        let change = state.feed.poll_change();
        if state.feed.is_full() {
            self.desk.driver.notify_one();
        }
        if change.is_some() {
            return Poll::Ready(change);
        }
        match &mut state.consumer {
            Some(waker) => waker.clone_from(cx.waker()),
            empty @ None => *empty = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

//! A job in a worker's hands, and the hold that its handles share.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};

use bytes::Bytes;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::error::Result;
use crate::id::{Epoch, JobId, Revision};
use crate::payload;
use crate::redis::store::{DeleteCode, Store};

/// One assignment, held. Every handle to it shares this; when the last one is dropped, the worker is told.
pub(crate) struct Hold {
    pub(crate) job: JobId,
    pub(crate) grant: Revision,
    epoch: AtomicU64,
    born: Revision,
    /// Made for the first who asks: most jobs are never asked for it, and it is the largest part of a hold.
    token: OnceLock<CancellationToken>,
    store: Arc<Store>,
    dropped: mpsc::UnboundedSender<Dropped>,
}

/// What all share that nobody has asked for before it was cancelled.
static CANCELLED: LazyLock<CancellationToken> = LazyLock::new(|| {
    let token = CancellationToken::new();
    token.cancel();
    token
});

/// The last handle of an assignment was dropped. One a job at most, so the channel is as bounded as the jobs.
pub(crate) struct Dropped {
    pub(crate) job: JobId,
    pub(crate) grant: Revision,
}

impl Hold {
    pub(crate) fn new(
        job: JobId,
        grant: Revision,
        epoch: Epoch,
        born: Revision,
        store: Arc<Store>,
        dropped: mpsc::UnboundedSender<Dropped>,
    ) -> Self {
        Self { job, grant, epoch: AtomicU64::new(epoch.0), born, token: OnceLock::new(), store, dropped }
    }

    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Acquire))
    }

    pub(crate) fn set_epoch(&self, epoch: Epoch) {
        self.epoch.store(epoch.0, Ordering::Release);
    }

    /// Tells the handlers to stop, now or when they ask.
    pub(crate) fn cancel(&self) {
        self.token.get_or_init(|| CANCELLED.clone()).cancel();
    }

    fn token(&self) -> &CancellationToken {
        self.token.get_or_init(CancellationToken::new)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // A worker that has closed does not listen any more: then there is nothing to release.
        let _ = self.dropped.send(Dropped { job: self.job.clone(), grant: self.grant });
    }
}

/// A job that this worker holds. Cloning copies a pointer.
///
/// Every clone is a handle: after the job's [`Delete`](crate::Event::Delete) the job stays this worker's until
/// all of them, and the [`Deletion`](crate::Deletion), are dropped. Keep one wherever the job is worked on.
#[derive(Clone)]
pub struct Job {
    hold: Arc<Hold>,
    payload: Bytes,
}

impl Job {
    pub(crate) fn new(hold: Arc<Hold>, payload: Bytes) -> Self {
        Self { hold, payload }
    }

    /// Which job.
    pub fn id(&self) -> &JobId {
        &self.hold.job
    }

    /// The fencing number of this assignment: larger than that of any owner before. It can grow while the job
    /// is held (see [`Event::Update`](crate::Event::Update)), for all handles at once.
    pub fn epoch(&self) -> Epoch {
        self.hold.epoch()
    }

    /// The payload as the type that the master added, decoded from MessagePack. Borrows where `T` borrows.
    ///
    /// Fields and variants go by their names, so a job may be older than the type that reads it: a field that `T` does not
    /// have is passed over (unless it says `deny_unknown_fields`), one that the payload does not have needs `Option` or
    /// `#[serde(default)]`, and their order does not matter. `flatten` and tagged enums work. A tuple goes by position, and its
    /// length must stay.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`](crate::ErrorKind::Decode) if the payload is not a `T`; the text names the field that is missing, or what
    /// was expected, and never a value. The job stays held: another type may fit, or
    /// [`payload_bytes`](Self::payload_bytes); or [`delete`](Self::delete) it.
    pub fn payload<'a, T: Deserialize<'a>>(&'a self) -> Result<T> {
        payload::decode(&self.payload, self.id())
    }

    /// The payload as it was added: MessagePack, not looked at.
    pub fn payload_bytes(&self) -> &Bytes {
        &self.payload
    }

    /// Resolves when the job is no longer to be worked on, at the latest when its `Delete` is in the stream
    /// (it need not have been polled). At once if that is so already.
    ///
    /// # Cancel safety
    ///
    /// May be dropped and called again.
    pub async fn deleted(&self) {
        self.hold.token().cancelled().await;
    }

    /// A token that is cancelled when [`deleted`](Self::deleted) resolves. Each call makes a new one: cancelling it
    /// by hand concerns whoever has it, and changes nothing in the cluster.
    pub fn cancellation_token(&self) -> CancellationToken {
        self.hold.token().child_token()
    }

    /// Asks the cluster to delete the job, as its worker may. The `Delete` comes by the stream like any other.
    ///
    /// Names this life of the job: one that was deleted and added again under the same id is left alone.
    /// `false` if that life was over already.
    ///
    /// # Errors
    ///
    /// Those of the connection: [`ErrorKind::Connection`](crate::ErrorKind::Connection), [`ErrorKind::Timeout`](crate::ErrorKind::Timeout), [`ErrorKind::Denied`](crate::ErrorKind::Denied). May be called
    /// again after any of them.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the job may or may not be deleted.
    pub async fn delete(&self) -> Result<bool> {
        let codes = self.hold.store.delete(&[(self.hold.job.clone(), Some(self.hold.born))]).await?;
        tracing::debug!(job = %self.hold.job, epoch = %self.epoch(), "a worker asked to delete its job");
        Ok(!matches!(codes.first(), None | Some(DeleteCode::Unknown)))
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("id", self.id())
            .field("epoch", &self.epoch())
            .field("payload_bytes", &self.payload.len())
            .finish()
    }
}

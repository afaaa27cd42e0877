//! A master: adds and deletes jobs, and looks at the cluster.

mod driver;
mod info;
mod waiters;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use serde::Serialize;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::Instrument;

pub use self::info::{AddOptions, Added, Crash, Deleted, JobInfo, Stats, StoredJob, Updated, WorkerInfo};
use self::waiters::Waiters;
use crate::cluster::{Durability, Shared};
use crate::error::{Error, Result};
use crate::id::{JobId, WorkerId};
use crate::message::Order;
use crate::payload;
use crate::redis::store::{AddCode, BATCH_BYTES, BATCH_JOBS, DeleteCode, JobState, UpdateCode};
use crate::redis::subscriber::Listener;
use crate::shell::link::Link;

/// Adds and deletes jobs. Cheap to clone, and usable from many tasks at once.
///
/// A cluster may have any number of masters. Beside its calls, each takes part in the takeover of dead workers' jobs, in
/// a task of its own that ends when the last clone is dropped. If every master is down, nothing can be added,
/// and all else goes on.
#[derive(Clone)]
pub struct Master {
    cluster: Arc<Shared>,
    waiters: Arc<Waiters>,
    _driver: Arc<DropGuard>,
}

impl Master {
    pub(crate) async fn start(cluster: Arc<Shared>) -> Result<Self> {
        let run_id = cluster.reopen().await?;
        let link = Link::start(&cluster, run_id, Listener::Master).await?;
        let waiters = Arc::new(Waiters::default());
        let stop = CancellationToken::new();
        let span = tracing::info_span!("master", cluster = cluster.settings.id);
        let driver = driver::run(cluster.clone(), link, waiters.clone(), stop.clone());
        tokio::spawn(driver.instrument(span));
        Ok(Self { cluster, waiters, _driver: Arc::new(stop.drop_guard()) })
    }

    /// Adds a job under a fresh id. When this returns, the job is in Redis and pushed to its worker, or waits for one.
    ///
    /// The payload may be any `Serialize` type; it travels as MessagePack.
    ///
    /// # Errors
    ///
    /// [`Encode`](crate::ErrorKind::Encode) or [`PayloadTooLarge`](crate::ErrorKind::PayloadTooLarge) before anything is sent;
    /// [`OutOfMemory`](crate::ErrorKind::OutOfMemory); [`LimitReached`](crate::ErrorKind::LimitReached) if the cluster
    /// has [`max_jobs`](crate::ClusterBuilder::max_jobs); [`Unreplicated`](crate::ErrorKind::Unreplicated) with a
    /// [`Durability`] of replicas, and then the job *is* added; those of the connection. After a [`Timeout`](crate::ErrorKind::Timeout) the job
    /// may have been added, and will not be added later: to try again without a risk of two, use
    /// [`add_with`](Self::add_with) and an id of your own. The error has the id that it has, or would have had
    /// ([`Error::job`](crate::Error::job)).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the job may or may not have been added.
    pub async fn add<T: Serialize + ?Sized>(&self, payload: &T) -> Result<JobId> {
        Ok(self.add_with(payload, AddOptions::default()).await?.into_id())
    }

    /// Adds a job with options, such as an id of its own. A job that is there already under that id is left
    /// alone: [`Added::Existing`].
    ///
    /// An id that was deleted may be used again at once: if its last owner still lets go, the new job waits for that.
    ///
    /// # Errors
    ///
    /// As [`add`](Self::add).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the job may or may not have been added.
    pub async fn add_with<T: Serialize + ?Sized>(&self, payload: &T, options: AddOptions) -> Result<Added> {
        let payload = payload::encode(payload, self.cluster.settings.max_payload)?;
        let id = options.id.unwrap_or_else(JobId::generate);
        let added = self.add_batches(vec![(id.clone(), payload)]).await;
        let mut added = added.map_err(|error| error.with_job(id.clone()))?;
        Ok(added.pop().unwrap_or(Added::New(id)))
    }

    /// Adds many jobs under fresh ids, in batches of one script each; the ids are in the payloads' order.
    ///
    /// # Errors
    ///
    /// As [`add`](Self::add). All payloads are checked before anything is sent. Batches are all or nothing; the
    /// error's text says how many jobs were in before it.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the first batches may have been added.
    pub async fn add_many<T: Serialize>(&self, payloads: &[T]) -> Result<Vec<JobId>> {
        let most = self.cluster.settings.max_payload;
        let jobs: Result<Vec<_>> =
            payloads.iter().map(|payload| Ok((JobId::generate(), payload::encode(payload, most)?))).collect();
        Ok(self.add_batches(jobs?).await?.into_iter().map(Added::into_id).collect())
    }

    /// Adds many jobs under ids of their own, as [`add_many`](Self::add_many). Safe to repeat after any error.
    ///
    /// # Errors
    ///
    /// As [`add_many`](Self::add_many).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the first batches may have been added.
    pub async fn add_many_with<T: Serialize>(&self, jobs: &[(JobId, T)]) -> Result<Vec<Added>> {
        let most = self.cluster.settings.max_payload;
        let jobs: Result<Vec<_>> =
            jobs.iter().map(|(id, payload)| Ok((id.clone(), payload::encode(payload, most)?))).collect();
        self.add_batches(jobs?).await
    }

    async fn add_batches(&self, jobs: Vec<(JobId, Bytes)>) -> Result<Vec<Added>> {
        let mut added = Vec::with_capacity(jobs.len());
        let mut rest = jobs.as_slice();
        while !rest.is_empty() {
            let (batch, later) = rest.split_at(batch_len(rest));
            let codes = self
                .cluster
                .store
                .add(batch, self.cluster.settings.max_jobs)
                .await
                .map_err(|error| partly(error, added.len(), jobs.len()))?;
            for ((id, _), (code, revision)) in batch.iter().zip(codes) {
                tracing::debug!(cluster = self.cluster.settings.id, job = %id, %revision, ?code, "add");
                added.push(match code {
                    AddCode::Existing => Added::Existing(id.clone()),
                    AddCode::Assigned | AddCode::Pending | AddCode::AfterRelease => Added::New(id.clone()),
                });
            }
            rest = later;
        }
        self.replicated("adding jobs").await?;
        Ok(added)
    }

    /// Waits for replicas, if that was asked for.
    async fn replicated(&self, what: &str) -> Result<()> {
        let settings = &self.cluster.settings;
        match settings.durability {
            Durability::Primary => Ok(()),
            Durability::Replicas(count) => {
                let within = settings.heartbeat().min(settings.command_timeout);
                self.cluster.store.replicated(what, count, within).await
            }
        }
    }

    /// Gives a job another payload. Its owner gets [`Update`](crate::Event::Update) with it, and whoever holds the job later
    /// begins with it. Of two updates the later counts; a slow consumer sees only the last.
    ///
    /// # Errors
    ///
    /// As [`add`](Self::add). After a [`Timeout`](crate::ErrorKind::Timeout) the job may have been updated, and will
    /// not be updated later; call again.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the job may or may not be updated.
    pub async fn update<T: Serialize + ?Sized>(&self, id: &JobId, payload: &T) -> Result<Updated> {
        let payload = payload::encode(payload, self.cluster.settings.max_payload)?;
        let codes = self.cluster.store.update(&[(id.clone(), payload)]).await?;
        let code = codes.first().copied().unwrap_or(UpdateCode::Unknown);
        tracing::debug!(cluster = self.cluster.settings.id, job = %id, ?code, "update");
        self.replicated("updating a job").await?;
        Ok(code.into())
    }

    /// Gives a job that was quarantined another chance: what it was suspected of is forgotten, and it goes to a worker.
    /// `false` if it was not in quarantine.
    ///
    /// # Errors
    ///
    /// Those of the connection. Safe to repeat.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the job may or may not be requeued.
    pub async fn requeue(&self, id: &JobId) -> Result<bool> {
        let done = self.cluster.store.requeue(std::slice::from_ref(id)).await?.first() == Some(&true);
        tracing::info!(cluster = self.cluster.settings.id, job = %id, done, "requeue");
        Ok(done)
    }

    /// Has a worker give up its jobs and stay: it is given no new ones, and each that it holds goes to another when
    /// its handles are dropped. For a machine that is to be restarted: drain, wait until
    /// [`workers`](Self::workers) shows no jobs, restart. `false` if there is no such worker.
    ///
    /// The order stays until the worker is [resumed](Self::resume) or gone.
    ///
    /// # Errors
    ///
    /// Those of the connection. Safe to repeat.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the order may or may not be given.
    pub async fn drain(&self, worker: WorkerId) -> Result<bool> {
        self.order(worker, Order::Drain).await
    }

    /// Ends a [drain](Self::drain), or takes back an [eviction](Self::evict) that the worker has not heard of yet. `false`
    /// if there is no such worker.
    ///
    /// # Errors
    ///
    /// Those of the connection. Safe to repeat.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the order may or may not be given.
    pub async fn resume(&self, worker: WorkerId) -> Result<bool> {
        self.order(worker, Order::Resume).await
    }

    /// Has a worker give up its jobs and go, as if it had [terminated](crate::Worker::terminate) by itself; its stream ends with
    /// [`Close(Evicted)`](crate::CloseReason::Evicted). `false` if there is no such worker.
    ///
    /// # Errors
    ///
    /// Those of the connection. Safe to repeat.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the order may or may not be given.
    pub async fn evict(&self, worker: WorkerId) -> Result<bool> {
        self.order(worker, Order::Evict).await
    }

    async fn order(&self, worker: WorkerId, order: Order) -> Result<bool> {
        let done = self.cluster.store.order(worker, order).await?;
        tracing::info!(cluster = self.cluster.settings.id, %worker, ?order, done, "order");
        Ok(done)
    }

    /// Deletes a job: marks it and answers at once. Its owner is told, and when the owner has let go, it is gone.
    ///
    /// An id that is not there is a value, [`Deleted::Unknown`], not an error.
    ///
    /// # Errors
    ///
    /// Those of the connection. After a [`Timeout`](crate::ErrorKind::Timeout) the job may have been deleted, and
    /// will not be deleted later; call again.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the job may or may not be deleted.
    pub async fn delete(&self, id: &JobId) -> Result<Deleted> {
        self.delete_code(id).await.map(Deleted::from)
    }

    /// Deletes many jobs, in batches of one script each; the answers are in the ids' order.
    ///
    /// # Errors
    ///
    /// As [`delete`](Self::delete). The error's text says how many were deleted before it.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the first batches may have been deleted.
    pub async fn delete_many(&self, ids: &[JobId]) -> Result<Vec<Deleted>> {
        let mut deleted = Vec::with_capacity(ids.len());
        for batch in ids.chunks(BATCH_JOBS) {
            let jobs: Vec<_> = batch.iter().map(|id| (id.clone(), None)).collect();
            let codes = self
                .cluster
                .store
                .delete(&jobs)
                .await
                .map_err(|error| partly(error, deleted.len(), ids.len()))?;
            deleted.extend(codes.into_iter().map(Deleted::from));
        }
        self.replicated("deleting jobs").await?;
        Ok(deleted)
    }

    /// Deletes a job and waits until its owner has let go: then nobody works on it any more, as far as
    /// [`Worker`](crate::Worker) promises. What is returned is what [`delete`](Self::delete) would have.
    ///
    /// That takes as long as the owner's clean-up does, at most its release timeout; or, if it is dead, until its lock
    /// ends, and if it had a [grace](crate::WorkerOptions::grace), until that is over or somebody of its name comes. While
    /// the server cannot be reached, it goes on waiting.
    ///
    /// # Errors
    ///
    /// As [`delete`](Self::delete).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the job is deleted all the same, or not if that had not been sent. Call again to wait again.
    pub async fn delete_and_wait(&self, id: &JobId) -> Result<Deleted> {
        let code = self.delete_code(id).await?;
        if let DeleteCode::Releasing { grant, .. } = code {
            let waiter = self.waiters.register(id, grant);
            loop {
                let told = waiter.told();
                tokio::pin!(told);
                told.as_mut().enable();
                match self.cluster.store.find(id).await {
                    Ok(Some(found))
                        if found.record.grant == grant
                            && matches!(found.record.state, JobState::Releasing { .. }) => {}
                    Ok(_) => break,
                    Err(error) if error.is_retryable() => {}
                    Err(error) => return Err(error),
                }
                // Told by push; the look makes up for a push that was lost.
                let _ = tokio::time::timeout(self.cluster.settings.heartbeat(), told).await;
            }
        }
        Ok(code.into())
    }

    async fn delete_code(&self, id: &JobId) -> Result<DeleteCode> {
        let codes = self.cluster.store.delete(&[(id.clone(), None)]).await?;
        let code = codes.first().copied().unwrap_or(DeleteCode::Unknown);
        tracing::debug!(cluster = self.cluster.settings.id, job = %id, ?code, "delete");
        self.replicated("deleting a job").await?;
        Ok(code)
    }

    /// One job: where it is, and its payload. `None` if there is no such job.
    ///
    /// # Errors
    ///
    /// Those of the connection.
    ///
    /// # Cancel safety
    ///
    /// Reads only.
    pub async fn job(&self, id: &JobId) -> Result<Option<StoredJob>> {
        let found = self.cluster.store.find(id).await?;
        Ok(found.map(|found| StoredJob {
            info: JobInfo { id: id.clone(), state: found.record.state },
            payload: found.payload,
            crashes: found.crashes.0,
            history: found.crashes.1.into_iter().map(Crash::from).collect(),
        }))
    }

    /// All jobs and where they are, page by page, in no order. A job that is there from beginning to end is
    /// yielded at least once, and twice only if the server reorders its table meanwhile.
    ///
    /// # Errors
    ///
    /// Those of the connection; the stream ends at the first.
    ///
    /// # Cancel safety
    ///
    /// Reads only; may be dropped at any time.
    pub fn jobs(&self) -> BoxStream<'static, Result<JobInfo>> {
        let cluster = self.cluster.clone();
        let pages = stream::try_unfold(Some("0".to_owned()), move |cursor| {
            let cluster = cluster.clone();
            async move {
                let Some(cursor) = cursor else { return Ok(None) };
                let (rows, next) = cluster.store.list(&cursor).await?;
                Ok(Some((rows, next)))
            }
        });
        pages
            .flat_map(|page| {
                let rows: Vec<Result<JobInfo>> = match page {
                    Ok(rows) => {
                        rows.into_iter().map(|(id, record)| Ok(JobInfo { id, state: record.state })).collect()
                    }
                    Err(error) => vec![Err(error)],
                };
                stream::iter(rows)
            })
            .boxed()
    }

    /// All workers, by number.
    ///
    /// # Errors
    ///
    /// Those of the connection.
    ///
    /// # Cancel safety
    ///
    /// Reads only.
    pub async fn workers(&self) -> Result<Vec<WorkerInfo>> {
        let (mut workers, mut cursor) = (Vec::new(), Some("0".to_owned()));
        while let Some(at) = cursor {
            let (rows, next) = self.cluster.store.roster(&at).await?;
            workers.extend(rows.into_iter().map(WorkerInfo::from));
            cursor = next;
        }
        workers.sort_unstable_by_key(|worker| worker.id);
        workers.dedup_by_key(|worker| worker.id);
        Ok(workers)
    }

    /// The cluster in numbers, all of one moment.
    ///
    /// # Errors
    ///
    /// Those of the connection.
    ///
    /// # Cancel safety
    ///
    /// Reads only.
    pub async fn stats(&self) -> Result<Stats> {
        self.cluster.store.survey().await.map(Stats::from)
    }
}

impl fmt::Debug for Master {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Master").field("cluster", &self.cluster.settings.id).finish_non_exhaustive()
    }
}

/// How many of these go into one script: by number and by bytes, at least one.
fn batch_len(jobs: &[(JobId, Bytes)]) -> usize {
    let mut bytes = 0;
    let fitting = jobs.iter().take(BATCH_JOBS).take_while(|(_, payload)| {
        bytes += payload.len();
        bytes <= BATCH_BYTES
    });
    fitting.count().max(1)
}

fn partly(error: Error, done: usize, of: usize) -> Error {
    if of > 1 { error.note(&format!("the first {done} of {of} are done")) } else { error }
}

//! What a master is asked, and what it answers: plain values.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::Deserialize;

use crate::error::Result;
use crate::id::{JobId, Revision, WorkerId};
use crate::message::Order;
use crate::payload;
use crate::redis::store::{self, DeleteCode, JobState, RosterRow, Survey, UpdateCode};
use crate::worker::Info;

/// How to add a job. `AddOptions::default()` leaves everything to the crate.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct AddOptions {
    /// The job's id; a fresh UUIDv7 if `None`.
    pub id: Option<JobId>,
}

impl AddOptions {
    /// Adds under this id, at most once: repeating it is safe.
    #[must_use]
    pub fn id(mut self, id: JobId) -> Self {
        self.id = Some(id);
        self
    }
}

/// What became of an add.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "an existing job has kept its old payload"]
pub enum Added {
    /// The job is new.
    New(JobId),
    /// There was a job under that id; it was left as it is, its payload too.
    Existing(JobId),
}

impl Added {
    /// The job's id.
    pub fn id(&self) -> &JobId {
        match self {
            Self::New(id) | Self::Existing(id) => id,
        }
    }

    /// The job's id.
    pub fn into_id(self) -> JobId {
        match self {
            Self::New(id) | Self::Existing(id) => id,
        }
    }

    /// Whether this call added it.
    pub fn is_new(&self) -> bool {
        matches!(self, Self::New(_))
    }
}

/// What became of a delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Deleted {
    /// There is no such job.
    Unknown,
    /// It waited for a worker, and is gone.
    Gone,
    /// Its owner is told, and it is gone when the owner has let go. Also if it had been deleted before.
    Releasing {
        /// The owner.
        worker: WorkerId,
    },
}

impl From<DeleteCode> for Deleted {
    fn from(code: DeleteCode) -> Self {
        match code {
            DeleteCode::Unknown => Self::Unknown,
            DeleteCode::Gone => Self::Gone,
            DeleteCode::Releasing { worker, .. } => Self::Releasing { worker },
        }
    }
}

/// What became of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Updated {
    /// There is no such job.
    Unknown,
    /// Its owner is told.
    Pushed,
    /// Nobody holds it, or it is on its way to another worker: that one begins with the new payload.
    Stored,
}

impl From<UpdateCode> for Updated {
    fn from(code: UpdateCode) -> Self {
        match code {
            UpdateCode::Unknown => Self::Unknown,
            UpdateCode::Told => Self::Pushed,
            UpdateCode::Stored => Self::Stored,
        }
    }
}

/// A worker crashed soon after it was given the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Crash {
    /// Which worker.
    pub worker: WorkerId,
    /// When its lock ended, by the server's clock.
    pub at: SystemTime,
}

impl From<store::Crash> for Crash {
    fn from(crash: store::Crash) -> Self {
        Self { worker: crash.worker, at: UNIX_EPOCH.checked_add(crash.at).unwrap_or(UNIX_EPOCH) }
    }
}

/// A job and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobInfo {
    /// Which job.
    pub id: JobId,
    /// Where it is.
    pub state: JobState,
}

/// A job as it is in Redis, with its payload.
#[derive(Clone)]
pub struct StoredJob {
    pub(super) info: JobInfo,
    pub(super) payload: Bytes,
    pub(super) crashes: u32,
    pub(super) history: Vec<Crash>,
}

impl StoredJob {
    /// Which job.
    pub fn id(&self) -> &JobId {
        &self.info.id
    }

    /// Where it is.
    pub fn state(&self) -> JobState {
        self.info.state
    }

    /// The payload as the type that was added. Borrows where `T` borrows.
    ///
    /// # Errors
    ///
    /// [`Decode`](crate::ErrorKind::Decode) if it is not a `T`, as the (empty) payload of a deleted job that is
    /// still held never is.
    pub fn payload<'a, T: Deserialize<'a>>(&'a self) -> Result<T> {
        payload::decode(&self.payload, &self.info.id)
    }

    /// The payload as it was added: MessagePack.
    pub fn payload_bytes(&self) -> &Bytes {
        &self.payload
    }

    /// How many crashes of its owners the job is suspected of (see
    /// [`max_crashes`](crate::ClusterBuilder::max_crashes)); zero again when an owner has held it for long enough.
    pub fn crashes(&self) -> u32 {
        self.crashes
    }

    /// The last of those crashes, the oldest first; at most eight.
    pub fn crash_history(&self) -> &[Crash] {
        &self.history
    }
}

impl fmt::Debug for StoredJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredJob")
            .field("id", self.id())
            .field("state", &self.state())
            .field("payload_bytes", &self.payload.len())
            .field("crashes", &self.crashes)
            .finish()
    }
}

/// A worker as the cluster sees it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WorkerInfo {
    /// Its number.
    pub id: WorkerId,
    /// Its host's name, as the worker says; may be empty.
    pub host: String,
    /// Its process id, as the worker says.
    pub pid: u32,
    /// The version of this crate that it runs.
    pub version: String,
    /// When it joined, by the server's clock.
    pub since: SystemTime,
    /// Until its lock ends if no heartbeat comes; zero if it has ended and nobody has reaped it yet.
    pub lock_remaining: Duration,
    /// How many jobs it holds, those that it is letting go of included.
    pub jobs: u64,
    /// Whether it is given new jobs; not while it leaves or is drained.
    pub accepts_jobs: bool,
    /// Its name, if it has one, as it says.
    pub name: Option<String>,
    /// Its weight; zero if it is given no jobs.
    pub weight: u32,
    /// How many jobs it holds at most; `None`: any number, or it is given none.
    pub capacity: Option<u32>,
    /// Whether a master has ordered it to be drained.
    pub drained: bool,
    /// Whether it was told to go.
    pub evicted: bool,
}

impl From<RosterRow> for WorkerInfo {
    fn from(row: RosterRow) -> Self {
        // What a worker says of itself may be anything; then only the server's part is shown.
        let Info { host, pid, version, name } = rmp_serde::from_slice(&row.info).unwrap_or_default();
        Self {
            id: row.worker,
            host,
            pid,
            version,
            since: UNIX_EPOCH.checked_add(row.since).unwrap_or(UNIX_EPOCH),
            lock_remaining: row.remaining,
            jobs: row.jobs,
            accepts_jobs: row.takes,
            name,
            weight: row.weight.try_into().unwrap_or(u32::MAX),
            capacity: row.capacity.try_into().ok().filter(|capacity| *capacity != 0),
            drained: row.order == Order::Drain,
            evicted: row.order == Order::Evict,
        }
    }
}

/// The cluster in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// The last change's revision.
    pub revision: Revision,
    /// All jobs: waiting, held, and deleted ones that are still held.
    pub jobs: u64,
    /// Jobs that wait for a worker.
    pub pending: u64,
    /// Jobs that are given to nobody until they are [requeued](crate::Master::requeue).
    pub quarantined: u64,
    /// Workers.
    pub workers: u64,
}

impl From<Survey> for Stats {
    fn from(survey: Survey) -> Self {
        let Survey { revision, jobs, pending, workers, quarantined, .. } = survey;
        Self { revision, jobs, pending, quarantined, workers }
    }
}

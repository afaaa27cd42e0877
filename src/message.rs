//! What the server says, decoded: plain values between `wire`, `redis` and `core`. No logic.

use bytes::Bytes;

use crate::change::Change;
use crate::id::{JobId, Revision, WorkerId};

/// A message on a worker's inbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Its own revision; no other frame of the cluster has it.
    pub(crate) revision: Revision,
    /// The revision of the frame before it on the same inbox.
    pub(crate) previous: Revision,
    pub(crate) body: Body,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// The job is this worker's; the grant is the frame's revision.
    Add { job: JobId, born: Revision, payload: Bytes },
    /// The worker is to let go of the job that it holds by this grant.
    Delete { job: JobId, grant: Revision, reason: DeleteReason },
    /// The job that the worker holds by this grant has another payload, as of the frame's revision.
    Update { job: JobId, grant: Revision, payload: Bytes },
    /// The worker is to send a heartbeat: its answer says what is new.
    Attend,
    /// The worker was reaped: its lock had ended.
    Fenced,
}

/// Why a worker is told to let go of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeleteReason {
    /// The job was deleted. When the last handle is dropped, it is gone.
    Removed,
    /// The job goes to another worker, which gets it when the last handle here is dropped.
    Rebalanced,
    /// The worker's lock ends, or has ended: others take its jobs. Stop at once.
    LockExpired,
    /// The worker is leaving: when the last handle is dropped, the job goes to another.
    Terminated,
    /// The worker is being drained, and stays: when the last handle is dropped, the job goes to another.
    Drained,
    /// The worker was told to go, by a master or by a newcomer of the same name: when the last handle is dropped, the
    /// job goes to another.
    Evicted,
    /// The cluster that the job belonged to is gone from the server (wiped, or another data set).
    ClusterReset,
}

/// Why a worker's stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseReason {
    /// [`terminate`](crate::Worker::terminate) was called, and every job is released.
    Terminated,
    /// A master [evicted](crate::Master::evict) the worker, or another one has taken its name; every job is released.
    /// Do not come back under the same name: somebody else has it.
    Evicted,
    /// The lock could no longer be relied on: it ended, or its end came too close without an answer from the
    /// server. Make a new worker to go on.
    LockExpired,
    /// The cluster is gone from the server (wiped, or another data set). Make a new worker to go on.
    ClusterReset,
}

/// A message on the control channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    /// A worker left by itself.
    Left(WorkerId),
    /// Somebody reaps this worker and has not finished yet.
    Reaping(WorkerId),
    /// Somebody has reaped this worker.
    Reaped(WorkerId),
}

/// A message on the released channel: a deleted job is no longer held by this grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Released {
    pub(crate) job: JobId,
    pub(crate) grant: Revision,
}

/// Where a page of a snapshot ends: the residue of the last grant in it (grant mod 2^26).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cursor(pub(crate) u64);

/// The residues by which a snapshot is paged are grants modulo this.
pub(crate) const SPAN: u64 = 1 << 26;

/// One page of what a worker holds, as the server sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// The cluster's revision when the page was read.
    pub(crate) revision: Revision,
    /// The revision of the last frame that was sent to the worker before the page was read.
    pub(crate) inbox: Revision,
    /// Since when epochs count anew (see `Epoch`): an assignment's epoch is max(grant, lifted).
    pub(crate) lifted: Revision,
    /// Where the next page begins; `None` on the last.
    pub(crate) next: Option<Cursor>,
    pub(crate) rows: Vec<Row>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) job: JobId,
    pub(crate) grant: Revision,
    /// The revision of the job's add (zero if the job was deleted).
    pub(crate) born: Revision,
    /// The revision of its last update; zero if there was none.
    pub(crate) changed: Revision,
    pub(crate) state: RowState,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RowState {
    /// It was deleted. The worker is to let go of it, or has done so and the server does not know yet.
    Releasing,
    /// It is to go to another worker. This one is to let go of it, or has done so and the server does not know yet.
    Moving,
    /// Assigned. The payload is there only if the grant or an update is after the revision that the request named.
    Active(Option<Bytes>),
}

/// On what terms a worker takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    /// Its load is the number of its jobs divided by this.
    pub(crate) weight: u32,
    /// How many jobs it holds at most; `None`: any number.
    pub(crate) capacity: Option<u32>,
    /// How many jobs that move it is handed in a second; `None`: any number.
    pub(crate) takeover_rate: Option<u32>,
}

/// What a master, or a newcomer of the same name, wants of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// To go on.
    Resume,
    /// To give up its jobs, and stay.
    Drain,
    /// To give up its jobs, and go.
    Evict,
}

/// What one script did: changes, in order. On the channel of changes, and in the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    /// The revision of its last change.
    pub(crate) last: Revision,
    /// That of the batch before it.
    pub(crate) previous: Revision,
    pub(crate) changes: Vec<Change>,
}

/// What the journal has after a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct History {
    /// Whether it reaches back so far.
    pub(crate) reaches: bool,
    /// The revision of the last batch there was.
    pub(crate) target: Revision,
    pub(crate) batches: Vec<Batch>,
    /// There are more.
    pub(crate) more: bool,
}

//! Assemblage holds a cluster of workers together through Redis or Valkey.
//!
//! A master adds long-lived *jobs* ("watch this mailbox, this market, this camera"). Each is pushed to one worker, as
//! an event of a stream, and stays there until it is deleted. When a worker dies, its jobs go to the others, and no
//! job is ever held by two. It is no task queue: jobs do not run to completion, they are held.
//!
//! # A master and a worker
//!
//! ```no_run
//! use assemblage::{Cluster, Event, Job};
//! use futures::StreamExt;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Mailbox {
//!     host: String,
//!     user: String,
//! }
//!
//! async fn watch(job: Job) -> assemblage::Result<()> {
//!     let mailbox: Mailbox = job.payload()?;
//!     println!("watching {} at {}", mailbox.user, mailbox.host);
//!     job.deleted().await; // work until then; here, stop and clean up
//!     Ok(()) // the handle is dropped, and with it the job is released
//! }
//!
//! #[tokio::main]
//! async fn main() -> assemblage::Result<()> {
//!     let cluster = Cluster::builder("mail").connect_url("redis://localhost").await?;
//!
//!     // Often another process; any number of either.
//!     let master = cluster.master().await?;
//!     master.add(&Mailbox { host: "imap.example.com".into(), user: "ann".into() }).await?;
//!
//!     let mut worker = cluster.worker().await?;
//!     while let Some(event) = worker.next().await {
//!         match event {
//!             Event::Add(job) => drop(tokio::spawn(watch(job))),
//!             Event::Close(reason) => println!("closed: {reason:?}"),
//!             other => println!("{other:?}"),
//!         }
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # The model
//!
//! - A [`Cluster`] is a name on a server. Whoever connects under it may be a master, a worker, or both.
//! - A *job* is an id and a payload: any `Serialize` type, kept as MessagePack and never looked at on the way. It is
//!   pending until a worker is there for it, and goes to the one that holds the least.
//! - A [`Worker`] is a [`Stream`](futures::Stream) of [`Event`]s and holds a *lock*: a key in Redis that lives for
//!   [`lock_ttl`](ClusterBuilder::lock_ttl) and that heartbeats prolong. When the lock ends, so do all of the
//!   worker's assignments, and other workers take the jobs over. That goes by workers alone: no master is needed.
//! - Each assignment of a job to a worker has an [`Epoch`]: a number larger than that of every assignment of the job
//!   before.
//! - *Release by drop*: after its [`Delete`](Event::Delete) a job counts as held until every handle to it is dropped,
//!   the [`Job`]s and the [`Deletion`]. Only then does it go to another worker, or is it gone, which is when
//!   [`delete_and_wait`](Master::delete_and_wait) returns. Before its `Delete`, dropping a handle changes nothing; to
//!   be rid of a job, its worker calls [`Job::delete`].
//!
//! # What is promised
//!
//! - **One owner.** At most one worker holds a job. A new owner's `Add` is never sent before the old owner released
//!   the job, or its release timed out, or its lock ended.
//! - **Nothing lost.** An added job is in Redis before [`add`](Master::add) returns. While a worker with room lives, each job
//!   has an owner within a bounded time: about a `lock_ttl` after the death of the owner before.
//! - **The stream.** Per job one `Add`, then `Update`s, then at most one `Delete`, in turn, whatever was lost,
//!   repeated or reordered underneath. The last event is one `Close`, after a `Delete` for each job still held.
//! - **Notifications are hints.** With every push and keyspace event lost or switched off, all of this still holds,
//!   at most a heartbeat (a third of `lock_ttl`) later.
//! - **Bounded memory.** What waits for a slow consumer is at most one pending change a job.
//! - **Honest failure.** A refusal is an [`Error`] whose text says what to do and whose [`kind`](Error::kind) is for
//!   programs. A lost connection is not the end: it is brought back, and what was missed is asked for.
//!
//! # What is not promised
//!
//! A lock with a time to live cannot stop a process, it can only be told to stop. So two may work on one job for a
//! while
//!
//! - if a handler goes on after its `Delete` for longer than the [release timeout](ClusterBuilder::release_timeout),
//!   or, where the lock was lost, than the [fence margin](ClusterBuilder::fence_margin);
//! - if a whole process is paused (a suspended machine, a debugger) for longer than its lock: it gives everything up
//!   when it wakes, but what it had sent is on its way;
//! - if code in the process blocks a thread of the runtime, without an `.await`, for that long: the timers and the
//!   connections of every other task may hang at that very thread, however many there are, and heartbeats with
//!   them. Put such code into `spawn_blocking`, or the cluster's side into a runtime of its own;
//! - if the server fails over to a replica that lacks the last writes, or is wiped, until both workers have heard of
//!   it;
//! - if the server's clock is set forward, which ends locks early.
//!
//! In all of these the epoch decides. As long as nobody checks it, a job's effects may be doubled; nor is there any
//! promise that an effect happens exactly once.
//!
//! # Who holds what
//!
//! A job goes to the worker that holds the least for its [`weight`](WorkerOptions::weight) and is below its
//! [`capacity`](WorkerOptions::capacity); jobs that find no room wait in order. A worker that joins gets its share by
//! [rebalancing](Rebalance), a part of the difference at a time. A [drain](Worker::drain) empties a worker that stays; a
//! [name](WorkerOptions::name) lets one that is restarted have its jobs again; a
//! [takeover rate](WorkerOptions::takeover_rate) spares what thousands of moving jobs connect to; a job that crashes its workers
//! is [quarantined](ClusterBuilder::max_crashes). [`Fence`] tells what to do while the server cannot be reached.
//!
//! [`Cluster::watch`] tells of all of this as it happens, and a [`Mirror`] answers from memory who holds what.
//!
//! # Fencing
//!
//! Where a job's results are stored, store its epoch beside them, and refuse a write of an older one, in one atomic
//! step. A new owner begins with a write: from then on nothing of the owner before gets in. Epochs stay below 2^53. In
//! SQL, where no updated row means refused:
//!
//! ```sql
//! UPDATE mailbox SET state = $1, epoch = $2 WHERE id = $3 AND epoch <= $2
//! ```
//!
//! The same in Rust:
//!
//! ```
//! #[derive(Default)]
//! struct Row {
//!     epoch: u64,
//!     state: String,
//! }
//!
//! impl Row {
//!     /// Takes the write, unless a later owner has been here.
//!     fn write(&mut self, epoch: u64, state: &str) -> bool {
//!         let taken = epoch >= self.epoch;
//!         if taken {
//!             (self.epoch, self.state) = (epoch, state.into());
//!         }
//!         taken
//!     }
//! }
//!
//! let mut row = Row::default();
//! let (paused, successor) = (1_795_000_000_000_001, 1_795_000_000_000_002); // from job.epoch().get()
//! assert!(row.write(paused, "40 messages"));
//! assert!(row.write(successor, "41 messages"));
//! assert!(!row.write(paused, "40 messages, flagged"), "woke up too late");
//! assert_eq!(row.state, "41 messages");
//! ```
//!
//! Ask for [`Job::epoch`] at each write: after a failover it can grow while the job is held.
//!
//! # The life of a worker
//!
//! ```text
//! worker() -- Add, Update, Delete ... --+-- terminate(), or drop ----> Delete(Terminated) each ----+
//!                                       +-- its lock nears its end --> Delete(LockExpired) each ---+--> Close
//!                                       +-- the cluster was wiped ---> Delete(ClusterReset) each --+
//! ```
//!
//! Heartbeats go on in a task of the worker's own, whether or not the stream is polled. A worker that gets no answer
//! stops by its own clock, a fence margin before its lock can end. It does not come back: to go on, make a new one.
//! [`Worker::handle`] steers it from elsewhere, at a signal for example. [`Cluster::serve`] does all of the following by
//! itself, and more; by hand it is:
//!
//! ```no_run
//! # async fn handle(_: assemblage::Event) {}
//! use assemblage::{CloseReason, Cluster, Event};
//! use futures::StreamExt;
//!
//! /// Works as one worker after the other, until the last one is terminated.
//! async fn work(cluster: &Cluster) -> assemblage::Result<()> {
//!     loop {
//!         let mut worker = cluster.worker().await?;
//!         while let Some(event) = worker.next().await {
//!             match event {
//!                 Event::Close(CloseReason::Terminated) => return Ok(()),
//!                 Event::Close(reason) => println!("{reason:?}: joining anew"),
//!                 event => handle(event).await,
//!             }
//!         }
//!     }
//! }
//! ```
//!
//! # In an application that uses fred
//!
//! A cluster can live on a [`fred`] client or pool that is there already. It is never initialised, reconfigured or
//! quit, and subscriptions get connections of their own with its configuration.
//!
//! ```no_run
//! use assemblage::Cluster;
//! use assemblage::fred::prelude::*;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Builder::from_config(Config::from_url("redis://localhost")?).build()?;
//! client.init().await?;
//! let cluster = Cluster::builder("mail").client(client.clone()).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What the server needs
//!
//! Redis 7.0 or Valkey 7.2, alone, behind sentinels or as a Redis Cluster, where all keys of a cluster of ours share
//! one hash slot. `maxmemory-policy noeviction`, or locks and jobs may be evicted. Keyspace notifications (`Kxe`),
//! which are turned on when connecting if `CONFIG` is allowed and done without if not. [`Cluster::server`] tells what
//! was found. The rights of a user are listed in `PROTOCOL.md`, which comes with the crate.
//!
//! # Features
//!
//! | feature | |
//! |---|---|
//! | `unix-sockets` (default) | `redis+unix:///path/to.sock` |
//! | `tls-rustls`, `tls-rustls-ring`, `tls-native` | `rediss://`, by one of fred's backends |
//!
//! A certificate authority of one's own is named by the environment's `SSL_CERT_FILE`, or given by `ClusterBuilder::tls`. With
//! both rustls backends, or where another crate brings in the second one, `ring` is taken if its feature is on here, unless the
//! application has installed its own choice.
//!
//! The oldest supported Rust is 1.89. A tokio runtime must be there wherever a cluster connects or joins.
//!
//! # Where to go next
//!
//! [`Cluster::builder`] for the settings, each with its default and why; [`Event`] for what to do at each event;
//! [`Worker`] for its guarantees; [`Master`] for adding, deleting and looking. The repository's `examples` have whole
//! programs, and `make demo` kills workers before your eyes.

mod change;
mod cluster;
mod core;
mod error;
mod event;
mod id;
mod job;
mod master;
mod message;
mod payload;
mod redis;
mod serve;
mod shell;
mod watch;
mod wire;
mod worker;

#[cfg(test)]
#[path = "../tests/it/support/server.rs"]
mod test_server;

/// The README's programs compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use fred;

pub use crate::change::{Change, ChangeKind};
pub use crate::cluster::{Cluster, ClusterBuilder, Durability, Rebalance};
pub use crate::core::lease::Fence;
pub use crate::error::{Error, ErrorKind, Result};
pub use crate::event::{Deletion, Event};
pub use crate::id::{Epoch, JobId, Revision, WorkerId};
pub use crate::job::Job;
pub use crate::master::{
    AddOptions, Added, Crash, Deleted, JobInfo, Master, Stats, StoredJob, Updated, WorkerInfo,
};
pub use crate::message::{CloseReason, DeleteReason};
pub use crate::redis::server::{Notifications, ServerReport};
pub use crate::redis::store::JobState;
pub use crate::serve::{Serve, Task};
pub use crate::watch::{Mirror, Snapshot, Watch, WatchOptions};
pub use crate::worker::{NameConflict, Worker, WorkerHandle, WorkerOptions};

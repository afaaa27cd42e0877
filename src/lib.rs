//! Assemblage holds a cluster of workers together through Redis.

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
mod wire;
mod worker;

#[cfg(test)]
#[path = "../tests/it/support/server.rs"]
mod test_server;

pub use fred;

pub use crate::cluster::{Cluster, ClusterBuilder};
pub use crate::error::{Error, ErrorKind, Result};
pub use crate::event::{Deletion, Event};
pub use crate::id::{Epoch, JobId, Revision, WorkerId};
pub use crate::job::Job;
pub use crate::master::{AddOptions, Added, Deleted, JobInfo, Master, Stats, StoredJob, WorkerInfo};
pub use crate::message::{CloseReason, DeleteReason};
pub use crate::redis::server::{Notifications, ServerReport};
pub use crate::redis::store::JobState;
pub use crate::serve::{Serve, Task};
pub use crate::worker::{Worker, WorkerHandle};

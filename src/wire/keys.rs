//! The only place where a key's or a channel's name is made.

use crate::id::WorkerId;

/// The names of one cluster's keys and channels. All bear the tag `{prefix:id}`, so they share a hash slot.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    pub(crate) meta: String,
    pub(crate) rev: String,
    pub(crate) jobs: String,
    pub(crate) owner: String,
    pub(crate) assigned: String,
    pub(crate) pending: String,
    pub(crate) load: String,
    pub(crate) deadlines: String,
    pub(crate) workers: String,
    pub(crate) inbox: String,
    pub(crate) terms: String,
    pub(crate) crashes: String,
    pub(crate) quarantine: String,
    pub(crate) watch: String,
    /// Written by whoever waits for replicas.
    pub(crate) durable: String,
    /// A stream, and the channel of the same name: what happens, for watchers.
    pub(crate) changes: String,
    /// Channel: changes of membership, for every participant.
    pub(crate) control: String,
    /// Channel: deleted jobs whose owner has let go, for masters that wait.
    pub(crate) released: String,
    /// Prefix of the channels of the workers' inboxes; the worker's number follows.
    pub(crate) inbox_channel: String,
    /// Prefix of the workers' locks; the worker's number follows.
    pub(crate) lock_prefix: String,
}

impl Keys {
    pub(crate) fn new(prefix: &str, cluster: &str) -> Self {
        let key = |name: &str| format!("{{{prefix}:{cluster}}}:{name}");
        Self {
            meta: key("meta"),
            rev: key("rev"),
            jobs: key("jobs"),
            owner: key("owner"),
            assigned: key("assigned"),
            pending: key("pending"),
            load: key("load"),
            deadlines: key("deadlines"),
            workers: key("workers"),
            inbox: key("inbox"),
            terms: key("terms"),
            crashes: key("crashes"),
            quarantine: key("quarantine"),
            watch: key("watch"),
            durable: key("durable"),
            changes: key("changes"),
            control: key("control"),
            released: key("released"),
            inbox_channel: key("inbox:"),
            lock_prefix: key("lock:"),
        }
    }

    pub(crate) fn lock(&self, worker: WorkerId) -> String {
        format!("{}{worker}", self.lock_prefix)
    }

    pub(crate) fn inbox_of(&self, worker: WorkerId) -> String {
        format!("{}{worker}", self.inbox_channel)
    }

    /// The pattern of the keyspace notifications of every lock.
    pub(crate) fn lock_events(&self, database: u8) -> String {
        format!("__keyspace@{database}__:{}*", self.lock_prefix)
    }

    /// Which worker's lock a key is; `None` for any other key.
    pub(crate) fn worker_of_lock(&self, key: &[u8]) -> Option<WorkerId> {
        let number = key.strip_prefix(self.lock_prefix.as_bytes())?;
        std::str::from_utf8(number).ok()?.parse().ok().map(WorkerId)
    }
}

//! A cluster: its settings, and the connection that its masters and workers share.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fred::clients::{Client, Pool};

use crate::core::lease::Lease;
use crate::error::{Error, ErrorKind, Result};
use crate::master::Master;
use crate::redis::connect::{Commands, Connection};
use crate::redis::server::{self, ServerReport};
use crate::redis::store::Store;
use crate::redis::tls::Tls;
use crate::serve::{Serve, Task};
use crate::watch::{Mirror, Watch, WatchOptions};
use crate::wire::keys::Keys;
use crate::worker::{Worker, WorkerOptions};

/// What every participant of one process shares. The last one to go closes the connection, if it is ours.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) connection: Connection,
    pub(crate) keys: Arc<Keys>,
    pub(crate) store: Arc<Store>,
    report: ServerReport,
}

impl Shared {
    /// Which run of which server has the cluster's keys now.
    pub(crate) async fn run_id(&self) -> Result<String> {
        let client = self.connection.commands.client();
        let run_id = server::run_id(client, &self.keys, self.settings.command_timeout).await;
        run_id.map_err(|error| self.store.explain(error))
    }

    /// Opens the cluster on the server's present run, and says which that is.
    pub(crate) async fn reopen(&self) -> Result<String> {
        let run_id = self.run_id().await?;
        self.store.open(&run_id).await?;
        Ok(run_id)
    }

    /// Sees to it, on a server that started anew, that the end of a lock is announced.
    pub(crate) async fn ensure_notifications(&self) -> Result<()> {
        let Settings { configure_server, command_timeout, .. } = self.settings;
        server::notifications(&self.connection, &self.keys, configure_server, command_timeout).await.map(drop)
    }
}

/// A named group of masters and workers that share a Redis or Valkey server.
///
/// Cheap to clone. Holds one connection for commands; each master and worker made from it opens one more, for
/// its subscription.
#[derive(Clone)]
pub struct Cluster {
    shared: Arc<Shared>,
}

impl Cluster {
    /// Settings for the cluster with this id; all have defaults.
    ///
    /// The id names the cluster among those on the same server, database and [`prefix`](ClusterBuilder::prefix): 1 to
    /// 128 bytes, without braces, glob characters (`*`, `?`, `[`, `]`, `\`), white space or control characters.
    pub fn builder(id: impl Into<String>) -> ClusterBuilder {
        ClusterBuilder { settings: Settings::new(id.into()) }
    }

    /// Joins as a master, which may add and delete jobs.
    ///
    /// # Errors
    ///
    /// Those of the connection: [`ErrorKind::Connection`], [`ErrorKind::Timeout`], [`ErrorKind::Denied`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, nothing is left behind.
    pub async fn master(&self) -> Result<Master> {
        Master::start(self.shared.clone()).await
    }

    /// Joins as a worker, which is given jobs from now on.
    ///
    /// # Errors
    ///
    /// Those of the connection: [`ErrorKind::Connection`], [`ErrorKind::Timeout`], [`ErrorKind::Denied`];
    /// [`ErrorKind::Closed`] if joining took longer than the lock's time to live; [`ErrorKind::LimitReached`] if the cluster has
    /// [`max_workers`](ClusterBuilder::max_workers).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, a worker that had joined already leaves when its lock ends.
    pub async fn worker(&self) -> Result<Worker> {
        self.worker_with(WorkerOptions::default()).await
    }

    /// Joins as a worker with options, such as a capacity or a name.
    ///
    /// # Errors
    ///
    /// As [`worker`](Self::worker); [`ErrorKind::InvalidSetting`] for an option that is refused; [`ErrorKind::NameTaken`]
    /// if a living worker has the name and [`NameConflict::Refuse`](crate::NameConflict::Refuse) was asked for.
    ///
    /// # Cancel safety
    ///
    /// As [`worker`](Self::worker).
    pub async fn worker_with(&self, options: WorkerOptions) -> Result<Worker> {
        Worker::start(self.shared.clone(), options).await
    }

    /// Watches everything that happens in the cluster, beginning with what there is.
    ///
    /// # Errors
    ///
    /// Those of the connection: [`ErrorKind::Connection`], [`ErrorKind::Timeout`], [`ErrorKind::Denied`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, nothing is left behind.
    pub async fn watch(&self) -> Result<Watch> {
        self.watch_with(WatchOptions::default()).await
    }

    /// Watches the cluster with options, such as a filter or a revision to go on from.
    ///
    /// # Errors
    ///
    /// As [`watch`](Self::watch); [`ErrorKind::InvalidSetting`] for an option that is refused.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, nothing is left behind.
    pub async fn watch_with(&self, options: WatchOptions) -> Result<Watch> {
        Watch::start(self.shared.clone(), options).await
    }

    /// Keeps a picture of the cluster in memory, that answers at once who holds what. Returns when it is complete.
    ///
    /// # Errors
    ///
    /// As [`watch`](Self::watch).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, nothing is left behind.
    pub async fn mirror(&self) -> Result<Mirror> {
        Mirror::start(self.watch().await?).await
    }

    /// Joins as a worker and runs an async function for each job: the easy way to use a worker. The
    /// [`Serve`] that it returns has the settings, and is awaited.
    ///
    /// ```no_run
    /// # async fn example(cluster: assemblage::Cluster) -> assemblage::Result<()> {
    /// use assemblage::{Result, Task};
    ///
    /// async fn watch(task: Task) -> Result<()> {
    ///     let user: String = task.payload()?;
    ///     println!("watching {user}, epoch {}", task.epoch());
    ///     task.stopped().await; // the work, until this resolves; then the clean-up
    ///     Ok(()) // with the handler's end the job is released
    /// }
    ///
    /// cluster.serve(watch).with_graceful_shutdown(tokio::signal::ctrl_c()).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn serve<F, Fut, E>(&self, handler: F) -> Serve
    where
        F: Fn(Task) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        Serve::new(self.shared.clone(), WorkerOptions::default(), None, handler)
    }

    /// The cluster's id.
    pub fn id(&self) -> &str {
        &self.shared.settings.id
    }

    /// What was found out about the server on connecting, and what should be mended there.
    pub fn server(&self) -> &ServerReport {
        &self.shared.report
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("settings", &self.shared.settings).finish_non_exhaustive()
    }
}

/// The settings of one process's part in a cluster, checked.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) id: String,
    pub(crate) prefix: String,
    pub(crate) database: Option<u8>,
    pub(crate) lock_ttl: Duration,
    pub(crate) fence_margin: Option<Duration>,
    pub(crate) release_timeout: Duration,
    pub(crate) command_timeout: Duration,
    pub(crate) max_payload: usize,
    pub(crate) configure_server: bool,
    pub(crate) rebalance: Option<Rebalance>,
    pub(crate) max_crashes: u32,
    pub(crate) max_jobs: u64,
    pub(crate) max_workers: u64,
    pub(crate) durability: Durability,
    pub(crate) tls: Option<Tls>,
}

/// What a master's add, update and delete wait for before they return.
///
/// Replication is asynchronous: what only the primary has is undone if a replica takes its place. Waiting narrows that
/// window; it does not close it (the replica that is promoted may be another one), and nothing is undone if the wait is in vain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// For the primary alone. The default.
    #[default]
    Primary,
    /// For so many replicas too (`WAIT`), for a third of [`lock_ttl`](ClusterBuilder::lock_ttl) or the command timeout at most;
    /// otherwise the call fails with [`ErrorKind::Unreplicated`], and what it did stays done. While it waits, other
    /// commands of the same connection wait too: heartbeats of workers that share it come later by so long.
    Replicas(u32),
}

/// How jobs move from workers that hold more than their share to those that hold less.
///
/// It is done a step at a time, at a heartbeat: the most loaded workers are asked to give up a part of what they have
/// above their fair share. Their consumers get [`Delete`](crate::Event::Delete) with
/// [`Rebalanced`](crate::DeleteReason::Rebalanced), and each job goes on when its handles are dropped. Nobody is asked
/// again before it has done so.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Rebalance {
    /// Which part of the difference moves in one step, from 0.001 to 1. Default 0.1: a newcomer is not flooded.
    pub share: f64,
    /// Which part of a fair share a difference must be to be worth a move, from 0 to 1; it is never less than what one
    /// job makes. Default 0.05.
    pub hysteresis: f64,
    /// How long it must have been quiet (nobody joined, left or was drained) before anything moves. Default 10 s: in a
    /// rolling restart each worker is replaced before its part is given away. At most a day.
    pub delay: Duration,
}

impl Default for Rebalance {
    fn default() -> Self {
        Self { share: 0.1, hysteresis: 0.05, delay: Duration::from_secs(10) }
    }
}

impl Rebalance {
    /// Which part of the difference moves in one step.
    #[must_use]
    pub fn share(mut self, share: f64) -> Self {
        self.share = share;
        self
    }

    /// Which part of a fair share a difference must be to be worth a move.
    #[must_use]
    pub fn hysteresis(mut self, hysteresis: f64) -> Self {
        self.hysteresis = hysteresis;
        self
    }

    /// How long it must have been quiet before anything moves.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    fn check(&self) -> Result<()> {
        let refuse = |text: String| Err(Error::new(ErrorKind::InvalidSetting, text));
        if !(0.001..=1.0).contains(&self.share) {
            return refuse(format!("rebalance.share is {}; it must be between 0.001 and 1", self.share));
        }
        if !(0.0..=1.0).contains(&self.hysteresis) {
            return refuse(format!(
                "rebalance.hysteresis is {}; it must be between 0 and 1",
                self.hysteresis
            ));
        }
        if self.delay > Duration::from_secs(86_400) {
            return refuse(format!("rebalance.delay is {:?}; at most a day is allowed", self.delay));
        }
        Ok(())
    }
}

/// As many as the numbers of workers that fit into an index of the server.
const MOST_WORKERS: u64 = 1 << 20;

const SHORTEST_TTL: Duration = Duration::from_millis(200);
const LONGEST_TTL: Duration = Duration::from_secs(3600);
const LONGEST_NAME: usize = 128;
/// The server's own limit of a string; also what keeps a frame far from the output buffers' limits.
const LARGEST_PAYLOAD: usize = 64 << 20;

/// A duration for people, who do not write `0ns`.
fn plain(duration: Duration) -> String {
    if duration.is_zero() { "0".to_owned() } else { format!("{duration:?}") }
}

impl Settings {
    fn new(id: String) -> Self {
        Self {
            id,
            prefix: "assemblage".into(),
            database: None,
            lock_ttl: Duration::from_secs(5),
            fence_margin: None,
            release_timeout: Duration::from_secs(30),
            command_timeout: Duration::from_secs(5),
            max_payload: 1 << 20,
            configure_server: true,
            rebalance: Some(Rebalance::default()),
            max_crashes: 3,
            max_jobs: 10_000_000,
            max_workers: 10_000,
            durability: Durability::Primary,
            tls: None,
        }
    }

    /// How far apart a worker's heartbeats are, and how often whatever hints may have been lost of is looked at.
    pub(crate) fn heartbeat(&self) -> Duration {
        Lease::interval(self.lock_ttl)
    }

    /// How long before the lock can end the worker gives up: a fifth of the time to live unless set.
    pub(crate) fn fence_margin(&self) -> Duration {
        self.fence_margin.unwrap_or(self.lock_ttl / 5)
    }

    fn check(&self) -> Result<()> {
        let refuse = |text: String| Err(Error::new(ErrorKind::InvalidSetting, text));
        for (what, name) in [("cluster id", &self.id), ("prefix", &self.prefix)] {
            let fault = if name.is_empty() {
                "is empty".to_owned()
            } else if name.len() > LONGEST_NAME {
                format!("is {} bytes long; at most {LONGEST_NAME} are allowed", name.len())
            } else if let Some(bad) = name.chars().find(|c| "{}*?[]\\".contains(*c)) {
                format!("has {bad:?}: braces and glob characters have a meaning in Redis; leave them out")
            } else if let Some(bad) = name.chars().find(|c| c.is_control() || c.is_whitespace()) {
                format!("has {bad:?}: leave out control characters and white space")
            } else {
                continue;
            };
            return refuse(format!("the {what} {fault}"));
        }
        if self.prefix.contains(':') {
            return refuse(
                "the prefix has ':', which ends it: two clusters could share their keys; leave it out".into(),
            );
        }
        if self.lock_ttl < SHORTEST_TTL || self.lock_ttl > LONGEST_TTL {
            return refuse(format!(
                "lock_ttl is {}; it must be between {SHORTEST_TTL:?} and {LONGEST_TTL:?}: below, a heartbeat (a third of \
                 it) has no time to be answered",
                plain(self.lock_ttl)
            ));
        }
        let margin = self.fence_margin();
        if margin < Duration::from_millis(10) || margin > self.lock_ttl / 2 {
            return refuse(format!(
                "fence_margin is {}; it must be between 10ms and half of lock_ttl ({:?}): above, one late \
                 heartbeat would close the worker",
                plain(margin),
                self.lock_ttl / 2
            ));
        }
        for (what, value) in
            [("release_timeout", self.release_timeout), ("command_timeout", self.command_timeout)]
        {
            if value < Duration::from_millis(10) || value > Duration::from_secs(86_400) {
                return refuse(format!("{what} is {}; it must be between 10ms and a day", plain(value)));
            }
        }
        if self.max_payload == 0 || self.max_payload > LARGEST_PAYLOAD {
            return refuse(format!(
                "max_payload is {} bytes; it must be between 1 and {LARGEST_PAYLOAD}",
                self.max_payload
            ));
        }
        if self.max_workers == 0 || self.max_workers > MOST_WORKERS {
            return refuse(format!(
                "max_workers is {}; it must be between 1 and {MOST_WORKERS}",
                self.max_workers
            ));
        }
        if let Durability::Replicas(count) = self.durability
            && !(1..=100).contains(&count)
        {
            return refuse(format!("durability is Replicas({count}); it must be between 1 and 100"));
        }
        if self.max_jobs == 0 || self.max_jobs > 1 << 40 {
            return refuse(format!("max_jobs is {}; it must be between 1 and 2^40", self.max_jobs));
        }
        self.rebalance.as_ref().map_or(Ok(()), Rebalance::check)
    }
}

/// Settings of a [`Cluster`], each with a default. One of the connecting methods ends it:
/// [`connect_url`](Self::connect_url), [`client`](Self::client) or [`pool`](Self::pool).
#[derive(Clone, Debug)]
#[must_use = "nothing is connected yet"]
pub struct ClusterBuilder {
    settings: Settings,
}

impl ClusterBuilder {
    /// What every key and channel of the cluster begins with. Default `assemblage`. Same rules as the id, and
    /// no colon.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.settings.prefix = prefix.into();
        self
    }

    /// The number of the database. Default: the URL's, or the embedding client's own. With an embedding client it can
    /// only confirm what that client uses.
    pub fn database(mut self, database: u8) -> Self {
        self.settings.database = Some(database);
        self
    }

    /// How long a worker's lock lives without a heartbeat, and so about how long the jobs of a dead worker
    /// stay with nobody. Default 5 s: long enough for a stalled network or a pause, short enough for people. From
    /// 200 ms to an hour; heartbeats are sent every third of it.
    ///
    /// Workers of one cluster may differ in it.
    pub fn lock_ttl(mut self, ttl: Duration) -> Self {
        self.settings.lock_ttl = ttl;
        self
    }

    /// How long before its lock can end a worker gives everything up, by its own clock, if no heartbeat was
    /// answered: the time that handlers have to stop before another worker may begin. Default: a fifth of the
    /// lock's time to live. From 10 ms to half of it.
    pub fn fence_margin(mut self, margin: Duration) -> Self {
        self.settings.fence_margin = Some(margin);
        self
    }

    /// How long a job may be held after its `Delete`, from the moment that the `Delete` is queued. Then it is
    /// released without its handler, which may still be at it: the stream says so by an `Error`. Default 30 s: a handler
    /// that has not cleaned up by then is taken to be stuck.
    pub fn release_timeout(mut self, timeout: Duration) -> Self {
        self.settings.release_timeout = timeout;
        self
    }

    /// How long to wait for the answer to a command. Default 5 s. Heartbeats wait no longer than a third of the
    /// lock's time to live.
    pub fn command_timeout(mut self, timeout: Duration) -> Self {
        self.settings.command_timeout = timeout;
        self
    }

    /// The largest payload that a master of this process may add, in bytes as MessagePack. Default 1 MiB: the payload
    /// travels in each push and stays in the server's memory.
    pub fn max_payload(mut self, bytes: usize) -> Self {
        self.settings.max_payload = bytes;
        self
    }

    /// Whether connecting may turn on the keyspace notifications that make takeovers fast, by `CONFIG SET`, adding
    /// to the flags that are set. Default true. Without them everything works all the same, by timers.
    pub fn configure_server(mut self, allowed: bool) -> Self {
        self.settings.configure_server = allowed;
        self
    }

    /// Whether and how jobs move to workers that hold less than their share, such as one that has just joined. Default
    /// [`Rebalance::default()`]; `None` switches it off, and a job stays until its worker goes. Set it alike in every process:
    /// masters and workers both ask for it.
    pub fn rebalance(mut self, rebalance: impl Into<Option<Rebalance>>) -> Self {
        self.settings.rebalance = rebalance.into();
        self
    }

    /// After how many crashes of its owners a job is quarantined; 0: never. Default 3: one crash is nobody's fault.
    ///
    /// A crash is the death of a worker within a minute after it was given the job. All jobs that it was given in that time
    /// are suspect, and of these only the ones that were suspected most
    /// often before; the suspects go to different workers, so that after a few crashes one is left. Only a single
    /// suspect is quarantined. In a cluster of one worker nothing can be told apart, and nothing is, unless it has but
    /// one job. Set it alike in every process.
    pub fn max_crashes(mut self, crashes: u32) -> Self {
        self.settings.max_crashes = crashes;
        self
    }

    /// How many jobs a master of this process lets the cluster have. Default 10 million: far above what one server
    /// holds with comfort, and below what fills it by a mistake.
    pub fn max_jobs(mut self, jobs: u64) -> Self {
        self.settings.max_jobs = jobs;
        self
    }

    /// How many workers a worker of this process finds in the cluster at most when it joins. Default 10,000. At most
    /// 1,048,576.
    pub fn max_workers(mut self, workers: u64) -> Self {
        self.settings.max_workers = workers;
        self
    }

    /// What a master's add, update and delete wait for before they return. Default [`Durability::Primary`].
    pub fn durability(mut self, durability: Durability) -> Self {
        self.settings.durability = durability;
        self
    }

    /// How TLS is spoken to a `rediss://` URL: a certificate authority of one's own, a certificate of the client. Default: the
    /// server's certificate is checked against those that the system trusts, or those in the file that `SSL_CERT_FILE`
    /// names, which is the simplest way to have an authority of one's own.
    ///
    /// An embedding client has its own.
    ///
    /// ```no_run
    /// # #[cfg(any(feature = "tls-rustls", feature = "tls-rustls-ring"))]
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use assemblage::Cluster;
    /// use assemblage::fred::rustls::pki_types::CertificateDer;
    /// use assemblage::fred::rustls::pki_types::pem::PemObject;
    /// use assemblage::fred::rustls::{ClientConfig, RootCertStore};
    /// use assemblage::fred::types::config::TlsConnector;
    ///
    /// let mut roots = RootCertStore::empty();
    /// roots.add(CertificateDer::from_pem_file("ca.crt")?)?;
    /// let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    /// let tls = TlsConnector::from(config).into();
    /// let cluster = Cluster::builder("mail").tls(tls).connect_url("rediss://redis.example.com").await?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(any(feature = "tls-rustls", feature = "tls-rustls-ring", feature = "tls-native"))]
    pub fn tls(mut self, tls: fred::types::config::TlsConfig) -> Self {
        self.settings.tls = Some(tls);
        self
    }

    /// Connects by URL:
    ///
    /// | to | |
    /// |---|---|
    /// | a server | `redis://user:password@host:port/database` |
    /// | a Redis Cluster, by some of its nodes | `redis-cluster://user:password@host:port?node=host:port&node=host:port` |
    /// | a primary that sentinels name | `redis-sentinel://user:password@host:port/database?sentinelServiceName=name&node=host:port`: hosts and nodes are the sentinels, the rest is the primary's (for a password of the sentinels, turn on fred's feature `sentinel-auth` and add `&sentinelUsername=..&sentinelPassword=..`) |
    /// | a unix socket | `redis+unix:///run/redis.sock`, `redis+unix://user:password@localhost/run/redis.sock`; its database by [`database`](Self::database) |
    ///
    /// User, password, port, database and further nodes may be left out. With TLS, by one of the `tls-*` features: `rediss://`,
    /// `rediss-cluster://`, `rediss-sentinel://`. `valkey` does as well as `redis`. In a user or password, write `%40` for an `@`, and so on
    /// for `/`, `?`, `#` and `%`. Whatever else is in the URL is refused: nothing is passed over in silence.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidSetting`] for a setting or a URL that is refused, or that is of a Redis Cluster where there is none;
    /// [`ErrorKind::Protocol`] if something else than Redis or Valkey listens there; [`ErrorKind::Connection`] or [`ErrorKind::Timeout`] if the server
    /// is not reached within the command timeout; [`ErrorKind::Denied`] for a wrong password or missing rights;
    /// [`ErrorKind::Incompatible`] for a server that is too old, or a cluster of another version of the protocol.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, nothing is left behind.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime that has its time and I/O drivers, as all that connects.
    pub async fn connect_url(mut self, url: impl AsRef<str>) -> Result<Cluster> {
        self.settings.check()?;
        let timeout = self.settings.command_timeout;
        let (database, tls) = (self.settings.database, self.settings.tls.take());
        let connection = Connection::connect_url(url.as_ref(), database, tls, timeout).await?;
        self.connect(connection).await
    }

    /// Lives in an application that has a fred client: commands go through it, with a timeout of their own, and the
    /// subscriptions get clients of their own with its configuration. It must be connected; it is never initialised,
    /// reconfigured or quit.
    ///
    /// # Errors
    ///
    /// As [`connect_url`](Self::connect_url).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, nothing is left behind.
    pub async fn client(self, client: Client) -> Result<Cluster> {
        self.embed(Commands::Client(client)).await
    }

    /// As [`client`](Self::client), with a pool: its connections take turns.
    ///
    /// # Errors
    ///
    /// As [`connect_url`](Self::connect_url).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, nothing is left behind.
    pub async fn pool(self, pool: Pool) -> Result<Cluster> {
        self.embed(Commands::Pool(pool)).await
    }

    async fn embed(self, commands: Commands) -> Result<Cluster> {
        self.settings.check()?;
        if self.settings.tls.is_some() {
            let text =
                "`tls` was given, but an embedding client has its own; set it in the client's configuration";
            return Err(Error::new(ErrorKind::InvalidSetting, text));
        }
        let connection = Connection::embedded(commands);
        if let Some(wanted) = self.settings.database
            && wanted != connection.database()
        {
            return Err(Error::new(
                ErrorKind::InvalidSetting,
                format!(
                    "database({wanted}) was asked for, but the client uses database {}; set it in the client's configuration",
                    connection.database()
                ),
            ));
        }
        self.connect(connection).await
    }

    async fn connect(self, connection: Connection) -> Result<Cluster> {
        let settings = self.settings;
        let keys = Arc::new(Keys::new(&settings.prefix, &settings.id));
        let timeout = settings.command_timeout;
        let report = server::preflight(&connection, &keys, settings.configure_server, timeout).await?;
        let store = Arc::new(Store::new(connection.commands.clone(), keys.clone(), timeout));
        store.open(&report.run_id).await?;
        tracing::info!(cluster = settings.id, server = %report, "connected");
        Ok(Cluster { shared: Arc::new(Shared { settings, connection, keys, store, report }) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(settings: impl FnOnce(ClusterBuilder) -> ClusterBuilder, id: &str) -> String {
        let error = settings(Cluster::builder(id)).settings.check().expect_err("must be refused");
        assert_eq!(error.kind(), ErrorKind::InvalidSetting);
        error.to_string()
    }

    #[test]
    fn an_id_that_redis_would_misread_is_refused_and_the_text_says_why() {
        assert!(refusal(|b| b, "").contains("is empty"));
        assert!(refusal(|b| b, &"x".repeat(129)).contains("129 bytes"));
        for id in ["a{b", "a}b", "a*", "a?", "[a", "a]", "a\\b"] {
            assert!(refusal(|b| b, id).contains("glob"), "{id}");
        }
        for id in ["a b", "a\nb", "a\0b"] {
            assert!(refusal(|b| b, id).contains("control"), "{id:?}");
        }
        assert!(refusal(|b| b.prefix("a:b"), "id").contains("':'"));
        assert!(refusal(|b| b.prefix(""), "id").contains("prefix is empty"));
        Cluster::builder("mail:eu-1.größe").settings.check().expect("a plain id is taken");
    }

    #[test]
    fn times_and_sizes_that_cannot_work_are_refused() {
        let ms = Duration::from_millis;
        assert!(refusal(|b| b.lock_ttl(ms(199)), "id").contains("heartbeat"));
        assert!(refusal(|b| b.lock_ttl(ms(0)), "id").contains("lock_ttl is 0; it must"));
        assert!(refusal(|b| b.lock_ttl(ms(3_600_001)), "id").contains("lock_ttl"));
        assert!(refusal(|b| b.fence_margin(ms(2_501)), "id").contains("fence_margin"));
        assert!(refusal(|b| b.fence_margin(ms(9)), "id").contains("fence_margin"));
        assert!(refusal(|b| b.release_timeout(ms(0)), "id").contains("release_timeout"));
        assert!(refusal(|b| b.command_timeout(ms(1)), "id").contains("command_timeout"));
        assert!(refusal(|b| b.max_payload(0), "id").contains("max_payload"));
        Cluster::builder("id").lock_ttl(ms(200)).settings.check().expect("200 ms is the shortest");
    }
}

//! A cluster: how it is built, and the connection that its masters and workers share.

mod settings;

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fred::clients::{Client, Pool};

pub(crate) use self::settings::Settings;
pub use self::settings::{Durability, Rebalance};
use crate::error::{Error, ErrorKind, Result};
use crate::master::Master;
use crate::redis::connect::{Commands, Connection};
use crate::redis::server::{self, ServerReport};
use crate::redis::store::Store;
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

#[cfg(test)]
impl Cluster {
    pub(crate) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("settings", &self.shared.settings).finish_non_exhaustive()
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
    /// one job. Where processes are killed by the minute for other reasons, an innocent one may be among them:
    /// [`Master::jobs`](crate::Master::jobs) shows those that are, and [`Master::requeue`](crate::Master::requeue) frees
    /// them. Set it alike in every process.
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

//! The preflight: what the server is, and whether it is set up for a cluster.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::{ClientLike, KeysInterface};
use fred::types::config::{Options, Server};
use fred::types::{ClusterHash, CustomCommand, Expiration, Value};

use super::connect::Connection;
use super::error::translate;
use super::route;
use super::subscriber::{Listener, Signal, Subscriber};
use crate::error::{Error, ErrorKind, Result};
use crate::id::WorkerId;
use crate::wire::keys::Keys;

/// What was found out about the server on connecting. `Display` tells it in one line.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerReport {
    /// `Redis`, `Valkey`, or what else it calls itself.
    pub product: String,
    /// Its version.
    pub version: String,
    /// Names this run of the server: another one after each start.
    pub run_id: String,
    /// Whether it is part of a Redis Cluster.
    pub cluster_mode: bool,
    /// Whether the end of a lock is announced.
    pub notifications: Notifications,
    /// `maxmemory-policy`; `None` where it may not be read.
    pub eviction_policy: Option<String>,
    /// What should be mended on the server, each a sentence.
    pub warnings: Vec<String>,
}

/// Whether the server announces the end of a lock (`notify-keyspace-events`). Without, takeovers go by timers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notifications {
    /// The flags that are needed were set.
    On {
        /// All flags that are set.
        flags: String,
    },
    /// Flags were added on connecting. They are gone when the server restarts: set them in its configuration too.
    TurnedOn {
        /// The flags before.
        before: String,
        /// The flags now.
        after: String,
    },
    /// `CONFIG` is denied, but a trial showed that events come.
    Proven,
    /// No events come.
    Off {
        /// Why not, and what to do.
        reason: String,
    },
}

impl fmt::Display for ServerReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.product, self.version)?;
        if self.cluster_mode {
            write!(f, " (cluster)")?;
        }
        match &self.notifications {
            Notifications::On { flags } => write!(f, ", notifications on ({flags})")?,
            Notifications::TurnedOn { before, after } => {
                write!(f, ", notifications turned on ({before:?} -> {after:?})")?;
            }
            Notifications::Proven => write!(f, ", notifications on (tried)")?,
            // Why is among the warnings.
            Notifications::Off { .. } => write!(f, ", notifications off")?,
        }
        match &self.eviction_policy {
            Some(policy) => write!(f, ", eviction {policy}")?,
            None => write!(f, ", eviction unknown")?,
        }
        for warning in &self.warnings {
            write!(f, "; warning: {warning}")?;
        }
        Ok(())
    }
}

/// Looks at the server, and turns notifications on if that is allowed.
pub(crate) async fn preflight(
    connection: &Connection,
    keys: &Arc<Keys>,
    configure: bool,
    timeout: Duration,
) -> Result<ServerReport> {
    let client = connection.commands.client();
    let ask = Ask::new(client, keys, timeout);
    let info = ask.info("server").await.map_err(|error| advise(connection, error))?;
    let Facts { product, version, run_id, cluster_mode } = Facts::parse(&info)?;
    let mut warnings = Vec::new();
    if cluster_mode && !client.is_clustered() {
        warnings.push(
            "the server is part of a Redis Cluster, but the connection is to this node alone: it fails when the \
             cluster's keys move; use redis-cluster://"
                .to_owned(),
        );
    }
    let eviction_policy = ask.eviction_policy().await;
    match eviction_policy.as_deref() {
        Some("noeviction") | None => {}
        Some(policy) if policy.starts_with("volatile-") => warnings.push(format!(
            "maxmemory-policy is {policy}: under memory pressure the server evicts keys with a time to live, which \
             are the locks; set noeviction"
        )),
        Some(policy) => warnings.push(format!(
            "maxmemory-policy is {policy}: under memory pressure the server evicts the cluster's jobs; set noeviction"
        )),
    }
    let notifications = notifications(connection, keys, configure, timeout).await?;
    if let Notifications::Off { reason } = &notifications {
        warnings.push(format!("takeovers go by timers alone: {reason}"));
    }
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    Ok(ServerReport { product, version, run_id, cluster_mode, notifications, eviction_policy, warnings })
}

/// Sees to it that the end of a lock is announced. What was set by `CONFIG SET` is gone after a restart.
pub(crate) async fn notifications(
    connection: &Connection,
    keys: &Arc<Keys>,
    configure: bool,
    timeout: Duration,
) -> Result<Notifications> {
    let client = connection.commands.client();
    let ask = Ask::new(client, keys, timeout);
    let Some(flags) = ask.config("notify-keyspace-events").await else {
        return match Box::pin(probe(connection, keys, &ask, timeout)).await {
            Ok(true) => Ok(Notifications::Proven),
            Err(error) if error.kind() != ErrorKind::Denied => Err(error),
            Err(error) => Ok(Notifications::Off { reason: format!("they could not be tried: {error}") }),
            Ok(false) => {
                let reason = "CONFIG is denied and a trial brought no event; ask whoever runs the server for \
                              notify-keyspace-events Kxe";
                Ok(Notifications::Off { reason: reason.into() })
            }
        };
    };
    let found = turn_on(&ask, flags, configure).await;
    if client.is_clustered() {
        // The slot may move to any of them. A replica that is promoted is not reached from here.
        for node in client.active_connections() {
            let ask = ask.at(node);
            if let Some(flags) = ask.config("notify-keyspace-events").await {
                turn_on(&ask, flags, configure).await;
            }
        }
    }
    Ok(found)
}

/// An application's client that was never started, or was ended, takes commands and answers none of them.
fn advise(connection: &Connection, error: Error) -> Error {
    if connection.is_embedded() && !connection.commands.client().is_connected() {
        let text = "the client that was given is not connected; call its init() first, give it a reconnect policy, \
                    and quit it only after the cluster's last handle is dropped";
        return Error::new(ErrorKind::Connection, text).with_source(error);
    }
    error
}

/// The run id of the server that has the cluster's keys.
pub(crate) async fn run_id(client: &Client, keys: &Keys, timeout: Duration) -> Result<String> {
    let info = Ask::new(client, keys, timeout).info("server").await?;
    Ok(Facts::parse(&info)?.run_id)
}

/// Commands to one node, each with a timeout.
struct Ask<'a> {
    client: &'a Client,
    options: Options,
}

impl<'a> Ask<'a> {
    /// To the node that has the cluster's keys.
    fn new(client: &'a Client, keys: &Keys, timeout: Duration) -> Self {
        Self { client, options: route::options(route::slot(keys), timeout, 3) }
    }

    fn at(&self, node: Server) -> Self {
        let mut options = self.options.clone();
        options.cluster_node = Some(node);
        Self { client: self.client, options }
    }

    async fn custom(&self, command: &'static str, args: &[&str]) -> Result<Value, fred::error::Error> {
        // The options' route goes before the command's.
        let command = CustomCommand::new_static(command, ClusterHash::Random, false);
        let args: Vec<Value> = args.iter().map(|arg| Value::from(*arg)).collect();
        self.client.with_options(&self.options).custom(command, args).await
    }

    async fn info(&self, section: &str) -> Result<String> {
        let what = "asking the server what it is (INFO)";
        let answer = self.custom("INFO", &[section]).await.map_err(|error| translate(what, &error))?;
        answer.into_string().ok_or_else(|| Facts::unknown("INFO has no text"))
    }

    /// `CONFIG` is often denied where `INFO` is not.
    async fn eviction_policy(&self) -> Option<String> {
        match self.config("maxmemory-policy").await {
            Some(policy) => Some(policy),
            None => field(&self.info("memory").await.ok()?, "maxmemory_policy"),
        }
    }

    /// A setting of the server; `None` where it may not be read.
    async fn config(&self, name: &str) -> Option<String> {
        match self.custom("CONFIG", &["GET", name]).await.ok()? {
            Value::Array(pair) => pair.into_iter().nth(1)?.into_string(),
            Value::Map(map) => map.inner().into_values().next()?.into_string(),
            _ => None,
        }
    }
}

/// What `INFO server` tells.
#[derive(Debug, PartialEq, Eq)]
struct Facts {
    product: String,
    version: String,
    run_id: String,
    cluster_mode: bool,
}

/// A line of INFO.
fn field(info: &str, name: &str) -> Option<String> {
    info.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(|value| value.trim().to_owned()))
}

impl Facts {
    fn parse(info: &str) -> Result<Self> {
        let (product, version) = match field(info, "valkey_version") {
            // Its redis_version is that of the Redis which it left, 7.2.4, for ever.
            Some(version) => ("Valkey".to_owned(), version),
            None => {
                let name = field(info, "server_name").filter(|name| !name.is_empty() && name != "redis");
                let version =
                    field(info, "redis_version").ok_or_else(|| Self::unknown("INFO names no version"))?;
                (name.unwrap_or_else(|| "Redis".into()), version)
            }
        };
        let mut numbers = version.split('.').map_while(|part| part.parse::<u32>().ok());
        let Some(major) = numbers.next() else { return Err(Self::unknown("its version is no number")) };
        let least = if product == "Valkey" { (7, 2) } else { (7, 0) };
        if (major, numbers.next().unwrap_or(0)) < least {
            return Err(Error::new(
                ErrorKind::Incompatible,
                format!("the server is {product} {version}; at least Redis 7.0 or Valkey 7.2 is needed"),
            ));
        }
        let mode = field(info, "redis_mode").or_else(|| field(info, "server_mode")).unwrap_or_default();
        if mode == "sentinel" {
            let text = "this is a sentinel, which has no data; use redis-sentinel://host:port?sentinelServiceName=name";
            return Err(Error::new(ErrorKind::InvalidSetting, text));
        }
        let run_id = field(info, "run_id").filter(|id| !id.is_empty());
        let run_id = run_id.ok_or_else(|| Self::unknown("INFO names no run id"))?;
        Ok(Self { product, version, run_id, cluster_mode: mode == "cluster" })
    }

    fn unknown(fault: &str) -> Error {
        Error::new(
            ErrorKind::Protocol,
            format!(
                "the server does not say what it is: {fault}; is it Redis or Valkey, without a proxy in between?"
            ),
        )
    }
}

/// `notify-keyspace-events` flags: K for events by key, x and e for expired and evicted keys. Not g, for deleted ones: with it
/// each heartbeat, which sets an expiry, is announced to every participant. A thousand of them are milliseconds of the
/// server's time, for each heartbeat.
const FLAGS: &str = "Kxe";

/// Which flags are missing: `A` stands for x, e and others.
fn missing(flags: &str) -> String {
    FLAGS.chars().filter(|flag| !flags.contains(*flag) && (*flag == 'K' || !flags.contains('A'))).collect()
}

async fn turn_on(ask: &Ask<'_>, before: String, configure: bool) -> Notifications {
    let missing = missing(&before);
    if missing.is_empty() {
        return Notifications::On { flags: before };
    }
    let after = format!("{before}{missing}");
    if !configure {
        return Notifications::Off {
            reason: format!(
                "notify-keyspace-events is {before:?} and configure_server is off; set it to {after:?}"
            ),
        };
    }
    match ask.custom("CONFIG", &["SET", "notify-keyspace-events", &after]).await {
        Ok(_) => Notifications::TurnedOn { before, after },
        Err(_) => Notifications::Off {
            reason: format!(
                "notify-keyspace-events is {before:?} and may not be set from here; set it to {after:?}"
            ),
        },
    }
}

/// How long the probe waits for its event. Redis announces an expired key when it is touched, at once.
const PROBE: Duration = Duration::from_millis(500);

/// Lets a key expire and looks whether that is announced.
async fn probe(connection: &Connection, keys: &Arc<Keys>, ask: &Ask<'_>, timeout: Duration) -> Result<bool> {
    let mut subscriber = Subscriber::start(connection, keys.clone(), Listener::Master, timeout).await?;
    let attached = subscriber.attach().await;
    let result = async {
        attached?;
        if let Some(denied) = subscriber.denied() {
            return Err(denied.clone());
        }
        let what = "trying whether keyspace events come";
        let client = ask.client.with_options(&ask.options);
        let key = keys.lock(PROBED);
        let expire = Some(Expiration::PX(1));
        let set = client.set::<Value, _, _>(&key, "1", expire, None, false);
        set.await.map_err(|error| translate(what, &error))?;
        tokio::time::sleep(Duration::from_millis(20)).await;
        client.exists::<Value, _>(&key).await.map_err(|error| translate(what, &error))?;
        let heard = async { while !matches!(subscriber.next().await, Signal::LockEnded(PROBED)) {} };
        Ok(tokio::time::timeout(PROBE, heard).await.is_ok())
    }
    .await;
    subscriber.close().await;
    result
}

/// No worker has this number: they begin at 1.
const PROBED: WorkerId = WorkerId(0);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_added_to_what_is_set_and_never_taken_away() {
        for (set, needed) in
            [("", "Kxe"), ("Ex", "Ke"), ("KEA", ""), ("AE", "K"), ("Elg$", "Kxe"), ("Kgxe", "")]
        {
            assert_eq!(missing(set), needed, "{set:?}");
        }
    }

    /// Guards the preflight: a server is named by what it is, and one that is too old or no server at all is refused.
    #[test]
    fn the_version_is_that_of_the_product_and_too_old_ones_are_refused() {
        let parse = |text: &str| Facts::parse(text).map(|facts| (facts.product, facts.version));
        let redis = "# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\nrun_id:abc\r\n";
        assert_eq!(parse(redis).unwrap(), ("Redis".into(), "7.0.15".into()));
        let valkey = "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.0.1\r\nserver_mode:cluster\r\nrun_id:a\r\n";
        assert_eq!(parse(valkey).unwrap(), ("Valkey".into(), "8.0.1".into()));
        assert!(Facts::parse(valkey).unwrap().cluster_mode);
        for old in [
            redis.replace("7.0.15", "6.2.14"),
            redis.replace("7.0.15", "6"),
            valkey.replace("8.0.1", "7.1.9"),
        ] {
            assert_eq!(parse(&old).unwrap_err().kind(), ErrorKind::Incompatible, "{old:?}");
        }
        let sentinel = redis.replace("standalone", "sentinel");
        assert!(parse(&sentinel).unwrap_err().to_string().contains("redis-sentinel://"));
        let banana = redis.replace("7.0.15", "banana");
        for garbage in ["", "hello", "redis_version:7.0.0\r\n", "redis_version:7.0.0\r\nrun_id:\r\n", &banana]
        {
            assert_eq!(parse(garbage).unwrap_err().kind(), ErrorKind::Protocol, "{garbage:?}");
        }
    }
}

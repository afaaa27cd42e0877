//! The preflight: what the server is, and whether it is set up for a cluster.

use std::fmt;
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::{ClientLike, KeysInterface};
use fred::types::config::Options;
use fred::types::{ClusterHash, CustomCommand, Expiration, Value};

use super::connect::Connection;
use super::error::translate;
use super::subscriber::{Channels, Signal, Subscriber};
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
    /// Flags were added on connecting.
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
            Notifications::Off { reason } => write!(f, ", notifications off: {reason}")?,
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
    keys: &std::sync::Arc<Keys>,
    configure: bool,
    timeout: Duration,
) -> Result<ServerReport> {
    let client = connection.commands.client();
    let slot = fred::util::redis_keyslot(keys.meta.as_bytes());
    let ask = Ask { client, slot, timeout };
    let facts = Facts::parse(&ask.info().await?)?;
    facts.check_version()?;

    let mut warnings = Vec::new();
    let eviction_policy = ask.config("maxmemory-policy").await;
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

    let notifications = match ask.config("notify-keyspace-events").await {
        Some(flags) => turn_on(&ask, flags, configure).await,
        None if probe(connection, keys, &ask).await? => Notifications::Proven,
        None => Notifications::Off {
            reason: "CONFIG is denied and a trial brought no event; ask the provider for notify-keyspace-events Kgxe"
                .into(),
        },
    };
    if let Notifications::Off { reason } = &notifications {
        warnings.push(format!("takeovers go by timers alone: {reason}"));
    }
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    let Facts { product, version, run_id, cluster_mode } = facts;
    Ok(ServerReport { product, version, run_id, cluster_mode, notifications, eviction_policy, warnings })
}

/// The run id of the server that has the cluster's keys.
pub(crate) async fn run_id(client: &Client, keys: &Keys, timeout: Duration) -> Result<String> {
    let slot = fred::util::redis_keyslot(keys.meta.as_bytes());
    let info = Ask { client, slot, timeout }.info().await?;
    Ok(Facts::parse(&info)?.run_id)
}

/// Commands to the node that has the cluster's keys, each with a timeout.
struct Ask<'a> {
    client: &'a Client,
    slot: u16,
    timeout: Duration,
}

impl Ask<'_> {
    fn options(&self) -> Options {
        Options {
            timeout: Some(self.timeout),
            max_attempts: Some(3),
            max_redirections: Some(5),
            cluster_hash: Some(ClusterHash::Custom(self.slot)),
            ..Options::default()
        }
    }

    async fn custom(&self, command: &'static str, args: &[&str]) -> Result<Value, fred::error::Error> {
        let command = CustomCommand::new_static(command, ClusterHash::Custom(self.slot), false);
        let args: Vec<Value> = args.iter().map(|arg| Value::from(*arg)).collect();
        self.client.with_options(&self.options()).custom(command, args).await
    }

    async fn info(&self) -> Result<String> {
        let what = "asking the server for its version (INFO)";
        let answer = self.custom("INFO", &["server"]).await.map_err(|error| translate(what, &error))?;
        answer.into_string().ok_or_else(|| Facts::unknown("INFO has no text"))
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

impl Facts {
    fn parse(info: &str) -> Result<Self> {
        let field = |name: &str| {
            info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(|value| value.trim().to_owned()))
        };
        let redis = field("redis_version");
        let (product, version) = match field("valkey_version") {
            Some(version) => (field("server_name").unwrap_or_else(|| "valkey".into()), version),
            None => ("redis".into(), redis.ok_or_else(|| Self::unknown("INFO names no version"))?),
        };
        let product = match product.as_str() {
            "redis" => "Redis".into(),
            "valkey" => "Valkey".into(),
            _ => product,
        };
        let run_id = field("run_id").ok_or_else(|| Self::unknown("INFO names no run id"))?;
        let cluster_mode = field("redis_mode").is_some_and(|mode| mode == "cluster");
        Ok(Self { product, version, run_id, cluster_mode })
    }

    fn check_version(&self) -> Result<()> {
        let mut numbers = self.version.split('.').map_while(|part| part.parse::<u32>().ok());
        let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        let least = if self.product == "Valkey" { (7, 2) } else { (7, 0) };
        if found >= least {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Incompatible,
            format!("the server is {} {}; at least Redis 7.0 or Valkey 7.2 is needed", self.product, self.version),
        ))
    }

    fn unknown(fault: &str) -> Error {
        Error::new(
            ErrorKind::Protocol,
            format!("the server does not say what it is: {fault}; is it Redis or Valkey, without a proxy in between?"),
        )
    }
}

/// `notify-keyspace-events` flags: K for events by key, g, x and e for deleted, expired and evicted keys.
const FLAGS: &str = "Kgxe";

/// Which flags are missing: `A` stands for g, x, e and others.
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
            reason: format!("notify-keyspace-events is {before:?} and configure_server is off; set it to {after:?}"),
        };
    }
    match ask.custom("CONFIG", &["SET", "notify-keyspace-events", &after]).await {
        Ok(_) => Notifications::TurnedOn { before, after },
        Err(_) => Notifications::Off {
            reason: format!("notify-keyspace-events is {before:?} and may not be set from here; set it to {after:?}"),
        },
    }
}

/// How long the probe waits for its event. Redis announces an expired key when it is touched, at once.
const PROBE: Duration = Duration::from_millis(500);

/// Lets a key expire and looks whether that is announced.
async fn probe(connection: &Connection, keys: &std::sync::Arc<Keys>, ask: &Ask<'_>) -> Result<bool> {
    let mut subscriber = Subscriber::start(connection, keys.clone(), Channels::default(), ask.timeout).await?;
    let attached = subscriber.attach().await;
    let result = async {
        attached?;
        let what = "trying whether keyspace events come";
        let client = ask.client.with_options(&ask.options());
        let key = keys.lock(PROBED);
        let expire = Some(Expiration::PX(1));
        let set = client.set::<Value, _, _>(&key, "1", expire, None, false);
        set.await.map_err(|error| translate(what, &error))?;
        tokio::time::sleep(Duration::from_millis(20)).await;
        client.exists::<Value, _>(&key).await.map_err(|error| translate(what, &error))?;
        let heard = async {
            while !matches!(subscriber.next().await, Signal::LockEnded(PROBED)) {}
        };
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
        for (set, needed) in [("", "Kgxe"), ("Ex", "Kge"), ("KEA", ""), ("AE", "K"), ("Elg$", "Kxe"), ("Kgxe", "")] {
            assert_eq!(missing(set), needed, "{set:?}");
        }
    }

    #[test]
    fn the_version_is_that_of_the_product_and_too_old_ones_are_refused() {
        let parse = |text: &str| Facts::parse(text).map(|facts| (facts.product.clone(), facts.check_version().is_ok()));
        let redis = "# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\nrun_id:abc\r\n";
        assert_eq!(parse(redis).unwrap(), ("Redis".into(), true));
        let valkey = "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.0.1\r\nrun_id:abc\r\n";
        assert_eq!(parse(valkey).unwrap(), ("Valkey".into(), true));
        assert_eq!(parse(&redis.replace("7.0.15", "6.2.14")).unwrap(), ("Redis".into(), false));
        assert_eq!(parse(&redis.replace("7.0.15", "banana")).unwrap(), ("Redis".into(), false));
        for garbage in ["", "hello", "redis_version:7.0.0\r\n"] {
            assert_eq!(parse(garbage).unwrap_err().kind(), ErrorKind::Protocol, "{garbage:?}");
        }
    }
}

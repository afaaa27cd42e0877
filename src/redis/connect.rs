//! The connection for commands: our own by URL, or the application's; and what subscriptions derive from it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fred::clients::{Client, Pool};
use fred::interfaces::ClientLike;
use fred::types::config::{Config, ReconnectPolicy, ServerConfig};
use fred::types::{Builder, RespVersion};

use super::error::translate;
use super::own::Own;
use super::tls::{TLS, Tls, choose_cryptography, is_of_tls, with_tls};
use crate::error::{Error, ErrorKind, Result};

/// Where commands go.
#[derive(Clone)]
pub(crate) enum Commands {
    Client(Client),
    Pool(Pool),
}

impl Commands {
    /// The client for the next command.
    pub(crate) fn client(&self) -> &Client {
        match self {
            Self::Client(client) => client,
            Self::Pool(pool) => pool.next(),
        }
    }
}

/// A connection, and whether it is ours to end.
#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) commands: Commands,
    /// Ended with the last that has it. `None`: the application's, which is never initialised, reconfigured or
    /// quit by us.
    own: Option<Arc<Own>>,
}

/// Broadcast channels of fred drop messages when full; the default is 32. About 2.4 MiB a client.
const MESSAGES: usize = 4096;

impl Connection {
    /// Connects by URL and waits until that has succeeded or failed.
    pub(crate) async fn connect_url(
        url: &str,
        database: Option<u8>,
        tls: Option<Tls>,
        timeout: Duration,
    ) -> Result<Self> {
        let mut config = config_of(url, tls)?;
        if database.is_some() {
            config.database = database;
        }
        if config.server.is_clustered() && config.database.unwrap_or(0) != 0 {
            let text = "a Redis Cluster has database 0 alone; leave the database out";
            return Err(Error::new(ErrorKind::InvalidSetting, text));
        }
        config.version = RespVersion::RESP3;
        let what = format!("connecting to {}", address(&config.server));
        let mut builder = Builder::from_config(config);
        builder
            .set_policy(reconnect_policy())
            .with_connection_config(|connection| {
                connection.connection_timeout = timeout;
                connection.internal_command_timeout = timeout;
                connection.tcp.nodelay = Some(true);
                // A password that is changed on the server first and here later must not end the client.
                connection.reconnect_on_auth_error = true;
            })
            .with_performance_config(|performance| performance.default_command_timeout = timeout);
        let client = builder.build().map_err(|error| translate("setting up the client", &error))?;
        let own = Own::connect(client.clone(), timeout, &what).await?;
        Ok(Self { commands: Commands::Client(client), own: Some(Arc::new(own)) })
    }

    /// Uses the application's client or pool.
    pub(crate) fn embedded(commands: Commands) -> Self {
        Self { commands, own: None }
    }

    /// Whether the connection is the application's.
    pub(crate) fn is_embedded(&self) -> bool {
        self.own.is_none()
    }

    pub(crate) fn database(&self) -> u8 {
        let config = self.commands.client().client_config();
        // fred does not select one in a cluster, whatever is set.
        if config.server.is_clustered() { 0 } else { config.database.unwrap_or(0) }
    }

    /// A builder with the same servers, credentials and TLS, set up for a subscription.
    pub(crate) fn subscriber_builder(&self, timeout: Duration) -> Builder {
        let client = self.commands.client();
        let mut config = client.client_config();
        config.fail_fast = true;
        // In RESP2 a connection that is subscribed takes hardly any other command.
        config.version = RespVersion::RESP3;
        let mut connection = client.connection_config().clone();
        connection.connection_timeout = timeout;
        connection.internal_command_timeout = timeout;
        connection.reconnect_on_auth_error = true;
        connection.tcp.nodelay = Some(true);
        let mut performance = client.perf_config();
        performance.broadcast_channel_capacity = MESSAGES;
        performance.default_command_timeout = timeout;
        let mut builder = Builder::from_config(config);
        builder
            .set_policy(reconnect_policy())
            .set_connection_config(connection)
            .set_performance_config(performance);
        builder
    }

    /// Where the server is, for people: `host:port`, or the socket's path.
    pub(crate) fn address(&self) -> String {
        address(&self.commands.client().client_config().server)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the client's configuration, which has the password.
        f.debug_struct("Connection").field("embedded", &self.is_embedded()).finish_non_exhaustive()
    }
}

/// For ever, quickly at first: whether it has lasted too long is decided by the lease.
fn reconnect_policy() -> ReconnectPolicy {
    let mut policy = ReconnectPolicy::new_exponential(0, 10, 2_000, 2);
    policy.set_jitter(10);
    policy
}

// Each with its counterpart at the same place.
const SCHEMES: &[&str] =
    &["redis", "valkey", "redis-cluster", "valkey-cluster", "redis-sentinel", "valkey-sentinel"];
const TLS_SCHEMES: &[&str] =
    &["rediss", "valkeys", "rediss-cluster", "valkeys-cluster", "rediss-sentinel", "valkeys-sentinel"];
const UNIX_SCHEMES: &[&str] = &["redis+unix", "valkey+unix"];

/// Reads a URL. fred takes every scheme, and speaks in clear to a `rediss://` URL where TLS is not compiled in,
/// so both are looked at here.
fn config_of(url: &str, how: Option<Tls>) -> Result<Config> {
    let unix = url.strip_prefix("unix://").map(|path| format!("redis+unix://{path}"));
    let url = unix.as_deref().unwrap_or(url);
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    let tls = TLS_SCHEMES.iter().position(|known| *known == scheme);
    let refuse =
        |text: String| Err(Error::new(ErrorKind::InvalidSetting, format!("the URL was refused: {text}")));
    if !(tls.is_some() || SCHEMES.contains(&scheme) || UNIX_SCHEMES.contains(&scheme)) {
        return refuse(
            "its scheme is not known; use redis://user:password@host:port/database, rediss:// for TLS, or \
             redis+unix:///path"
                .into(),
        );
    }
    let config = match (tls, how) {
        (None, Some(_)) => return refuse("it asks for no TLS, but `tls` was given; use rediss://".into()),
        // By the URL alone fred would look for the system's certificates, which need not be there.
        (Some(at), Some(how)) => {
            Config::from_url(&format!("{}://{rest}", SCHEMES[at])).map(|config| with_tls(config, how))
        }
        (_, None) => {
            choose_cryptography();
            Config::from_url(url)
        }
    };
    let no_tls = "TLS needs one of the features tls-rustls, tls-rustls-ring, tls-native; they are off";
    match config {
        Ok(config) if tls.is_some() && !config.uses_tls() => refuse(no_tls.into()),
        Ok(config) => Ok(config),
        Err(_) if tls.is_some() && !TLS => refuse(no_tls.into()),
        Err(error) if is_of_tls(&error) => refuse(format!(
            "the system's certificates cannot be read ({}); install ca-certificates, name a file of certificates in \
             SSL_CERT_FILE, or give `tls`",
            error.details()
        )),
        Err(_) if UNIX_SCHEMES.contains(&scheme) => refuse(
            "a unix socket needs the feature unix-sockets, and a path: redis+unix:///run/redis.sock".into(),
        ),
        // fred's text may quote the URL, and so the password.
        Err(_) if url.contains('@') => {
            refuse("it was not understood; write %40 for an @ in the password, and so on".into())
        }
        Err(error) => refuse(format!("{}; use redis://user:password@host:port/database", error.details())),
    }
}

fn address(server: &ServerConfig) -> String {
    #[cfg(feature = "unix-sockets")]
    if let ServerConfig::Unix { path } = server {
        return path.display().to_string();
    }
    let hosts = server.hosts();
    hosts.iter().map(|server| format!("{}:{}", server.host, server.port)).collect::<Vec<_>>().join(", ")
}

//! The connection for commands: our own by URL, or the application's; and what subscriptions derive from it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fred::clients::{Client, Pool};
use fred::interfaces::ClientLike;
use fred::types::Builder;
use fred::types::config::{Config, ReconnectPolicy, ServerConfig};

use super::error::translate;
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
    /// `None`: the application's. It is never initialised, reconfigured or quit by us.
    _own: Option<Arc<Own>>,
}

/// A client of ours: it would go on by itself for ever, so it ends with the last that has it.
pub(crate) struct Own(pub(crate) Client);

impl Drop for Own {
    fn drop(&mut self) {
        // Without a runtime its task is gone already.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let client = self.0.clone();
            runtime.spawn(async move { client.quit().await });
        }
    }
}

/// Broadcast channels of fred drop messages when full; the default is 32. About 2.4 MiB a client.
const MESSAGES: usize = 4096;

impl Connection {
    /// Connects by URL and waits until that has succeeded or failed.
    pub(crate) async fn connect_url(url: &str, database: Option<u8>, timeout: Duration) -> Result<Self> {
        let mut config = Config::from_url(url).map_err(|error| bad_url(url, error.details()))?;
        if database.is_some() {
            config.database = database;
        }
        let whom = address(&config.server);
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
        let own = Arc::new(Own(client.clone()));
        let what = format!("connecting to {whom}");
        match tokio::time::timeout(timeout, client.init()).await {
            Ok(Ok(_)) => Ok(Self { commands: Commands::Client(client), _own: Some(own) }),
            Ok(Err(error)) => Err(unreachable(&what, &error)),
            Err(_) => Err(Error::new(
                ErrorKind::Connection,
                format!("{what}: no answer within {timeout:?}; check the address, and that a server listens there"),
            )),
        }
    }

    /// Uses the application's client or pool.
    pub(crate) fn embedded(commands: Commands) -> Self {
        Self { commands, _own: None }
    }

    pub(crate) fn database(&self) -> u8 {
        self.commands.client().client_config().database.unwrap_or(0)
    }

    /// A builder with the same servers, credentials and TLS, set up for a subscription.
    pub(crate) fn subscriber_builder(&self, timeout: Duration) -> Builder {
        let client = self.commands.client();
        let mut config = client.client_config();
        config.fail_fast = true;
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
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the client: its configuration has the password.
        f.debug_struct("Connection").field("own", &self._own.is_some()).finish_non_exhaustive()
    }
}

/// For ever, quickly at first: whether it has lasted too long is decided by the lease.
fn reconnect_policy() -> ReconnectPolicy {
    let mut policy = ReconnectPolicy::new_exponential(0, 10, 2_000, 2);
    policy.set_jitter(10);
    policy
}

/// The first connection's failure. A refused port is plainly "not reached", whatever fred calls it.
fn unreachable(what: &str, error: &fred::error::Error) -> Error {
    let translated = translate(what, error);
    match translated.kind() {
        ErrorKind::Timeout | ErrorKind::Connection => Error::new(
            ErrorKind::Connection,
            format!("{what}: {}; check the address, and that a server listens there", error.details()),
        ),
        _ => translated,
    }
}

fn bad_url(url: &str, fault: &str) -> Error {
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    let advice = match scheme {
        "rediss" | "valkeys" | "rediss-cluster" | "valkeys-cluster" | "rediss-sentinel" | "valkeys-sentinel" => {
            "TLS needs one of the features tls-rustls, tls-rustls-ring, tls-native"
        }
        "redis+unix" | "valkey+unix" => "a unix socket needs the feature unix-sockets and a path",
        _ => "use redis://user:password@host:port/database, rediss:// for TLS, or redis+unix:///path",
    };
    // fred's text may quote the URL, and so the password.
    let fault = if url.contains('@') { "it was not understood" } else { fault };
    Error::new(ErrorKind::InvalidSetting, format!("the URL was refused: {fault}; {advice}"))
}

fn address(server: &ServerConfig) -> String {
    let hosts: Vec<_> = server.hosts().into_iter().map(|server| format!("{}:{}", server.host, server.port)).collect();
    if hosts.is_empty() { "the unix socket".into() } else { hosts.join(", ") }
}

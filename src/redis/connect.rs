//! The connection for commands: our own by URL, or the application's; and what subscriptions derive from it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fred::clients::{Client, Pool};
use fred::interfaces::ClientLike;
use fred::types::config::{ReconnectPolicy, ServerConfig};
use fred::types::{Builder, RespVersion};

use super::error::translate;
use super::own::Own;
use super::tls::Tls;
use super::url::config_of;
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

fn address(server: &ServerConfig) -> String {
    #[cfg(feature = "unix-sockets")]
    if let ServerConfig::Unix { path } = server {
        return path.display().to_string();
    }
    let hosts = server.hosts();
    hosts.iter().map(|server| format!("{}:{}", server.host, server.port)).collect::<Vec<_>>().join(", ")
}

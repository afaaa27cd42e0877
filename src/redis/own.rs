//! A fred client that is ours: started once, revived if it ends by itself, and surely ended by us.
//!
//! fred's client is a task that goes on when every handle of it is dropped, and whose `quit` waits for ever
//! where the server is not reached. So the task's handle is kept, and aborted where a `quit` does not help:
//! the task owns the sockets.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::ClientLike;
use fred::types::ConnectHandle;
use tokio::time::timeout;

use super::error::{Fault, code, translate};
use crate::error::{Error, ErrorKind, Result};

/// How long a `quit` may take. What is in flight then is of no use to us any more.
const PARTING: Duration = Duration::from_secs(1);

/// Ends the client when dropped.
pub(crate) struct Own(Running);

/// The client and its task. Clones share them, and do not keep the client alive.
#[derive(Clone)]
pub(crate) struct Running {
    client: Client,
    /// `None` once it is ended for good.
    task: Arc<Mutex<Option<ConnectHandle>>>,
}

impl Own {
    /// Connects: one try, which fails as soon as it is known to.
    pub(crate) async fn connect(client: Client, patience: Duration, what: &str) -> Result<Self> {
        let mut connected = pin!(client.wait_for_connect());
        // It listens from its first poll on: before the connection can be there.
        tokio::select! {
            biased;
            _ = &mut connected => {}
            () = std::future::ready(()) => {}
        }
        let task = Arc::new(Mutex::new(Some(client.connect())));
        // From here on, dropping this future ends the client.
        let own = Self(Running { client: client.clone(), task });
        let tls = client.client_config().uses_tls();
        match timeout(patience, connected).await {
            Ok(Ok(())) => Ok(own),
            Ok(Err(error)) => Err(unreachable(what, &error, tls)),
            Err(_) => {
                let advice = advice("", tls);
                let text = format!("{what}: no answer within {patience:?}; {advice}");
                Err(Error::new(ErrorKind::Connection, text))
            }
        }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.0.client
    }

    pub(crate) fn running(&self) -> Running {
        self.0.clone()
    }

    /// Ends the client, and returns when its connection is closed. Takes a second at most.
    pub(crate) async fn close(self) {
        let task = self.0.task().take();
        if let Some(task) = task {
            end(self.0.client.clone(), task).await;
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let Some(task) = self.0.task().take() else { return };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(end(self.0.client.clone(), task))),
            Err(_) => task.abort(),
        }
    }
}

impl Running {
    /// Gives the connection up and makes a new one, or starts the task again if it has ended by itself: fred
    /// ends it at errors that it takes for final, some of which are not.
    pub(crate) async fn reconnect(&self, patience: Duration) -> Result<()> {
        if let Some(task) = &mut *self.task()
            && task.is_finished()
        {
            *task = self.client.connect();
            return Ok(());
        }
        match timeout(patience, self.client.force_reconnection()).await {
            Ok(result) => result.map_err(|error| translate("making a connection anew", &error)),
            Err(_) => Ok(()), // it is under way
        }
    }

    fn task(&self) -> MutexGuard<'_, Option<ConnectHandle>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn end(client: Client, mut task: ConnectHandle) {
    // It has ended by itself, or with its runtime: there is nobody to be told, and fred would warn of it.
    if task.is_finished() {
        return;
    }
    let quit = async {
        let _ = client.quit().await;
        let _ = (&mut task).await;
    };
    if timeout(PARTING, quit).await.is_err() {
        task.abort();
        let _ = task.await;
    }
}

/// The first connection's failure. A refused port is plainly "not reached", whatever fred calls it.
fn unreachable(what: &str, error: &fred::error::Error, tls: bool) -> Error {
    if error.details().contains("DB index") {
        let text = format!("{what}: the server has no database of this number; choose a smaller one");
        return Error::new(ErrorKind::InvalidSetting, text);
    }
    if code(error) == "DENIED" {
        let text =
            format!("{what}: the server is in protected mode; give it a password, or connect from its host");
        return Error::new(ErrorKind::Denied, text);
    }
    if error.details().contains("cluster support disabled") {
        let text = format!("{what}: the server is no node of a Redis Cluster; use redis://host:port for it");
        return Error::new(ErrorKind::InvalidSetting, text);
    }
    if error.details().starts_with("ERR unknown command") && error.details().contains("SENTINEL") {
        let text = format!(
            "{what}: the server is no sentinel; use redis://host:port for it, or redis-sentinel:// with the sentinels' addresses"
        );
        return Error::new(ErrorKind::InvalidSetting, text);
    }
    let translated = translate(what, error);
    match translated.kind() {
        ErrorKind::Protocol => {
            let text = format!("{what}: what listens there does not answer as Redis or Valkey does");
            Error::new(ErrorKind::Protocol, text).note(advice("", tls))
        }
        ErrorKind::Timeout | ErrorKind::Connection => {
            let (fault, advice) = (Fault::of(error), advice(error.details(), tls));
            Error::new(ErrorKind::Connection, format!("{what}: {fault}; {advice}"))
        }
        _ => translated,
    }
}

/// A server that does not speak TLS says nothing to a client that does; one that does closes the connection.
fn advice(details: &str, tls: bool) -> &'static str {
    if details.to_ascii_lowercase().contains("certificate") {
        "the server's certificate is not trusted for this host: give the authority that signed it by SSL_CERT_FILE or `tls`, \
         and name the host as the certificate does"
    } else if tls {
        "check the address, and that a server listens there and speaks TLS; if it does not, use redis://"
    } else if details.contains("refused") {
        "check the address, and that a server listens there"
    } else {
        "check the address, and that a server listens there; if it wants TLS, use rediss://"
    }
}

#[cfg(test)]
mod tests {
    use fred::interfaces::EventInterface;
    use fred::types::Builder;
    use fred::types::config::{Config, ReconnectPolicy};

    use super::*;
    use crate::test_server::RedisServer;

    /// Promise: a client whose task has ended by itself is started again by `reconnect`, but not after its end.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_task_that_ended_by_itself_is_started_again() {
        let server = RedisServer::start();
        let config = Config::from_url(&server.url()).expect("a URL");
        let mut builder = Builder::from_config(config);
        builder.set_policy(ReconnectPolicy::new_constant(1, 1));
        builder.with_performance_config(|performance| {
            performance.default_command_timeout = Duration::from_secs(5);
        });
        let client = builder.build().expect("a client");
        let mut reconnects = client.reconnect_rx();
        let own =
            Own::connect(client.clone(), Duration::from_secs(5), "connecting").await.expect("it connects");
        reconnects.recv().await.expect("the first connection is told of");
        let running = own.running();
        if let Some(task) = &*running.task() {
            task.abort();
        }
        while running.task().as_ref().is_some_and(|task| !task.is_finished()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        client.ping::<()>(None).await.expect_err("its task has ended");
        running.reconnect(Duration::from_secs(5)).await.expect("it starts again");
        reconnects.recv().await.expect("the new connection is told of");
        client.ping::<()>(None).await.expect("it answers");

        own.close().await;
        running.reconnect(Duration::from_millis(50)).await.ok();
        let list = server.command(&["CLIENT", "LIST"]).text();
        assert_eq!(list.lines().count(), 1, "only the one that asks: {list}");
    }
}

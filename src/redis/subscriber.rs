//! One participant's subscription: a client of its own, its channels, and what comes in.
//!
//! fred's own resubscription is not used: it ends in silence at the first message that was dropped, and tells
//! of no confirmation. Here each (re)connection is reported, the caller attaches, and then asks for the truth.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fred::interfaces::{ClientLike, EventInterface, PubsubInterface};
use fred::types::config::{Options, Server};
use fred::types::{ClusterHash, KeyspaceEvent, Message, Value};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::connect::{Connection, Own};
use super::error::{code, translate};
use crate::error::{Error, ErrorKind, Result};
use crate::id::WorkerId;
use crate::wire::keys::Keys;

/// What to subscribe to besides the control channel and the locks' keyspace events.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Channels {
    pub(crate) inbox: Option<WorkerId>,
    pub(crate) released: bool,
}

/// What came in.
#[derive(Debug)]
pub(crate) enum Signal {
    Inbox(Bytes),
    Control(Bytes),
    Released(Bytes),
    /// A lock's key is said to be gone.
    LockEnded(WorkerId),
    /// A new connection: nothing is subscribed on it yet.
    Reconnected,
    /// Messages were dropped here because they were not read in time.
    Lagged,
    /// The client has ended. Does not happen before [`Subscriber::close`].
    Closed,
}

pub(crate) struct Subscriber {
    own: Own,
    keys: Arc<Keys>,
    inbox: Option<String>,
    channels: Arc<[String]>,
    pattern: String,
    slot: u16,
    timeout: Duration,
    messages: Receiver<Message>,
    events: Receiver<KeyspaceEvent>,
    reconnects: Receiver<Server>,
}

impl Subscriber {
    /// Connects. Nothing is subscribed before [`attach`](Self::attach).
    pub(crate) async fn start(
        connection: &Connection,
        keys: Arc<Keys>,
        channels: Channels,
        timeout: Duration,
    ) -> Result<Self> {
        let client = connection
            .subscriber_builder(timeout)
            .build()
            .map_err(|error| translate("setting up the subscription", &error))?;
        // Before the connection is there, so that nothing comes in unheard.
        let (messages, events, reconnects) = (client.message_rx(), client.keyspace_event_rx(), client.reconnect_rx());
        let own = Own(client);
        match tokio::time::timeout(timeout, own.0.init()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(translate("connecting for the subscription", &error)),
            Err(_) => {
                return Err(Error::new(
                    ErrorKind::Connection,
                    format!("connecting for the subscription: no answer within {timeout:?}; try again"),
                ));
            }
        }
        let inbox = channels.inbox.map(|worker| keys.inbox_of(worker));
        let mut names = vec![keys.control.clone()];
        names.extend(inbox.clone());
        names.extend(channels.released.then(|| keys.released.clone()));
        let pattern = keys.lock_events(connection.database());
        let slot = fred::util::redis_keyslot(keys.control.as_bytes());
        let mut subscriber = Self {
            own,
            keys,
            inbox,
            channels: names.into(),
            pattern,
            slot,
            timeout,
            messages,
            events,
            reconnects,
        };
        // The first connection is announced like any other; the caller attaches to it anyway.
        while subscriber.reconnects.try_recv().is_ok() {}
        Ok(subscriber)
    }

    /// Subscribes to everything, on the node that has the cluster's slot, and waits for the confirmation: an
    /// `Ok` of a subscription only says that it was sent, so a `PING` behind it has to come back.
    ///
    /// Where keyspace events are denied, it goes on without them.
    pub(crate) fn attach(&self) -> impl Future<Output = Result<()>> + Send + 'static {
        let client = self.own.0.clone();
        let (channels, pattern) = (self.channels.clone(), self.pattern.clone());
        let options = self.options(3);
        async move {
            let what = "subscribing";
            let client = client.with_options(&options);
            for channel in &*channels {
                // One at a time: fred takes a second confirmation for the next command's reply.
                client.ssubscribe(channel.as_str()).await.map_err(|error| translate(what, &error))?;
            }
            confirm(&client).await.map_err(|error| translate(what, &error))?;
            match client.psubscribe(pattern.as_str()).await {
                Err(error) if code(&error) != "NOPERM" => return Err(translate(what, &error)),
                _ => {}
            }
            match confirm(&client).await {
                Err(error) if code(&error) == "NOPERM" => {
                    tracing::warn!("the server's ACL denies keyspace events: takeovers go by timers");
                    confirm(&client).await.map_err(|error| translate(what, &error))
                }
                result => result.map_err(|error| translate(what, &error)),
            }
        }
    }

    /// Whether this connection still answers: nothing else tells, where no message comes.
    pub(crate) fn ping(&self) -> impl Future<Output = Result<()>> + Send + 'static {
        let (client, options) = (self.own.0.clone(), self.options(1));
        async move {
            confirm(&client.with_options(&options))
                .await
                .map_err(|error| translate("asking whether the subscription is alive", &error))
        }
    }

    /// Gives the connection up and makes a new one.
    pub(crate) fn reconnect(&self) -> impl Future<Output = Result<()>> + Send + 'static {
        let (client, timeout) = (self.own.0.clone(), self.timeout);
        async move {
            match tokio::time::timeout(timeout, client.force_reconnection()).await {
                Ok(result) => result.map_err(|error| translate("making the subscription's connection anew", &error)),
                Err(_) => Ok(()), // it is under way
            }
        }
    }

    /// The next thing that came in.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped.
    pub(crate) async fn next(&mut self) -> Signal {
        loop {
            let signal = tokio::select! {
                biased;
                reconnect = self.reconnects.recv() => Some(match reconnect {
                    Ok(_) | Err(RecvError::Lagged(_)) => Signal::Reconnected,
                    Err(RecvError::Closed) => Signal::Closed,
                }),
                message = self.messages.recv() => match message {
                    Ok(message) => self.sort(message),
                    Err(RecvError::Lagged(_)) => Some(Signal::Lagged),
                    Err(RecvError::Closed) => Some(Signal::Closed),
                },
                event = self.events.recv() => match event {
                    Ok(event) => lock_ended(&self.keys, &event),
                    // Only hints were lost: the timers know.
                    Err(RecvError::Lagged(_)) => None,
                    Err(RecvError::Closed) => Some(Signal::Closed),
                },
            };
            if let Some(signal) = signal {
                return signal;
            }
        }
    }

    /// Ends the connection.
    pub(crate) async fn close(self) {
        let _ = tokio::time::timeout(Duration::from_secs(1), self.own.0.quit()).await;
    }

    fn options(&self, attempts: u32) -> Options {
        Options {
            timeout: Some(self.timeout),
            max_attempts: Some(attempts),
            max_redirections: Some(5),
            cluster_hash: Some(ClusterHash::Custom(self.slot)),
            ..Options::default()
        }
    }

    fn sort(&self, message: Message) -> Option<Signal> {
        let bytes = match message.value {
            Value::String(text) => text.into_inner(),
            Value::Bytes(bytes) => bytes,
            _ => return None,
        };
        let channel = &*message.channel;
        if self.inbox.as_deref() == Some(channel) {
            Some(Signal::Inbox(bytes))
        } else if channel == self.keys.control {
            Some(Signal::Control(bytes))
        } else if channel == self.keys.released {
            Some(Signal::Released(bytes))
        } else {
            None
        }
    }
}

async fn confirm<C: ClientLike>(client: &C) -> std::result::Result<(), fred::error::Error> {
    client.ping::<Value>(None).await.map(|_| ())
}

/// Any event of a lock that leaves no key behind; the server is asked what is true of it.
fn lock_ended(keys: &Keys, event: &KeyspaceEvent) -> Option<Signal> {
    let gone = matches!(&*event.operation, "expired" | "del" | "evicted" | "rename_from" | "move_from");
    gone.then(|| keys.worker_of_lock(event.key.as_bytes()).map(Signal::LockEnded))?
}

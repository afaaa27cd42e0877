//! One participant's subscription: a client of its own, its channels, and what comes in.
//!
//! fred's own resubscription is not used: it ends in silence at the first message that was dropped, and tells
//! of no confirmation. Here each (re)connection is reported, the caller attaches, and then asks for the truth.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use fred::interfaces::{ClientLike, ClusterInterface, EventInterface, PubsubInterface};
use fred::types::config::{Options, Server};
use fred::types::{ClusterStateChange, KeyspaceEvent, Message, Value};
use tokio::sync::Mutex;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;

use super::connect::Connection;
use super::error::{code, translate};
use super::own::Own;
use super::route;
use crate::error::{Error, Result};
use crate::id::WorkerId;
use crate::wire::keys::Keys;

/// Whose subscription it is, and so what to subscribe to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listener {
    /// Its inbox; and what becomes of the others: the control channel, the locks' keyspace events.
    Worker(WorkerId),
    /// The releases of deleted jobs, and what becomes of the workers.
    Master,
    /// The changes, and nothing else.
    Watcher,
}

/// What came in. The bytes are slices of the read buffer, which they keep whole: what lives long is to be copied.
#[derive(Debug)]
pub(crate) enum Signal {
    Inbox(Bytes),
    Control(Bytes),
    Released(Bytes),
    Changes(Bytes),
    /// A lock's key is said to be gone.
    LockEnded(WorkerId),
    /// A new connection, on which nothing is subscribed yet; or the keys may be on another node now.
    Reconnected,
    /// Messages were dropped here because they were not read in time.
    Lagged,
}

/// What tells of the others' ends. Clones share it.
#[derive(Clone)]
struct Others {
    control: String,
    /// The locks' keyspace events.
    pattern: String,
    /// Whether they are to be heard now.
    wanted: Arc<AtomicBool>,
    /// Why keyspace events were refused: they are not asked for again.
    denied: Arc<OnceLock<Error>>,
}

pub(crate) struct Subscriber {
    own: Own,
    keys: Arc<Keys>,
    inbox: Option<String>,
    /// What is listened to in any case.
    channel: String,
    others: Option<Others>,
    slot: u16,
    timeout: Duration,
    /// One exchange at a time: a refused PSUBSCRIBE is told as the answer of the command behind it.
    turn: Arc<Mutex<()>>,
    messages: Receiver<Message>,
    events: Receiver<KeyspaceEvent>,
    reconnects: Receiver<Server>,
    /// What the client for commands learns of where keys are. A node that lives on without the keys ends the
    /// subscriptions to them by a push that fred keeps to itself. `None` where there is one node.
    moves: Option<Receiver<Vec<ClusterStateChange>>>,
}

impl Subscriber {
    /// Connects. Nothing is subscribed before [`attach`](Self::attach).
    pub(crate) async fn start(
        connection: &Connection,
        keys: Arc<Keys>,
        listener: Listener,
        timeout: Duration,
    ) -> Result<Self> {
        let client = connection
            .subscriber_builder(timeout)
            .build()
            .map_err(|error| translate("setting up the subscription", &error))?;
        // Before the connection is there, so that nothing comes in unheard.
        let (messages, events, reconnects) =
            (client.message_rx(), client.keyspace_event_rx(), client.reconnect_rx());
        let commands = connection.commands.client();
        let moves = commands.is_clustered().then(|| commands.cluster_change_rx());
        let what = format!("connecting to {} for the subscription", connection.address());
        let own = Own::connect(client, timeout, &what).await?;
        let inbox = match listener {
            Listener::Worker(worker) => Some(keys.inbox_of(worker)),
            Listener::Master | Listener::Watcher => None,
        };
        let channel = match (listener, &inbox) {
            (Listener::Watcher, _) => keys.changes.clone(),
            (_, Some(inbox)) => inbox.clone(),
            (_, None) => keys.released.clone(),
        };
        let others = (listener != Listener::Watcher).then(|| Others {
            control: keys.control.clone(),
            pattern: keys.lock_events(connection.database()),
            wanted: Arc::new(AtomicBool::new(true)),
            denied: Arc::default(),
        });
        let slot = route::slot(&keys);
        let mut subscriber = Self {
            own,
            keys,
            inbox,
            channel,
            others,
            slot,
            timeout,
            turn: Arc::default(),
            messages,
            events,
            reconnects,
            moves,
        };
        // The first connection is announced like any other; the caller attaches to it anyway.
        while subscriber.reconnects.try_recv().is_ok() {}
        Ok(subscriber)
    }

    /// Subscribes to everything that is wanted, on the node that has the cluster's slot, and waits for the confirmation:
    /// an `Ok` of a subscription only says that it was sent, so a `PING` behind it has to come back.
    ///
    /// Where keyspace events are denied, it goes on without them.
    pub(crate) fn attach(&self) -> impl Future<Output = Result<()>> + Send + use<> {
        let client = self.own.client().clone();
        let (channel, others) = (self.channel.clone(), self.others.clone());
        let (turn, options) = (self.turn.clone(), self.options(3));
        async move {
            let _turn = turn.lock().await;
            if client.is_clustered() {
                // The slot's move to another node ends subscriptions without a word. If asking for the map
                // fails, the subscriptions go where it was, and are sent on from there.
                let _ = timeout(options.timeout.unwrap_or_default(), client.sync_cluster()).await;
            }
            let client = client.with_options(&options);
            subscribe(&client, &channel).await?;
            match others.filter(|others| others.wanted.load(Ordering::SeqCst)) {
                Some(others) => others.subscribe(&client).await,
                None => confirm(&client).await.map_err(|error| translate("subscribing", &error)),
            }
        }
    }

    /// From when this has resolved on, the ends of others are heard, or are not: each costs everybody who hears it.
    pub(crate) fn listen(&self, wanted: bool) -> impl Future<Output = Result<()>> + Send + use<> {
        let (client, others) = (self.own.client().clone(), self.others.clone());
        let (turn, options) = (self.turn.clone(), self.options(3));
        if let Some(others) = &others {
            others.wanted.store(wanted, Ordering::SeqCst);
        }
        async move {
            let Some(others) = others else { return Ok(()) };
            let _turn = turn.lock().await;
            let client = client.with_options(&options);
            if wanted { others.subscribe(&client).await } else { others.unsubscribe(&client).await }
        }
    }

    /// Whether this connection still answers: nothing else tells, where no message comes.
    pub(crate) fn ping(&self) -> impl Future<Output = Result<()>> + Send + use<> {
        let (client, turn, options) = (self.own.client().clone(), self.turn.clone(), self.options(1));
        async move {
            let _turn = turn.lock().await;
            confirm(&client.with_options(&options))
                .await
                .map_err(|error| translate("asking whether the subscription is alive", &error))
        }
    }

    /// Gives the connection up and makes a new one; [`Signal::Reconnected`] tells when it is there.
    pub(crate) fn reconnect(&self) -> impl Future<Output = Result<()>> + Send + use<> {
        let (running, patience) = (self.own.running(), self.timeout);
        async move { running.reconnect(patience).await }
    }

    /// The next thing that came in. When the client has ended, which it does only with the runtime, nothing comes
    /// any more: a signal of that would come again and again.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped.
    pub(crate) async fn next(&mut self) -> Signal {
        loop {
            // To listen to all the rest for each of many messages costs more than the message.
            let others = !self.has_only_messages();
            let signal = tokio::select! {
                biased;
                reconnect = self.reconnects.recv(), if others => match reconnect {
                    Ok(_) | Err(RecvError::Lagged(_)) => {
                        // In a cluster there is one for each node.
                        while self.reconnects.try_recv().is_ok() {}
                        Some(Signal::Reconnected)
                    }
                    Err(RecvError::Closed) => std::future::pending().await,
                },
                () = moved(&mut self.moves), if others => Some(Signal::Reconnected),
                message = self.messages.recv() => match message {
                    Ok(message) => self.sort(message),
                    Err(RecvError::Lagged(_)) => Some(Signal::Lagged),
                    Err(RecvError::Closed) => std::future::pending().await,
                },
                event = self.events.recv() => match event {
                    Ok(event) => lock_ended(&self.keys, &event),
                    // Only hints were lost: the timers know.
                    Err(RecvError::Lagged(_)) => None,
                    Err(RecvError::Closed) => std::future::pending().await,
                },
            };
            if let Some(signal) = signal {
                return signal;
            }
        }
    }

    /// Whether a message is there, and nothing that comes before it.
    pub(crate) fn has_only_messages(&self) -> bool {
        !self.messages.is_empty()
            && self.reconnects.is_empty()
            && self.moves.as_ref().is_none_or(Receiver::is_empty)
    }

    /// Why [`attach`](Self::attach) went on without keyspace events, if it did.
    pub(crate) fn denied(&self) -> Option<&Error> {
        self.others.as_ref()?.denied.get()
    }

    /// Ends the connection. Takes a second at most.
    pub(crate) async fn close(self) {
        self.own.close().await;
    }

    fn options(&self, attempts: u32) -> Options {
        route::options(self.slot, self.timeout, attempts)
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
        } else if channel == self.keys.changes {
            Some(Signal::Changes(bytes))
        } else {
            None
        }
    }
}

impl Others {
    async fn subscribe<C: PubsubInterface>(&self, client: &C) -> Result<()> {
        let failed = |error| translate("subscribing", &error);
        subscribe(client, &self.control).await?;
        confirm(client).await.map_err(failed)?;
        if self.denied.get().is_some() {
            return Ok(());
        }
        // Both at once: fred drops a refusal that comes while no command waits for an answer.
        let (sent, confirmed) = tokio::join!(client.psubscribe(self.pattern.as_str()), confirm(client));
        sent.map_err(failed)?;
        match confirmed {
            // The refusal came in the place of the PING's answer.
            Err(error) if code(&error) == "NOPERM" => {
                let error = translate(&format!("subscribing to {}", self.pattern), &error);
                tracing::warn!(%error, "keyspace events are denied: takeovers go by timers");
                let _ = self.denied.set(error); // nobody else does, in this turn
                confirm(client).await.map_err(failed)
            }
            result => result.map_err(failed),
        }
    }

    /// A refusal comes in the place of the PING's answer, as above, or is dropped; that answer comes after it, and is waited for.
    async fn unsubscribe<C: PubsubInterface>(&self, client: &C) -> Result<()> {
        let failed = |error| translate("ending a subscription", &error);
        let (sent, by_pattern) = tokio::join!(client.punsubscribe(self.pattern.as_str()), confirm(client));
        sent.map_err(failed)?;
        confirm(client).await.map_err(failed)?;
        let (sent, by_channel) = tokio::join!(client.sunsubscribe(self.control.as_str()), confirm(client));
        sent.map_err(failed)?;
        confirm(client).await.map_err(failed)?;
        by_pattern.and(by_channel).map_err(failed)
    }
}

/// One channel at a time: fred takes a second confirmation for the next command's reply.
async fn subscribe<C: PubsubInterface>(client: &C, channel: &str) -> Result<()> {
    let failed = |error| translate(&format!("subscribing to {channel}"), &error);
    client.ssubscribe(channel).await.map_err(failed)
}

/// Resolves when the map of the cluster was read anew, in this client's stead by the one that commands go through.
async fn moved(moves: &mut Option<Receiver<Vec<ClusterStateChange>>>) {
    while let Some(receiver) = moves {
        match receiver.recv().await {
            Ok(_) | Err(RecvError::Lagged(_)) => {
                while receiver.try_recv().is_ok() {}
                return;
            }
            // An application has quit its client: nothing moves any more.
            Err(RecvError::Closed) => *moves = None,
        }
    }
    std::future::pending::<()>().await;
}

async fn confirm<C: ClientLike>(client: &C) -> std::result::Result<(), fred::error::Error> {
    client.ping::<Value>(None).await.map(|_| ())
}

/// Any event of a lock that leaves no key behind; the server is asked what is true of it.
fn lock_ended(keys: &Keys, event: &KeyspaceEvent) -> Option<Signal> {
    let gone = matches!(&*event.operation, "expired" | "del" | "evicted" | "rename_from" | "move_from");
    gone.then(|| keys.worker_of_lock(event.key.as_bytes()).map(Signal::LockEnded))?
}

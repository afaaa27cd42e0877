//! A participant's subscription, kept up: attached again after each reconnect, pinged, and honest about loss.
//!
//! ```text
//!            Reconnected / reattach()             attached, same or new server noted
//! Attached ---------------------------> Attaching ----------------------------------> Attached
//!    ^  ping unanswered: force a reconnect   |  failed; no answer: force a reconnect
//!    +---------------------------------------+-----> Waiting (backoff) ---> Attaching
//! ```
//!
//! A worker's heartbeat tells of the last frame that was sent to it, so whether its subscription has lost one is known
//! without a ping. That one finds only what has lost nothing yet, and is rare: a server with many workers would do
//! hardly anything else.

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::alarm::Alarm;
use super::backoff::Backoff;
use super::hearing::Hearing;
use super::retry::{Outage, warn_first};
use crate::cluster::Shared;
use crate::error::{Error, ErrorKind, Result};
use crate::id::WorkerId;
use crate::message::{Batch, Control, Released};
use crate::redis::store::Opened;
use crate::redis::subscriber::{Listener, Signal, Subscriber};
use crate::wire::frame;

/// What a participant learns from its subscription.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// A frame for this worker, as it came.
    Inbox(Bytes),
    Control(Control),
    Released(Released),
    Changes(Batch),
    /// A lock's key is said to be gone. Anybody may have said so.
    LockEnded(WorkerId),
    /// Messages may have been lost while nobody listened; from now on none is. The server is another run of
    /// itself, or another server, if it was opened anew.
    Attached(Option<Opened>),
    /// Messages were dropped because they were not read fast enough.
    Lagged,
}

/// How many messages are taken in before other work gets its turn: fewer than tokio lets a task take at a time
/// (128), so that it is this bound that ends a burst.
const BURST: usize = 64;

/// So many heartbeats of a worker are between two pings of its subscription.
const HEARTBEATS_A_PING: u32 = 6;

/// Where the subscription is.
enum State {
    Attached,
    Attaching(BoxFuture<'static, Result<Attach>>),
    /// The last try failed; the next one is then.
    Waiting(Instant),
}

/// What attaching found.
struct Attach {
    run_id: String,
    opened: Option<Opened>,
}

pub(crate) struct Link {
    cluster: Arc<Shared>,
    subscriber: Subscriber,
    state: State,
    run_id: String,
    backoff: Backoff,
    outage: Outage,
    interval: Duration,
    next_ping: Instant,
    alarm: Alarm,
    /// How many more messages are taken in a row.
    burst: usize,
    ping: Option<BoxFuture<'static, Result<()>>>,
    hearing: Hearing,
    listening: Option<BoxFuture<'static, Result<()>>>,
}

impl Link {
    /// Connects and attaches. What is published after this returned is not missed.
    pub(crate) async fn start(cluster: &Arc<Shared>, run_id: String, listener: Listener) -> Result<Self> {
        let timeout = cluster.settings.command_timeout;
        let subscriber =
            Subscriber::start(&cluster.connection, cluster.keys.clone(), listener, timeout).await?;
        Box::pin(subscriber.attach()).await?; // large, and part of every join
        let heartbeat = cluster.settings.heartbeat();
        let interval = match listener {
            Listener::Worker(_) => heartbeat * HEARTBEATS_A_PING,
            Listener::Master | Listener::Watcher => heartbeat,
        };
        Ok(Self {
            cluster: cluster.clone(),
            subscriber,
            state: State::Attached,
            run_id,
            backoff: Backoff::new(),
            outage: Outage::default(),
            interval,
            next_ping: Instant::now() + interval,
            alarm: Alarm::new(),
            burst: 0,
            ping: None,
            hearing: Hearing::new(),
            listening: None,
        })
    }

    /// Hears of the others' ends from now on, or does not. At first it does.
    pub(crate) fn listen(&mut self, wanted: bool) {
        self.hearing.handle_wish(wanted);
        self.hear(Instant::now());
    }

    /// Asks for what is to be heard. While there is no subscription, whatever is asked for fails.
    fn hear(&mut self, now: Instant) {
        if matches!(self.state, State::Attached)
            && let Some(wanted) = self.hearing.poll(now)
        {
            self.listening = Some(Box::pin(self.subscriber.listen(wanted)));
        }
    }

    /// Subscribes again although the connection seems fine: messages were lost without a word.
    pub(crate) fn reattach(&mut self) {
        // What is under way is not begun anew: asked for with each heartbeat, it would never be given up.
        if !matches!(self.state, State::Attaching(_)) {
            self.attach();
        }
    }

    fn attach(&mut self) {
        let (attach, reconnect) = (self.subscriber.attach(), self.subscriber.reconnect());
        let cluster = self.cluster.clone();
        let known = self.run_id.clone();
        self.state = State::Attaching(Box::pin(async move {
            if let Err(error) = attach.await {
                if error.kind() == ErrorKind::Timeout {
                    // The connection is dead, and nothing else would tell so for long.
                    reconnect.await.ok();
                }
                return Err(error);
            }
            let run_id = cluster.run_id().await?;
            if run_id == known {
                return Ok(Attach { run_id, opened: None });
            }
            let opened = Some(cluster.store.open(&run_id).await?);
            // What was set by CONFIG SET is gone with the run that it was set in. Only hints depend on it.
            if let Err(error) = cluster.ensure_notifications().await {
                tracing::warn!(%error, "notifications could not be looked at; takeovers may go by timers");
            }
            Ok(Attach { run_id, opened })
        }));
    }

    /// The next thing that happened.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped.
    pub(crate) async fn next(&mut self) -> LinkEvent {
        self.burst = BURST;
        self.take().await
    }

    async fn take(&mut self) -> LinkEvent {
        loop {
            let due = match &self.state {
                State::Waiting(until) => Some(*until),
                State::Attached => self.hearing.poll_timeout(),
                State::Attaching(_) => None,
            };
            let wake = due.map_or(self.next_ping, |due| due.min(self.next_ping));
            tokio::select! {
                biased;
                signal = self.subscriber.next() => if let Some(event) = self.handle_signal(signal) {
                    return event;
                },
                attach = attaching(&mut self.state) => if let Some(event) = self.handle_attach(attach) {
                    return event;
                },
                answer = or_never(&mut self.ping) => {
                    self.ping = None;
                    if let Err(error) = answer {
                        self.handle_down(error);
                    }
                }
                answer = or_never(&mut self.listening) => {
                    self.listening = None;
                    self.hearing.handle_answer(Instant::now(), answer);
                    self.hear(Instant::now());
                }
                () = self.alarm.wait_until(wake) => self.handle_time(Instant::now()),
            }
        }
    }

    /// What is there already behind what `next` gave, until a burst is over: most messages come many at a time.
    pub(crate) fn next_in_burst(&mut self) -> Option<LinkEvent> {
        self.burst = self.burst.saturating_sub(1);
        // Mostly there is none, and to look for everything else in vain costs more than the message before it did.
        if self.burst > 0 && self.subscriber.has_only_messages() { self.take().now_or_never() } else { None }
    }

    pub(crate) async fn close(self) {
        self.subscriber.close().await;
    }

    fn handle_signal(&mut self, signal: Signal) -> Option<LinkEvent> {
        let malformed = |what: &str| {
            tracing::warn!("a message on the {what} channel was not understood and is passed over");
            None
        };
        match signal {
            Signal::Inbox(bytes) => Some(LinkEvent::Inbox(bytes)),
            Signal::Control(bytes) => frame::control(&bytes)
                .map_or_else(|_| malformed("control"), |control| Some(LinkEvent::Control(control))),
            Signal::Released(bytes) => frame::released(&bytes)
                .map_or_else(|_| malformed("released"), |gone| Some(LinkEvent::Released(gone))),
            // What was not understood is missing then, and will be asked for.
            Signal::Changes(bytes) => frame::batch(&bytes)
                .map_or_else(|_| malformed("changes"), |batch| Some(LinkEvent::Changes(batch))),
            Signal::LockEnded(worker) => Some(LinkEvent::LockEnded(worker)),
            Signal::Lagged => Some(LinkEvent::Lagged),
            Signal::Reconnected => {
                self.attach();
                None
            }
        }
    }

    fn handle_down(&mut self, error: Error) {
        // Commands go to the same server, and more is told of their connection.
        let error = self.cluster.store.explain(error);
        warn_first!(self.outage.begins(&error), %error, "the subscription is down; it is being brought back");
    }

    fn handle_attach(&mut self, attach: Result<Attach>) -> Option<LinkEvent> {
        match attach {
            Ok(attach) => {
                self.state = State::Attached;
                self.backoff.reset();
                self.hear(Instant::now());
                if attach.run_id != self.run_id {
                    tracing::info!(run_id = %attach.run_id, "the server is another run of itself, or another one");
                    self.run_id = attach.run_id;
                }
                self.outage.ends();
                tracing::info!("subscribed again; what may have been missed is asked for");
                Some(LinkEvent::Attached(attach.opened))
            }
            Err(error) => {
                self.state = State::Waiting(Instant::now() + self.backoff.next_delay());
                self.handle_down(error);
                None
            }
        }
    }

    fn handle_time(&mut self, now: Instant) {
        if let State::Waiting(until) = self.state
            && until <= now
        {
            self.attach();
        }
        self.hear(now);
        if self.next_ping <= now {
            self.next_ping = now + self.interval;
            if self.ping.is_none() {
                let (ping, reconnect) = (self.subscriber.ping(), self.subscriber.reconnect());
                self.ping = Some(Box::pin(async move {
                    let answer = ping.await;
                    if answer.is_err() {
                        // Nothing else tells that a quiet connection is dead: no message is no sign.
                        reconnect.await.ok();
                    }
                    answer
                }));
            }
        }
    }
}

async fn attaching(state: &mut State) -> Result<Attach> {
    match state {
        State::Attaching(attach) => attach.await,
        State::Attached | State::Waiting(_) => pending().await,
    }
}

async fn or_never<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}

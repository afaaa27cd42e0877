//! The task behind a watch: carries what the channel brings to the feed, and asks for what the feed wants.

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::Desk;
use super::picture::{self, Page};
use crate::cluster::Shared;
use crate::core::feed::Ask;
use crate::error::Result;
use crate::id::Revision;
use crate::message::History;
use crate::shell::alarm::Alarm;
use crate::shell::link::{Link, LinkEvent};
use crate::shell::retry::{Outage, Retry, warn_first};

/// How long changes are told and kept after the last heartbeat of a watcher: time to restart one.
pub(super) const KEEP: Duration = Duration::from_secs(600);

/// How long a batch may be under way between the server's two connections to us before it counts as lost.
const AUDIT_GRACE: Duration = Duration::from_millis(50);

enum Answer {
    History {
        request: u64,
        result: Result<History>,
    },
    Page {
        request: u64,
        result: Result<Page>,
    },
    /// What was known when it was sent, and the last batch.
    Beat(Option<Revision>, Result<Revision>),
}

type Work = Option<BoxFuture<'static, Answer>>;

/// Runs until `stop`.
pub(super) async fn run(
    cluster: Arc<Shared>,
    mut link: Link,
    desk: Arc<Desk>,
    length: u64,
    stop: CancellationToken,
) {
    let interval = cluster.settings.heartbeat();
    let (mut asked, mut beat): (Work, Work) = (None, None);
    let mut next_beat = Instant::now() + interval;
    let mut audit: Option<(Option<Revision>, Revision, Instant)> = None;
    let (mut asks, mut beats) = (Retry::new(), Outage::default());
    let mut alarm = Alarm::new();
    loop {
        // Only the newest request counts: an older one is dropped with its future.
        if let Some(ask) = desk.act(|feed| feed.poll_command()) {
            asked = Some(send(&cluster, ask, length));
        }
        let wake = [Some(next_beat), audit.map(|(.., at)| at), asks.next()]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(next_beat);
        tokio::select! {
            () = stop.cancelled() => break,
            event = link.next() => if let Some(ask) = handle_link(event, &mut link, &desk) {
                asked = Some(send(&cluster, ask, length));
            },
            () = desk.driver_wanted() => {}
            answer = or_never(&mut asked) => {
                asked = None;
                match answer {
                    Answer::History { request, result: Ok(history) } => {
                        asks.succeeded();
                        desk.act(|feed| feed.handle_history(request, history));
                    }
                    Answer::Page { request, result: Ok(page) } => {
                        asks.succeeded();
                        let Page { read_at, picture } = page;
                        desk.act(|feed| feed.handle_page(request, read_at, picture));
                    }
                    Answer::History { request, result: Err(error) }
                    | Answer::Page { request, result: Err(error) } => {
                        let first = asks.failed(Instant::now(), &error);
                        warn_first!(first, %error, "what was missed could not be asked for; it is tried again");
                        desk.act(|feed| feed.handle_failed(request));
                    }
                    Answer::Beat(..) => {}
                }
            }
            answer = or_never(&mut beat) => {
                beat = None;
                match answer {
                    Answer::Beat(known, Ok(last)) => {
                        if beats.ends() {
                            tracing::info!("a watcher's heartbeats are answered again");
                        }
                        audit = Some((known, last, Instant::now() + AUDIT_GRACE));
                    }
                    Answer::Beat(_, Err(error)) => {
                        warn_first!(beats.begins(&error), %error, "a watcher's heartbeat was not answered; more are sent");
                    }
                    Answer::History { .. } | Answer::Page { .. } => {}
                }
            }
            () = alarm.wait_until(wake) => {
                let now = Instant::now();
                if next_beat <= now {
                    next_beat = now + interval;
                    let (cluster, known) = (cluster.clone(), desk.act(|feed| feed.known()));
                    beat.get_or_insert_with(|| async move {
                        Answer::Beat(known, cluster.store.watch(KEEP, length).await)
                    }.boxed());
                }
                if let Some((known, last, _)) = audit.take_if(|(.., at)| *at <= now) {
                    desk.act(|feed| feed.handle_audit(known, last));
                }
                if asks.take_due(now) {
                    desk.act(|feed| feed.retry());
                }
            }
        }
    }
    link.close().await;
}

fn send(cluster: &Arc<Shared>, ask: Ask, length: u64) -> BoxFuture<'static, Answer> {
    let cluster = cluster.clone();
    match &ask {
        Ask::History { after, .. } => tracing::debug!(%after, "what may have been missed is asked for"),
        Ask::Page { cursor: None, .. } => {
            tracing::info!(
                "the whole picture is told: the watch begins, or the journal does not have what it has missed"
            );
        }
        Ask::Page { .. } => {}
    }
    async move {
        match ask {
            Ask::History { request, after } => {
                Answer::History { request, result: cluster.store.history(after).await }
            }
            Ask::Page { request, cursor } => {
                Answer::Page { request, result: picture::read(&cluster.store, cursor, KEEP, length).await }
            }
        }
    }
    .boxed()
}

async fn or_never(work: &mut Work) -> Answer {
    match work {
        Some(work) => work.await,
        None => pending().await,
    }
}

/// Takes in what came, and what is there behind it. Up to something that is to be asked for: what comes after that counts
/// as come after the request.
fn handle_link(event: LinkEvent, link: &mut Link, desk: &Desk) -> Option<Ask> {
    let mut next = Some(event);
    while let Some(event) = next {
        handle_event(event, desk);
        if let Some(ask) = desk.act(|feed| feed.poll_command()) {
            return Some(ask);
        }
        next = link.next_in_burst();
    }
    None
}

fn handle_event(event: LinkEvent, desk: &Desk) {
    match event {
        LinkEvent::Changes(batch) => desk.act(|feed| feed.handle_batch(batch)),
        LinkEvent::Attached(None) | LinkEvent::Lagged => desk.act(|feed| feed.handle_gap()),
        LinkEvent::Attached(Some(_)) => {
            tracing::info!("the server is another run of itself, or another one: what there is is told anew");
            desk.act(|feed| feed.handle_break());
        }
        LinkEvent::Inbox(_) | LinkEvent::Control(_) | LinkEvent::Released(_) | LinkEvent::LockEnded(_) => {}
    }
}

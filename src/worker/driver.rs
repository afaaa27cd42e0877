//! The task behind a worker: carries what the server says to the desk, and what the desk decides to the server.
//!
//! ```text
//!  Serving <--drain, resume--> Draining --to leave, mark accepted, nothing held--> Leaving --left--> Close(Terminated
//!     |                           |                                        |                             | Evicted)
//!     +------ fenced: by our clock, by a refused beat, by push ------------+--> Close(LockExpired | ClusterReset)
//! ```

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;

use super::desk::{Desk, Wish};
use crate::cluster::Shared;
use crate::core::lease::{Fence, LeaseAction};
use crate::core::view::Command;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{JobId, Revision};
use crate::job::Dropped;
use crate::message::{Body, CloseReason, DeleteReason, Order, Page, Terms};
use crate::redis::store::{BATCH_MOVES, Beat, Ended, Joined, Lock, Member};
use crate::shell::alarm::Alarm;
use crate::shell::link::{Link, LinkEvent};
use crate::shell::retry::{Outage, Retry, warn_first};
use crate::shell::takeover::Takeover;
use crate::wire::frame;

pub(super) struct Driver {
    cluster: Arc<Shared>,
    member: Member,
    link: Link,
    desk: Arc<Desk>,
    dropped: mpsc::UnboundedReceiver<Dropped>,
    takeover: Takeover,
    phase: Phase,
    /// Why it leaves, once it does: there is no way back.
    leaving: Option<CloseReason>,
    fence: Fence,
    /// What the server knows, or is being told.
    terms: Terms,
    /// What the server wants of it.
    order: Order,
    /// Commands on their way to the server. At most one batch of releases and one sync among them.
    work: FuturesUnordered<BoxFuture<'static, Done>>,
    releases: Retry,
    syncs: Retry,
    leaves: Retry,
    release_queue: Vec<(JobId, Revision)>,
    releasing: bool,
    beats: Outage,
}

/// How far the worker is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    /// Gives up its jobs. Nothing is released before the server has the mark, or it would give them back to us.
    Draining {
        marked: bool,
    },
    /// Holds nothing, and is saying so.
    Leaving,
}

enum Done {
    Beat { sent: Instant, draining: bool, result: Result<Result<Beat, Ended>> },
    Synced { request: u64, result: Result<Result<Page, Ended>> },
    Released { jobs: Vec<(JobId, Revision)>, result: Result<Vec<bool>> },
    Left { result: Result<()> },
}

impl Driver {
    pub(super) fn new(
        cluster: Arc<Shared>,
        member: Member,
        link: Link,
        desk: Arc<Desk>,
        dropped: mpsc::UnboundedReceiver<Dropped>,
        joined: Joined,
        fence: Fence,
    ) -> Self {
        let mut takeover = Takeover::new(cluster.store.clone(), &cluster.settings, Some(member.worker));
        let terms = desk.act(|state| state.terms);
        let now = Instant::now();
        for worker in joined.due {
            takeover.handle_lock_ended(now, worker);
        }
        takeover.handle_waiting(joined.pending);
        Self {
            cluster,
            member,
            link,
            desk,
            dropped,
            takeover,
            phase: Phase::Serving,
            leaving: None,
            fence,
            terms,
            order: Order::Resume,
            work: FuturesUnordered::new(),
            releases: Retry::new(),
            syncs: Retry::new(),
            leaves: Retry::new(),
            release_queue: Vec::new(),
            releasing: false,
            beats: Outage::default(),
        }
    }

    pub(super) async fn run(mut self) {
        // If this task is ended from outside, the consumer must not wait for ever.
        let _guard = CloseOnDrop(self.desk.clone());
        self.desk.act(|state| state.view.handle_gap());
        let mut alarm = Alarm::new();
        while let Some(wake) = self.step(Instant::now()) {
            tokio::select! {
                event = self.link.next() => self.handle_link(event),
                Some(done) = self.work.next(), if !self.work.is_empty() => self.handle_done(done),
                Some(dropped) = self.dropped.recv() => self.handle_dropped(dropped),
                () = self.desk.driver_wanted() => {}
                never = self.takeover.run() => match never {},
                () = alarm.wait_until(wake) => {}
            }
        }
        self.link.close().await;
    }

    /// Does all that is due. Returns when to do so again at the latest; `None` when the worker is closed.
    fn step(&mut self, now: Instant) -> Option<Instant> {
        self.follow_wish(now);
        // Who leaves, holds nothing and gets no answer has nothing to wait for.
        let cut_off = self.beats.lasts() && self.fence == Fence::Lenient;
        self.desk.act(|state| {
            state.view.handle_timeout(now);
            if cut_off && state.wish >= Wish::Terminate && state.view.has_let_go() {
                state.lease.handle_let_go();
            }
        });
        let mut wake = loop {
            match self.desk.act(|state| state.lease.poll(now)) {
                LeaseAction::Beat => self.beat(now),
                LeaseAction::Wait(until) => break until,
                LeaseAction::Fenced => {
                    tracing::warn!(
                        "no heartbeat was answered in time: the worker gives up its jobs before its lock ends"
                    );
                    self.desk.close(CloseReason::LockExpired);
                    return None;
                }
            }
        };
        if self.syncs.take_due(now) {
            self.desk.act(|state| state.view.handle_gap());
        }
        self.carry_out_commands();
        self.release(now);
        self.leave(now);
        let (closed, timeout) = self.desk.act(|state| (state.view.is_closed(), state.view.poll_timeout()));
        if closed {
            return None;
        }
        let retries = [&self.releases, &self.syncs, &self.leaves].map(Retry::next);
        for at in retries.into_iter().chain([timeout]).flatten().filter(|at| *at > now) {
            wake = wake.min(at);
        }
        Some(wake)
    }

    /// Does what the consumer and the server want of the worker; the stricter of both.
    fn follow_wish(&mut self, now: Instant) {
        let (wish, terms) = self.desk.act(|state| (state.wish, state.terms));
        if self.leaving.is_none() {
            self.leaving = match (wish, self.order) {
                (Wish::Terminate | Wish::Abandon, _) => Some(CloseReason::Terminated),
                (_, Order::Evict) => Some(CloseReason::Evicted),
                _ => None,
            };
        }
        let drained = match (self.leaving, wish, self.order) {
            (Some(CloseReason::Evicted), _, _) => Some(DeleteReason::Evicted),
            (Some(_), _, _) => Some(DeleteReason::Terminated),
            (None, Wish::Drain, _) | (None, _, Order::Drain) => Some(DeleteReason::Drained),
            (None, _, _) => None,
        };
        match (self.phase, drained) {
            (Phase::Serving, Some(reason)) => {
                tracing::info!(?reason, "no new jobs, and those held are given up");
                self.phase = Phase::Draining { marked: false };
                self.desk.act(|state| state.view.handle_drain(now, reason));
                self.beat(now);
            }
            (Phase::Draining { .. }, None) => {
                tracing::info!("taking jobs again");
                self.phase = Phase::Serving;
                self.desk.act(|state| state.view.handle_resume());
                self.beat(now);
            }
            _ => {}
        }
        if terms != self.terms {
            tracing::info!(?terms, "takes part on other terms");
            self.terms = terms;
            self.beat(now);
        }
        if wish == Wish::Abandon {
            self.desk.discard_events();
        }
    }

    fn carry_out_commands(&mut self) {
        while let Some(command) = self.desk.act(|state| state.commands.pop_front()) {
            match command {
                Command::Sync { request, since, cursor } => {
                    let (cluster, member) = (self.cluster.clone(), self.member.clone());
                    self.work.push(Box::pin(async move {
                        Done::Synced { request, result: cluster.store.sync(&member, since, cursor).await }
                    }));
                }
                Command::Resubscribe => {
                    tracing::warn!("frames were lost although the subscription seems fine: it is made again");
                    self.link.reattach();
                }
                Command::Release { job, grant } => self.release_queue.push((job, grant)),
                Command::Attend => self.beat(Instant::now()),
                Command::Cancel { .. } => {} // done at the desk
            }
        }
    }

    fn beat(&mut self, now: Instant) {
        let (cluster, member) = (self.cluster.clone(), self.member.clone());
        let draining = self.phase != Phase::Serving;
        let lenient = self.fence == Fence::Lenient;
        let lock = Lock { ttl: cluster.settings.lock_ttl, terms: self.terms, draining, lenient };
        self.work.push(Box::pin(async move {
            let result = cluster.store.beat(&member, &lock).await;
            Done::Beat { sent: now, draining, result }
        }));
    }

    fn release(&mut self, now: Instant) {
        let held_back = self.phase == Phase::Draining { marked: false };
        if self.release_queue.is_empty() || self.releasing || held_back || !self.releases.may_go(now) {
            return;
        }
        self.releasing = true;
        let batch = self.release_queue.len().min(BATCH_MOVES);
        let jobs: Vec<_> = self.release_queue.drain(..batch).collect();
        let (cluster, worker) = (self.cluster.clone(), self.member.worker);
        self.work.push(Box::pin(async move {
            let result = cluster.store.release(worker, &jobs).await;
            Done::Released { jobs, result }
        }));
    }

    fn leave(&mut self, now: Instant) {
        let drained = self.phase == Phase::Draining { marked: true }
            && self.release_queue.is_empty()
            && !self.releasing
            && self.desk.act(|state| state.view.is_drained());
        if !drained {
            return;
        }
        self.desk.note_drained();
        if self.leaving.is_none() || !self.leaves.may_go(now) {
            return;
        }
        self.phase = Phase::Leaving;
        let (cluster, member) = (self.cluster.clone(), self.member.clone());
        self.work.push(Box::pin(async move {
            let result = loop {
                match cluster.store.leave(&member).await {
                    Ok(Some((_, left))) if left > 0 => {}
                    Ok(_) => break Ok(()),
                    Err(error) => break Err(error),
                }
            };
            Done::Left { result }
        }));
    }

    fn handle_link(&mut self, event: LinkEvent) {
        let now = Instant::now();
        let mut next = Some(event);
        while let Some(event) = next {
            match event {
                LinkEvent::Inbox(bytes) => self.handle_frame(now, bytes),
                LinkEvent::Control(control) => self.takeover.handle_control(now, control),
                LinkEvent::LockEnded(worker) => self.takeover.handle_lock_ended(now, worker),
                LinkEvent::Released(_) | LinkEvent::Changes(_) => {}
                LinkEvent::Attached(opened) => {
                    if opened.is_some_and(|opened| opened.incarnation != self.member.incarnation) {
                        self.end(Ended::Reset);
                    }
                    self.desk.act(|state| state.view.handle_gap());
                }
                LinkEvent::Lagged => {
                    tracing::warn!("messages came faster than they were read: what was missed is asked for");
                    self.desk.act(|state| state.view.handle_gap());
                }
            }
            next = self.link.next_in_burst();
        }
    }

    fn handle_frame(&mut self, now: Instant, bytes: Bytes) {
        match frame::frame(&bytes) {
            Ok(frame) => {
                let revision = frame.revision;
                match &frame.body {
                    Body::Add { job, .. } => tracing::debug!(%revision, %job, "pushed: add"),
                    Body::Update { job, .. } => tracing::debug!(%revision, %job, "pushed: update"),
                    Body::Delete { job, reason, .. } => {
                        tracing::debug!(%revision, %job, ?reason, "pushed: delete");
                    }
                    Body::Attend | Body::Fenced => tracing::debug!(%revision, body = ?frame.body, "pushed"),
                }
                self.desk.act(|state| state.view.handle_frame(now, frame));
            }
            Err(_) => {
                let text = "a message in the worker's inbox was not understood; the worker asks the server instead. If it \
                            comes again, look who else publishes to the cluster's channels, or for a newer version of this crate";
                self.report(Error::new(ErrorKind::Protocol, text));
                self.desk.act(|state| state.view.handle_gap());
            }
        }
    }

    fn handle_dropped(&mut self, dropped: Dropped) {
        let now = Instant::now();
        let mut next = Some(dropped);
        while let Some(Dropped { job, grant }) = next {
            tracing::debug!(%job, %grant, "the last handle was dropped");
            self.desk.act(|state| state.view.handle_dropped(now, &job, grant));
            next = self.dropped.try_recv().ok();
        }
    }

    fn handle_done(&mut self, done: Done) {
        let now = Instant::now();
        match done {
            Done::Beat { sent, draining, result } => self.handle_beat(now, sent, draining, result),
            Done::Synced { request, result } => match result {
                Ok(Ok(page)) => {
                    tracing::info!(revision = %page.revision, rows = page.rows.len(), "synced a page");
                    self.syncs.succeeded();
                    self.desk.act(|state| state.view.handle_page(now, request, page));
                }
                Ok(Err(ended)) => self.end(ended),
                Err(error) => {
                    let first = self.syncs.failed(now, &error);
                    warn_first!(first, %error, "a sync failed; it is tried again");
                    self.desk.act(|state| state.view.handle_sync_failed(request));
                }
            },
            Done::Released { jobs, result } => {
                self.releasing = false;
                match result {
                    Ok(answers) => {
                        if self.releases.succeeded() {
                            tracing::info!("releases are answered again");
                        }
                        self.desk.act(|state| {
                            for ((job, grant), mine) in jobs.iter().zip(answers) {
                                state.view.handle_released(job, *grant, mine);
                            }
                        });
                    }
                    Err(error) => {
                        let (first, count) = (self.releases.failed(now, &error), jobs.len());
                        warn_first!(first, jobs = count, %error, "a release was not answered; it is sent again");
                        self.desk.act(|state| {
                            for (job, grant) in &jobs {
                                state.view.handle_release_failed(job, *grant);
                            }
                        });
                    }
                }
            }
            Done::Left { result: Ok(()) } => {
                tracing::info!("left the cluster");
                self.desk.close(self.leaving.unwrap_or(CloseReason::Terminated));
            }
            Done::Left { result: Err(error) } => {
                let first = self.leaves.failed(now, &error);
                warn_first!(first, %error, "could not say that the worker leaves; tried again until the lock ends");
                self.phase = Phase::Draining { marked: true };
            }
        }
    }

    fn handle_beat(
        &mut self,
        now: Instant,
        sent: Instant,
        draining: bool,
        result: Result<Result<Beat, Ended>>,
    ) {
        match result {
            Ok(Ok(beat)) => {
                if self.beats.ends() {
                    tracing::info!("heartbeats are answered again");
                }
                self.desk.act(|state| {
                    state.lease.handle_accepted(sent);
                    state.view.handle_audit(now, beat.inbox, beat.lifted);
                });
                self.order = beat.order;
                self.takeover.handle_contact(now);
                self.takeover.handle_rank(beat.rank);
                self.link.listen(self.takeover.listens());
                self.takeover.handle_due(now, beat.due);
                self.takeover.handle_waiting(beat.waiting);
                self.takeover.handle_turn();
                if draining && self.phase == (Phase::Draining { marked: false }) {
                    self.phase = Phase::Draining { marked: true };
                }
            }
            Ok(Err(ended)) if self.phase != Phase::Leaving => self.end(ended),
            Ok(Err(_)) => {} // it has left meanwhile
            Err(error) => {
                let first = self.beats.begins(&error);
                warn_first!(first, %error, "a heartbeat was not answered; more are sent");
                self.takeover.handle_lost();
                self.desk.act(|state| state.lease.handle_failed(now));
                if first {
                    // Of these it says to try again, to whoever asked for it.
                    let is_passing = matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Connection);
                    let error = if is_passing { error.without_notes() } else { error };
                    self.report(error.note("the worker tries again by itself"));
                }
            }
        }
    }

    /// The server says that the lock has ended.
    fn end(&mut self, ended: Ended) {
        let reason = match ended {
            Ended::Dead | Ended::Expired => CloseReason::LockExpired,
            Ended::Reset => CloseReason::ClusterReset,
        };
        tracing::warn!(?ended, "the server says that the lock has ended: the worker gives up its jobs");
        self.desk.close(reason);
    }

    fn report(&self, error: Error) {
        self.desk.act(|state| state.view.handle_problem(error));
    }
}

struct CloseOnDrop(Arc<Desk>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close(CloseReason::LockExpired);
        self.0.driver_ended();
    }
}

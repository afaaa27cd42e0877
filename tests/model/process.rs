//! A worker process: the program's `View` and `Lease`, what `worker/driver.rs` and `worker/desk.rs` do with them (by the
//! same names), the commands and frames that are under way, and a consumer that is checked.
//!
//! Nothing here decides anything that the core decides. Where a break is in the shell or in what the core is told, it is
//! here; the core itself is never changed.

use std::collections::VecDeque;
use std::time::Instant;

use crate::core::lease::{Fence, Lease, LeaseAction};
use crate::core::queue::Delivery;
use crate::core::view::{Command, View};
use crate::id::{JobId, Revision};
use crate::message::{CloseReason, Cursor, DeleteReason, Frame, Page};
use crate::scope::{Break, Scope};
use crate::server::{BeatReply, Ended, Number};
use crate::time::{AUDIT_GRACE, MARGIN, RELEASE_TIMEOUT, TTL};

/// What is wrong where a consumer sees what it must not see; by the property that it breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The events of a job are not in turn.
    Turn,
    /// An epoch is not larger than those before.
    Epoch,
    /// What its caller gave up on was carried out.
    Late,
}

#[derive(Clone, Debug)]
pub(crate) enum Ask {
    /// `INFO server`: which run of a server this is.
    RunId,
    Open {
        run: u8,
    },
    Reserve,
    Join,
    Beat {
        draining: bool,
    },
    Sync {
        request: u64,
        since: u64,
        cursor: Option<Cursor>,
    },
    Release(Vec<(JobId, Revision)>),
    Leave,
}

#[derive(Clone, Debug)]
pub(crate) enum Reply {
    RunId(u8),
    Opened,
    Reserved(Number),
    Joined(Result<u8, Ended>),
    Beat(Result<BeatReply, Ended>),
    Synced(Result<Page, Ended>),
    Released(Vec<bool>),
    /// How many jobs are left.
    Left(usize),
}

/// A command under way; with a reply, its answer.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) ask: Ask,
    pub(crate) sent: Instant,
    pub(crate) reply: Option<Reply>,
}

/// The subscription (`shell/link.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// Nothing comes, and it is known.
    Down,
    /// Nothing comes, and it is not known.
    Deaf,
    /// Subscribed again; the view has not been told yet.
    Attaching,
    Attached,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// Not started, or over in order.
    Absent,
    /// Reserves a number, then joins.
    Starting,
    Running,
    Crashed,
}

/// Whether the process does in time what is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    Timely,
    Paused,
    /// It was paused, and has not looked at the clock since.
    Late,
}

#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) life: Life,
    pub(crate) pace: Pace,
    pub(crate) number: Number,
    /// What it shows beside its number.
    pub(crate) token: u8,
    /// The run of the server that it knows of.
    pub(crate) run: u8,
    /// The run that has accepted its last heartbeat, or has not forgotten any: until then its lock may end before it
    /// knows.
    pub(crate) heard_run: u8,
    pub(crate) link: Link,
    /// Published and not received, the oldest first.
    pub(crate) frames: VecDeque<Frame>,
    pub(crate) requests: Vec<Request>,
    pub(crate) worker: Option<Worker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Serving,
    Draining { marked: bool },
    Leaving,
}

#[derive(Clone, Debug)]
pub(crate) struct Worker {
    pub(crate) view: View,
    pub(crate) lease: Lease,
    pub(crate) phase: Phase,
    /// The consumer wants it to leave.
    pub(crate) terminated: bool,
    pub(crate) release_queue: Vec<(JobId, Revision)>,
    /// The request of the newest sync that was asked for and has not failed.
    pub(crate) newest: Option<u64>,
    /// A sync failed: another is to be asked for.
    pub(crate) retry: bool,
    pub(crate) handles: Vec<Handle>,
    /// Pages that are kept back, where `ChainFromLastPage` breaks the rule.
    pub(crate) pages: Vec<(u64, Page)>,
}

/// A handle that the consumer has, the one that a `Deletion` carries included.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    pub(crate) job: JobId,
    pub(crate) grant: u64,
    pub(crate) epoch: u64,
    pub(crate) payload: u8,
    pub(crate) cancelled: Option<Cancelled>,
    /// Its `Delete` was polled.
    pub(crate) deleted: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Cancelled {
    /// From when on the handler counts as stopped.
    pub(crate) until: Instant,
    /// It was told as soon as a process that was paused could tell it.
    pub(crate) late: bool,
}

/// What the consumer and the check of its stream know of a job.
pub(crate) struct Seen<'a> {
    /// The largest epoch that anybody was handed.
    pub(crate) newest_epoch: &'a mut u64,
    pub(crate) fault: &'a mut Option<Fault>,
}

/// The jobs are called a, b, c.
pub(crate) fn index_of(job: &JobId) -> usize {
    usize::from(job.as_str().as_bytes()[0] - b'a')
}

pub(crate) fn version(payload: &[u8]) -> u8 {
    payload.first().map_or(0, |digit| digit - b'0')
}

impl Process {
    pub(crate) fn absent() -> Self {
        Self {
            life: Life::Absent,
            pace: Pace::Timely,
            number: 0,
            token: 0,
            run: 0,
            heard_run: 0,
            link: Link::Down,
            frames: VecDeque::new(),
            requests: Vec::new(),
            worker: None,
        }
    }

    /// `Worker::start` and `reserve`: look which server this is, open, reserve, subscribe, join.
    pub(crate) fn start(&mut self, now: Instant, token: u8) {
        *self = Self { life: Life::Starting, token, ..Self::absent() };
        self.send(now, Ask::RunId);
    }

    /// What is known of it, on one line.
    pub(crate) fn summary(&self, now: Instant) -> String {
        let Self { life, pace, number, link, frames, requests, worker, .. } = self;
        let frames: Vec<_> =
            frames.iter().map(|frame| format!("{}:{:?}", frame.revision, frame.body)).collect();
        let asks: Vec<_> = requests.iter().map(|request| (&request.ask, request.reply.is_some())).collect();
        let mut text = format!("{number} {life:?} {pace:?} {link:?} frames {frames:?} asks {asks:?}");
        if let Some(worker) = worker {
            let fence = worker.lease.fence_at().saturating_duration_since(now);
            text += &format!(" {:?} fence in {fence:?} handles", worker.phase);
            for handle in &worker.handles {
                text += &format!(
                    " {}@{} {:?} deleted: {}",
                    handle.job, handle.grant, handle.cancelled, handle.deleted
                );
            }
        }
        text
    }

    pub(crate) fn is_up(&self) -> bool {
        matches!(self.life, Life::Starting | Life::Running) && self.pace != Pace::Paused
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.worker.as_ref().is_some_and(|worker| worker.view.is_closed())
    }

    /// Whether what is published reaches it.
    pub(crate) fn hears(&self, number: Number) -> bool {
        self.number == number && matches!(self.link, Link::Attaching | Link::Attached)
    }

    fn send(&mut self, now: Instant, ask: Ask) {
        self.requests.push(Request { ask, sent: now, reply: None });
    }

    fn sends(&self, kind: fn(&Ask) -> bool) -> bool {
        self.requests.iter().any(|request| kind(&request.ask))
    }

    /// `Driver::step`: does all that is due.
    pub(crate) fn step(&mut self, now: Instant, scope: &Scope) {
        let Some(worker) = &mut self.worker else {
            self.pace = Pace::Timely;
            return;
        };
        if worker.view.is_closed() {
            return self.end();
        }
        let mut beats = Vec::new();
        // follow_wish
        if worker.terminated && worker.phase == Phase::Serving {
            worker.phase = Phase::Draining { marked: scope.broken == Some(Break::NoDrainMark) };
            worker.view.handle_drain(now, DeleteReason::Terminated);
            beats.push(());
        }
        let unseen = worker.handles.iter().any(|handle| handle.cancelled.is_some() && !handle.deleted);
        if scope.broken != Some(Break::TimeoutFromPoll) || !unseen {
            worker.view.handle_timeout(now);
        }
        loop {
            match worker.lease.poll(now) {
                LeaseAction::Beat => beats.push(()),
                LeaseAction::Wait(_) => break,
                LeaseAction::Fenced => {
                    worker.view.handle_close(CloseReason::LockExpired);
                    break;
                }
            }
        }
        if worker.retry {
            worker.retry = false;
            worker.view.handle_gap();
        }
        let marks = worker.phase != Phase::Serving && scope.broken != Some(Break::NoDrainMark);
        for () in beats {
            self.send(now, Ask::Beat { draining: marks });
        }
        self.settle(now, scope);
        if self.is_closed() {
            return self.end();
        }
        self.pace = Pace::Timely;
        self.release(now);
        self.leave(now);
    }

    /// The driver's task ends: what it has asked for is not waited for.
    fn end(&mut self) {
        self.pace = Pace::Timely;
        self.link = Link::Down;
        self.frames.clear();
        self.requests.clear();
    }

    /// `State::settle` and `Driver::carry_out_commands`.
    fn settle(&mut self, now: Instant, scope: &Scope) {
        let late = self.pace == Pace::Late;
        let Some(worker) = &mut self.worker else { return };
        let mut asks = Vec::new();
        while let Some(command) = worker.view.poll_command() {
            match command {
                Command::Sync { request, since, cursor } => {
                    worker.newest = Some(request);
                    asks.push(Ask::Sync { request, since: since.0, cursor });
                }
                Command::Resubscribe => self.link = Link::Attaching,
                Command::Release { job, grant } => {
                    let seen = |handle: &Handle| handle.job == job && handle.grant == grant.0;
                    let unseen = worker.phase == Phase::Serving && !worker.handles.iter().any(seen);
                    if scope.broken != Some(Break::UnseenIsNotReleased) || !unseen {
                        worker.release_queue.push((job, grant));
                    }
                }
                Command::Attend => asks.push(Ask::Beat { draining: worker.phase != Phase::Serving }),
                Command::Cancel { job, grant } => {
                    let closed = worker.view.is_closed();
                    for handle in &mut worker.handles {
                        if handle.job == job && handle.grant == grant.0 {
                            let until = now + if closed { MARGIN } else { RELEASE_TIMEOUT };
                            handle.cancelled = Some(Cancelled { until, late });
                        }
                    }
                }
            }
        }
        for ask in asks {
            self.send(now, ask);
        }
    }

    fn release(&mut self, now: Instant) {
        let releasing = self.sends(|ask| matches!(ask, Ask::Release(_)));
        let Some(worker) = &mut self.worker else { return };
        let held_back = worker.phase == Phase::Draining { marked: false };
        if worker.release_queue.is_empty() || releasing || held_back {
            return;
        }
        let jobs = std::mem::take(&mut worker.release_queue);
        self.send(now, Ask::Release(jobs));
    }

    fn leave(&mut self, now: Instant) {
        let releasing = self.sends(|ask| matches!(ask, Ask::Release(_)));
        let Some(worker) = &mut self.worker else { return };
        let drained = worker.phase == Phase::Draining { marked: true }
            && worker.release_queue.is_empty()
            && !releasing
            && worker.view.is_drained();
        if drained {
            worker.phase = Phase::Leaving;
            self.send(now, Ask::Leave);
        }
    }

    /// `Driver::handle_frame`.
    pub(crate) fn handle_frame(&mut self, now: Instant, scope: &Scope, frame: Frame) {
        if let Some(worker) = &mut self.worker {
            worker.view.handle_frame(now, frame);
        }
        self.settle(now, scope);
        // Of a burst, all is taken in before the clock is looked at.
        if self.pace == Pace::Timely {
            self.step(now, scope);
        }
    }

    /// `LinkEvent::Attached`.
    pub(crate) fn handle_attached(&mut self, now: Instant, scope: &Scope, run: u8) {
        self.link = Link::Attached;
        let other = self.run != run;
        self.run = run;
        if let Some(worker) = &mut self.worker {
            if other && scope.broken == Some(Break::LiftBeginsAnew) {
                worker.view = View::new(RELEASE_TIMEOUT, AUDIT_GRACE);
            }
            if !(other && scope.broken == Some(Break::LiftIsNotTold)) {
                worker.view.handle_gap();
            }
        }
        self.settle(now, scope);
        self.step(now, scope);
    }

    /// `Driver::handle_done` with an answer.
    pub(crate) fn handle_reply(&mut self, now: Instant, scope: &Scope, request: Request) {
        let Request { ask, sent, reply: Some(reply) } = request else { return };
        match (ask, reply) {
            (Ask::RunId, Reply::RunId(run)) => {
                self.run = run;
                return self.send(now, Ask::Open { run });
            }
            (Ask::Open { .. }, Reply::Opened) => return self.send(now, Ask::Reserve),
            (Ask::Reserve, Reply::Reserved(number)) => {
                // Subscribed, and that confirmed, before the join is sent.
                (self.number, self.link) = (number, Link::Attached);
                return self.send(now, Ask::Join);
            }
            (Ask::Join, Reply::Joined(Ok(run))) => {
                let sent = if scope.broken == Some(Break::LeaseFromJoinReply) { now } else { sent };
                self.life = Life::Running;
                self.heard_run = run;
                self.worker = Some(Worker::new(scope, sent));
            }
            (Ask::Join, Reply::Joined(Err(_))) => {
                *self = Self::absent();
                return;
            }
            (ask, reply) => {
                if let Reply::Beat(Ok(beat)) = &reply {
                    self.heard_run = beat.run;
                }
                let Some(worker) = &mut self.worker else { return };
                if let Some(repeat) = worker.handle_reply(now, scope, sent, ask, reply) {
                    self.send(now, repeat);
                }
            }
        }
        self.settle(now, scope);
        self.step(now, scope);
    }

    /// `Driver::handle_done` without an answer.
    pub(crate) fn handle_failure(&mut self, now: Instant, scope: &Scope, request: &Request) {
        let Some(worker) = &mut self.worker else {
            *self = Self::absent();
            return;
        };
        match &request.ask {
            Ask::Beat { .. } => worker.lease.handle_failed(now),
            Ask::Sync { request, .. } => {
                worker.view.handle_sync_failed(*request);
                if worker.newest == Some(*request) {
                    worker.newest = None;
                }
                worker.retry = true;
            }
            Ask::Release(jobs) => {
                for (job, grant) in jobs {
                    worker.view.handle_release_failed(job, *grant);
                }
            }
            Ask::Leave => worker.phase = Phase::Draining { marked: true },
            Ask::RunId | Ask::Open { .. } | Ask::Reserve | Ask::Join => {}
        }
        // What failed is tried again after a pause, in which anything may happen: not at once.
        let retry = std::mem::take(&mut worker.retry);
        self.settle(now, scope);
        self.step(now, scope);
        if let Some(worker) = &mut self.worker {
            worker.retry |= retry;
        }
    }

    /// `Desk::poll_event`, and the consumer looks at what it gets. The assignment that it is about, if it begins one.
    pub(crate) fn poll(
        &mut self,
        now: Instant,
        scope: &Scope,
        epochs: &mut [u64],
        fault: &mut Option<Fault>,
    ) -> Option<(JobId, u64)> {
        let worker = self.worker.as_mut()?;
        if !worker.view.is_closed() && worker.lease.is_over(now) {
            worker.view.handle_close(CloseReason::LockExpired);
            self.settle(now, scope);
        }
        let worker = self.worker.as_mut()?;
        let mut began = None;
        if let Some(delivery) = worker.view.poll_delivery() {
            let index = match &delivery {
                Delivery::Add { job, grant, .. } => {
                    began = Some((job.clone(), grant.0));
                    index_of(job)
                }
                Delivery::Update { job, .. } | Delivery::Delete { job, .. } => index_of(job),
                Delivery::Problem(_) | Delivery::Close(_) => 0,
            };
            let seen = Seen { newest_epoch: &mut epochs[index], fault };
            worker.take(now, scope, delivery, seen);
        }
        self.settle(now, scope);
        if self.is_closed() {
            // It notices that by itself, and the driver is woken.
            self.end();
        }
        self.retire();
        began
    }

    /// The consumer has seen the end and has dropped all: the process may begin anew.
    pub(crate) fn retire(&mut self) {
        if self.worker.as_ref().is_some_and(|worker| worker.view.is_finished() && worker.handles.is_empty()) {
            *self = Self::absent();
        }
    }

    /// The last handle to an assignment is dropped.
    pub(crate) fn drop_handle(&mut self, now: Instant, scope: &Scope, index: usize) {
        let Some(worker) = &mut self.worker else { return };
        let Handle { job, grant, .. } = worker.handles[index].clone();
        worker.view.handle_dropped(now, &job, Revision(grant));
        self.settle(now, scope);
        if let Some(worker) = &mut self.worker {
            worker.handles.remove(index);
        }
        if self.pace != Pace::Late {
            self.step(now, scope);
        }
        self.retire();
    }
}

impl Worker {
    fn new(scope: &Scope, sent: Instant) -> Self {
        let fence = if scope.lenient { Fence::Lenient } else { Fence::Strict };
        let mut view = View::new(RELEASE_TIMEOUT, AUDIT_GRACE);
        view.handle_gap();
        Self {
            view,
            lease: Lease::new(TTL, MARGIN, fence, sent),
            phase: Phase::Serving,
            terminated: false,
            release_queue: Vec::new(),
            newest: None,
            retry: false,
            handles: Vec::new(),
            pages: Vec::new(),
        }
    }

    /// What is to be asked once more at once.
    fn handle_reply(
        &mut self,
        now: Instant,
        scope: &Scope,
        sent: Instant,
        ask: Ask,
        reply: Reply,
    ) -> Option<Ask> {
        match (ask, reply) {
            (Ask::Beat { draining }, Reply::Beat(Ok(beat))) => {
                if scope.broken == Some(Break::FenceFromReply) {
                    let fence = if scope.lenient { Fence::Lenient } else { Fence::Strict };
                    self.lease = Lease::new(TTL, MARGIN, fence, now);
                }
                self.lease.handle_accepted(sent);
                if scope.broken != Some(Break::NoAudit) {
                    let lifted = if scope.broken == Some(Break::LiftIsNotTold) { 0 } else { beat.lifted };
                    self.view.handle_audit(now, Revision(beat.inbox), Revision(lifted));
                }
                if draining && self.phase == (Phase::Draining { marked: false }) {
                    self.phase = Phase::Draining { marked: true };
                }
            }
            (Ask::Beat { .. }, Reply::Beat(Err(_))) if self.phase == Phase::Leaving => {}
            (_, Reply::Beat(Err(_)) | Reply::Synced(Err(_))) => {
                self.view.handle_close(CloseReason::LockExpired);
            }
            (Ask::Sync { request, .. }, Reply::Synced(Ok(page))) => {
                return self.handle_page(now, scope, request, page);
            }
            (Ask::Release(jobs), Reply::Released(answers)) => {
                for ((job, grant), mine) in jobs.iter().zip(answers) {
                    self.view.handle_released(job, *grant, mine);
                }
            }
            (Ask::Leave, Reply::Left(0)) => self.view.handle_close(CloseReason::Terminated),
            (Ask::Leave, Reply::Left(_)) => return Some(Ask::Leave),
            _ => {}
        }
        None
    }

    fn handle_page(&mut self, now: Instant, scope: &Scope, request: u64, page: Page) -> Option<Ask> {
        match scope.broken {
            Some(Break::OvertakenSyncCounts) => {
                self.view.handle_page(now, self.newest.unwrap_or(request), page);
            }
            Some(Break::ChainFromLastPage) => {
                let (cursor, inbox, revision) = (page.next, page.inbox, page.revision);
                self.pages.push((request, page));
                if cursor.is_some() {
                    return Some(Ask::Sync { request, since: 0, cursor });
                }
                let (pages, others) =
                    std::mem::take(&mut self.pages).into_iter().partition(|(kept, _)| *kept == request);
                self.pages = others;
                for (request, page) in pages {
                    self.view.handle_page(now, request, Page { inbox, revision, ..page });
                }
            }
            _ => self.view.handle_page(now, request, page),
        }
        None
    }

    /// The consumer gets its next event.
    fn take(&mut self, now: Instant, scope: &Scope, delivery: Delivery, seen: Seen<'_>) {
        let mut wrong = |fault| *seen.fault = seen.fault.or(Some(fault));
        match delivery {
            Delivery::Add { job, grant, epoch, payload, .. } => {
                let others = self.handles.iter().filter(|handle| handle.job == job);
                if others.clone().any(|handle| !handle.deleted) {
                    wrong(Fault::Turn);
                }
                if !scope.lenient && epoch.0 <= *seen.newest_epoch {
                    wrong(Fault::Epoch);
                }
                *seen.newest_epoch = epoch.0.max(*seen.newest_epoch);
                self.handles.push(Handle {
                    job,
                    grant: grant.0,
                    epoch: epoch.0,
                    payload: version(&payload),
                    cancelled: None,
                    deleted: false,
                });
            }
            Delivery::Update { job, grant, epoch, payload, .. } => {
                let held =
                    |handle: &&mut Handle| handle.job == job && handle.grant == grant.0 && !handle.deleted;
                match self.handles.iter_mut().find(held) {
                    Some(handle) => {
                        if epoch.0 < handle.epoch {
                            wrong(Fault::Epoch);
                        }
                        *seen.newest_epoch = epoch.0.max(*seen.newest_epoch);
                        (handle.epoch, handle.payload) = (epoch.0, version(&payload));
                    }
                    None => wrong(Fault::Turn),
                }
            }
            Delivery::Delete { job, grant, .. } => {
                let held =
                    |handle: &&mut Handle| handle.job == job && handle.grant == grant.0 && !handle.deleted;
                match self.handles.iter_mut().find(held) {
                    Some(handle) if handle.cancelled.is_some() => handle.deleted = true,
                    _ => wrong(Fault::Turn),
                }
                if scope.broken == Some(Break::HandlesAreNotWaitedFor) {
                    self.view.handle_dropped(now, &job, grant);
                }
            }
            Delivery::Problem(_) => {}
            Delivery::Close(_) => {
                if self.handles.iter().any(|handle| !handle.deleted) {
                    wrong(Fault::Turn);
                }
            }
        }
    }
}

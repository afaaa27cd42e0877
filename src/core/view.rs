//! What one worker knows of its assignments, and what follows from it.
//!
//! ```text
//!  frames --------> chain intact? --yes--------------------------> slots --> queue --> poll_delivery
//!                        | no: a gap                                 ^  |
//!                        v                                           |  +--> poll_command
//!  handle_gap --> sync out: frames wait --> pages --> diff, replay --+         (Sync, Release, Cancel, ..)
//!  audit -------------^                                              ^
//!  drops, timeouts, answers to releases -----------------------------+
//! ```
//!
//! A job's slot goes `Waiting -> Active -> Deleting -> Returning -> gone`; a job whose `Add` was not polled goes
//! from `Waiting` to `Returning`. A gap, whatever brought it about, is one thing only: sync, diff, emit.
//!
//! Calling order: any `handle_*` at any time; after each, `poll_command` until `None`; `poll_delivery` when the
//! consumer asks; `handle_timeout` at [`poll_timeout`](View::poll_timeout). "Rule n" is that of PROTOCOL.md.

mod diff;
#[cfg(test)]
mod model_test;
#[cfg(test)]
mod rules_test;
mod slot;
mod snapshot;
#[cfg(test)]
mod walk;

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use self::slot::{Slot, Stage, Successor, Then};
use self::snapshot::{Coverage, Next, Sync, WaitingRoom};
use super::queue::{Delivery, Ending, Handover, Queue};
use crate::error::Error;
use crate::id::{Epoch, JobId, Revision};
use crate::message::{Body, CloseReason, Cursor, DeleteReason, Frame, Page};

/// What the driver is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Ask for a page of the snapshot. Only the newest request counts.
    Sync { request: u64, since: Revision, cursor: Option<Cursor> },
    /// Frames were lost although the connection is up: subscribe again, then `handle_gap`.
    Resubscribe,
    /// Tell the job's handlers to stop: its `Delete` is queued.
    Cancel { job: JobId, grant: Revision },
    /// Tell the server that the job is no longer held here.
    Release { job: JobId, grant: Revision },
    /// Send a heartbeat: its answer says what the server wants.
    Attend,
}

/// One worker's view of its assignments.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct View {
    release_timeout: Duration,
    audit_grace: Duration,
    phase: Phase,
    slots: HashMap<JobId, Slot>,
    queue: Queue,
    commands: VecDeque<Command>,
    /// The page to ask for; one at most, since only the newest request counts.
    wanted: Option<Command>,
    /// When `Deleting` slots time out: in order, since all wait equally long. An entry may be stale.
    deadlines: VecDeque<(Instant, JobId, Revision)>,
    /// Up to here nothing is missing.
    revision: Revision,
    /// After this nothing is known. Later than `revision` if later pages of a snapshot were read after its first.
    horizon: Revision,
    /// The last frame of the inbox that was taken in.
    last: Revision,
    /// An assignment's epoch is max(grant, lifted).
    lifted: Revision,
    /// What the last snapshot told of that frames will tell of again: those between its first page and its last.
    coverage: Option<Coverage>,
    sync: Option<Sync>,
    waiting: WaitingRoom,
    next_request: u64,
    /// A heartbeat told of a frame that has not come; it is lost if it has not come by then.
    audit: Option<(Revision, Instant)>,
    /// A heartbeat did not tell of this frame although it was taken in; if one after this still does not, the server has not
    /// sent it, or has forgotten it.
    ahead: Option<(Revision, Instant)>,
}

/// No two servers' clocks differ by this much (an hour, in microseconds): a revision that is so far ahead of the server's own
/// was forged.
const FAR_AHEAD: u64 = 3_600_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    /// Gives up what it has; what is still assigned to it is handed back unseen (rule 5).
    Draining,
    /// Over: what waits is delivered, and nothing else happens.
    Closed,
}

impl View {
    /// Knows nothing until the first `handle_gap` is answered.
    ///
    /// `release_timeout`: how long handles may be out after a `Delete` was queued. `audit_grace`: how much later than a
    /// heartbeat's answer a frame may come that the answer tells of.
    pub(crate) fn new(release_timeout: Duration, audit_grace: Duration) -> Self {
        Self {
            release_timeout,
            audit_grace,
            phase: Phase::Serving,
            slots: HashMap::new(),
            queue: Queue::default(),
            commands: VecDeque::new(),
            wanted: None,
            deadlines: VecDeque::new(),
            revision: Revision::default(),
            horizon: Revision::default(),
            last: Revision::default(),
            lifted: Revision::default(),
            coverage: None,
            sync: None,
            waiting: WaitingRoom::default(),
            next_request: 0,
            audit: None,
            ahead: None,
        }
    }

    /// A frame came on the inbox.
    pub(crate) fn handle_frame(&mut self, now: Instant, frame: Frame) {
        if self.is_closed() {
            return;
        }
        match frame.body {
            Body::Fenced => return self.handle_close(CloseReason::LockExpired),
            // What it hints at is in no snapshot: it is heeded at once, whatever else is missing. Its place in the chain
            // counts all the same.
            Body::Attend => self.commands.push_back(Command::Attend),
            Body::Add { .. } | Body::Update { .. } | Body::Delete { .. } => {}
        }
        if self.sync.is_some() {
            self.waiting.push(frame);
        } else if frame.revision <= self.revision {
            // A duplicate; or of a history that the server has forgotten in a failover, even where it fits.
        } else if frame.previous == self.last {
            self.take_in(now, frame);
        } else {
            self.handle_gap();
        }
    }

    /// Something may have been missed: a (re)connected or lagging subscription, a message that was not understood,
    /// a sync that failed a while ago.
    pub(crate) fn handle_gap(&mut self) {
        self.start_sync(self.revision);
    }

    /// A page of the snapshot that was asked for.
    pub(crate) fn handle_page(&mut self, now: Instant, request: u64, page: Page) {
        let Some(sync) = self.sync.as_mut().filter(|sync| sync.request == request) else { return };
        if page.lifted != self.lifted && sync.since > Revision::default() {
            // Epochs are new, and an `Update` carries the payload: every one is needed.
            return self.start_sync(Revision::default());
        }
        match sync.handle_page(page) {
            Next::Page(cursor) => {
                let since = sync.since;
                self.wanted = Some(Command::Sync { request, since, cursor: Some(cursor) });
            }
            Next::Finish => self.finish_sync(now),
            Next::Restart => self.handle_gap(),
        }
    }

    /// The request was not answered. Nothing goes on until a later `handle_gap` asks again.
    pub(crate) fn handle_sync_failed(&mut self, request: u64) {
        // The request counts no more: a late page of it must not be mixed with later ones.
        if let Some(sync) = self.sync.as_mut().filter(|sync| sync.request == request) {
            *sync = Sync::new(self.next_request, sync.since);
            self.next_request += 1;
        }
    }

    /// A heartbeat's answer: the revision of the last frame that was sent to the inbox, and the lift.
    pub(crate) fn handle_audit(&mut self, now: Instant, inbox: Revision, lifted: Revision) {
        if self.is_closed() || self.sync.is_some() {
            return;
        }
        if lifted != self.lifted {
            self.start_sync(Revision::default());
        } else if inbox > self.last {
            self.audit.get_or_insert((inbox, now + self.audit_grace));
        } else if self.ahead.is_some_and(|(last, sure)| inbox < last && sure <= now) {
            self.handle_gap();
        } else if inbox < self.last {
            // Mostly it was sent while the answer was on its way.
            self.ahead.get_or_insert((self.last, now + self.audit_grace));
        } else {
            self.ahead = None;
        }
    }

    /// The last handle to an assignment was dropped, which happens only after its `Delete` was polled.
    pub(crate) fn handle_dropped(&mut self, now: Instant, job: &JobId, grant: Revision) {
        if let Some(slot) = self.slots.get_mut(job)
            && slot.grant == grant
            && matches!(slot.stage, Stage::Deleting(_))
        {
            self.let_go(now, job);
        }
    }

    /// The server's answer to a release; not `mine`: it does not count the job as ours by that grant.
    pub(crate) fn handle_released(&mut self, job: &JobId, grant: Revision, mine: bool) {
        if let Some(slot) = self.slots.get(job)
            && slot.grant == grant
            && matches!(slot.stage, Stage::Returning)
        {
            self.slots.remove(job);
        }
        if let Some(sync) = &mut self.sync {
            sync.handle_released(job, grant);
        }
        if !mine {
            self.handle_gap(); // rule 9
        }
    }

    /// A release was not answered: it is commanded again.
    pub(crate) fn handle_release_failed(&mut self, job: &JobId, grant: Revision) {
        if !self.is_closed() {
            self.commands.push_back(Command::Release { job: job.clone(), grant });
        }
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.is_closed() {
            return;
        }
        while let Some((deadline, _, _)) = self.deadlines.front()
            && *deadline <= now
            && let Some((_, job, grant)) = self.deadlines.pop_front()
        {
            let deleting = self.slots.get(&job).filter(|slot| matches!(slot.stage, Stage::Deleting(_)));
            if deleting.is_some_and(|slot| slot.grant == grant) {
                self.queue.release_timed_out(&job, self.release_timeout);
                self.let_go(now, &job);
            }
        }
        if let Some((_, deadline)) = self.audit
            && deadline <= now
        {
            self.audit = None;
            self.commands.push_back(Command::Resubscribe);
            self.handle_gap();
        }
    }

    /// The worker leaves, or is drained: a `Delete` for each job, and nothing new.
    pub(crate) fn handle_drain(&mut self, now: Instant, reason: DeleteReason) {
        if self.phase != Phase::Serving {
            return;
        }
        self.phase = Phase::Draining;
        // In the order in which they were assigned, not in that of a hash.
        let mut jobs: Vec<(Revision, JobId)> =
            self.slots.iter().map(|(job, slot)| (slot.grant, job.clone())).collect();
        jobs.sort_unstable();
        for (_, job) in jobs {
            // What waits for its handles is handed back once they are gone, see `grant`.
            self.end(now, &job, reason);
        }
    }

    /// The worker is drained no more: it takes what it is given.
    pub(crate) fn handle_resume(&mut self) {
        if self.phase == Phase::Draining {
            self.phase = Phase::Serving;
        }
    }

    /// Something went wrong that the consumer should know of.
    pub(crate) fn handle_problem(&mut self, error: Error) {
        self.queue.problem(error);
    }

    /// The worker holds nothing any more: a `Delete` for each job that the consumer has, then the end.
    pub(crate) fn handle_close(&mut self, reason: CloseReason) {
        if self.is_closed() {
            return;
        }
        self.phase = Phase::Closed;
        let why = match reason {
            CloseReason::Terminated => DeleteReason::Terminated,
            CloseReason::Evicted => DeleteReason::Evicted,
            CloseReason::LockExpired => DeleteReason::LockExpired,
            CloseReason::ClusterReset => DeleteReason::ClusterReset,
        };
        let mut slots: Vec<(JobId, Slot)> = std::mem::take(&mut self.slots).into_iter().collect();
        slots.sort_unstable_by(|(a, one), (b, other)| (one.grant, a).cmp(&(other.grant, b)));
        for (job, slot) in slots {
            match slot.stage {
                Stage::Waiting => self.queue.cancel_add(&job),
                Stage::Active => {
                    self.queue.delete(&job, Ending { grant: slot.grant, epoch: slot.epoch, reason: why });
                    self.commands.push_back(Command::Cancel { job, grant: slot.grant });
                }
                Stage::Deleting(_) | Stage::Returning => {}
            }
        }
        self.commands.retain(|command| matches!(command, Command::Cancel { .. }));
        self.wanted = None;
        self.deadlines.clear();
        self.waiting = WaitingRoom::default();
        self.sync = None;
        self.audit = None;
        self.queue.close(reason);
    }

    pub(crate) fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front().or_else(|| self.wanted.take())
    }

    /// What the consumer gets next. After `Close`, `None` for ever.
    pub(crate) fn poll_delivery(&mut self) -> Option<Delivery> {
        let delivery = self.queue.pop()?;
        if let Delivery::Add { job, grant, .. } = &delivery
            && let Some(slot) = self.slots.get_mut(job)
            && slot.grant == *grant
        {
            slot.stage = Stage::Active;
        }
        Some(delivery)
    }

    /// When `handle_timeout` has something to do, at the earliest.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let release = self.deadlines.front().map(|(deadline, _, _)| *deadline);
        let audit = self.audit.map(|(_, deadline)| deadline);
        release.into_iter().chain(audit).min()
    }

    /// Whether `poll_delivery` has something.
    pub(crate) fn has_delivery(&self) -> bool {
        self.queue.is_ready()
    }

    /// How many jobs have a change that the consumer has not polled.
    #[cfg(test)]
    pub(crate) fn waiting_changes(&self) -> usize {
        self.queue.len()
    }

    /// Whether nothing is held or on its way back, in a worker that leaves or is drained.
    pub(crate) fn is_drained(&self) -> bool {
        self.phase == Phase::Draining && self.slots.is_empty()
    }

    /// Whether nobody here holds anything any more, in a worker that leaves or is drained. The server need not know yet.
    pub(crate) fn has_let_go(&self) -> bool {
        self.phase == Phase::Draining
            && self.slots.values().all(|slot| matches!(slot.stage, Stage::Returning))
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// Whether `Close` was polled.
    pub(crate) fn is_finished(&self) -> bool {
        self.queue.is_finished()
    }

    fn advance(&mut self, revision: Revision) {
        self.last = revision;
        self.revision = self.revision.max(revision);
        if self.audit.is_some_and(|(awaited, _)| awaited <= revision) {
            self.audit = None;
        }
    }

    fn start_sync(&mut self, since: Revision) {
        if self.is_closed() {
            return;
        }
        let request = self.next_request;
        self.next_request += 1;
        (self.audit, self.ahead) = (None, None);
        self.sync = Some(Sync::new(request, since));
        self.wanted = Some(Command::Sync { request, since, cursor: None });
        // They were sent before the request is: the answer has them, or they are no more of the server's history, and
        // would look like a gap after every sync, for ever.
        self.waiting = WaitingRoom::default();
    }

    fn apply(&mut self, now: Instant, frame: Frame) {
        match frame.body {
            Body::Add { job, born, payload } => {
                self.grant(now, job, frame.revision, born, payload, frame.revision);
            }
            Body::Update { job, grant, payload } => {
                self.refresh(&job, grant, frame.revision, payload, false);
            }
            Body::Delete { job, grant, reason } => match self.slots.get(&job) {
                Some(slot) if slot.grant == grant => self.end(now, &job, reason),
                Some(slot) if slot.newest() == grant => self.refuse_successor(&job),
                // Let go of already.
                _ => {}
            },
            // Heeded when they came.
            Body::Attend | Body::Fenced => {}
        }
    }

    /// The server gave us the job by this grant.
    fn grant(
        &mut self,
        now: Instant,
        job: JobId,
        grant: Revision,
        born: Revision,
        payload: Bytes,
        payload_at: Revision,
    ) {
        match self.slots.get_mut(&job) {
            Some(slot) if slot.newest() >= grant => return, // known, or over
            None => {}
            Some(slot) => match &mut slot.stage {
                Stage::Waiting => self.queue.cancel_add(&job),
                Stage::Active => {
                    self.end(now, &job, DeleteReason::Removed);
                    return self.grant(now, job, grant, born, payload, payload_at);
                }
                Stage::Deleting(then) if self.phase == Phase::Serving => {
                    *then = Then::Begin(Box::new(Successor { grant, born, payload, payload_at }));
                    return;
                }
                Stage::Deleting(_) | Stage::Returning => {}
            },
        }
        if self.phase == Phase::Draining {
            return self.hand_back(job, grant);
        }
        let epoch = Epoch(grant.max(self.lifted).get());
        self.queue.add(&job, Handover { grant, epoch, born, payload });
        self.slots.insert(job, Slot { grant, epoch, born, payload_at, stage: Stage::Waiting });
    }

    /// The assignment is over: the consumer is told, if it knows of it.
    fn end(&mut self, now: Instant, job: &JobId, reason: DeleteReason) {
        let Some(slot) = self.slots.get_mut(job) else { return };
        let grant = slot.grant;
        match slot.stage {
            // Rule 7: the two cancel out here, and the server has to know all the same.
            Stage::Waiting => {
                slot.stage = Stage::Returning;
                self.queue.cancel_add(job);
                self.commands.push_back(Command::Release { job: job.clone(), grant });
            }
            Stage::Active => {
                slot.stage = Stage::Deleting(Then::Release);
                self.queue.delete(job, Ending { grant, epoch: slot.epoch, reason });
                self.commands.push_back(Command::Cancel { job: job.clone(), grant });
                // Rule 9: from now, not from when the consumer polls.
                self.deadlines.push_back((now + self.release_timeout, job.clone(), grant));
                self.forget_stale_deadlines();
            }
            Stage::Deleting(_) | Stage::Returning => {}
        }
    }

    /// The assignment is over, and so is one that has not begun yet.
    fn give_up(&mut self, now: Instant, job: &JobId, reason: DeleteReason) {
        self.end(now, job, reason);
        self.refuse_successor(job);
    }

    /// No handle counts any more: the next assignment begins, or the server is told.
    fn let_go(&mut self, now: Instant, job: &JobId) {
        let Some(slot) = self.slots.get_mut(job) else { return };
        match std::mem::replace(&mut slot.stage, Stage::Returning) {
            Stage::Deleting(Then::Begin(next)) => {
                let Successor { grant, born, payload, payload_at } = *next;
                return self.grant(now, job.clone(), grant, born, payload, payload_at);
            }
            Stage::Deleting(Then::HandBack(grant)) => slot.grant = grant,
            Stage::Deleting(Then::Release) | Stage::Waiting | Stage::Active | Stage::Returning => {}
        }
        self.commands.push_back(Command::Release { job: job.clone(), grant: slot.grant });
    }

    /// Gives back what the consumer never sees: now, or when the handles to an older assignment are gone.
    fn hand_back(&mut self, job: JobId, grant: Revision) {
        if let Some(Slot { stage: Stage::Deleting(then), .. }) = self.slots.get_mut(&job) {
            *then = Then::HandBack(grant);
            return;
        }
        self.commands.push_back(Command::Release { job: job.clone(), grant });
        let (epoch, none) = (Epoch(grant.get()), Revision::default());
        let slot = Slot { grant, epoch, born: none, payload_at: none, stage: Stage::Returning };
        self.slots.insert(job, slot);
    }

    /// Releases mostly come long before their deadline: what they leave behind must not pile up.
    fn forget_stale_deadlines(&mut self) {
        if self.deadlines.len() > 2 * self.slots.len() + 64 {
            let slots = &self.slots;
            self.deadlines.retain(|(_, job, grant)| {
                slots
                    .get(job)
                    .is_some_and(|slot| slot.grant == *grant && matches!(slot.stage, Stage::Deleting(_)))
            });
        }
    }

    /// The assignment that waits for handles to go is over before it began.
    fn refuse_successor(&mut self, job: &JobId) {
        if let Some(Slot { stage: Stage::Deleting(then), .. }) = self.slots.get_mut(job)
            && let Then::Begin(next) = then
        {
            *then = Then::HandBack(next.grant);
        }
    }
}

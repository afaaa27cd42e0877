//! Which worker to reap, and when: at once by a master, later by each worker after the first.
//!
//! ```text
//!  beat, survey, reap: "its lock ends first, then"  --> Told  --(then + 2 ms + delay)--+
//!  keyspace event: "its lock ended"                 --> Ended --(now + delay)----------+--> poll: reap it
//!  control: "reaping" (somebody is at it)           --> Left  --(patience + delay)-----+        |
//!                                                         ^----------- until heard of ----------+
//!  control or our reap: "reaped", "left", "nothing"  --> forgotten
//!  our reap: "not before then" (it lives, or its jobs are kept for its name) --> Told
//! ```
//!
//! The delay is rank x step. It is none for what is told as over by the reap that finished another: who is at it goes on.
//!
//! Events and control messages are a cost to all who hear them, so only the first in rank do (`listens`). The others go by what they
//! are told, and so late that each of their heartbeats comes first, which tells whether anybody has done it.
//!
//! Events and control messages are hints, and anybody may forge one: all that a false one brings about is a reap
//! that the server answers with "its lock has not ended", or a stand-down that is over in bounded time. What the
//! server itself told (`handle_due`) is believed over what was heard.
//!
//! Calling order: [`poll`](Standby::poll) until `None` after each `handle_*` and at
//! [`poll_timeout`](Standby::poll_timeout). Of a reap's answer, what it tells of another worker goes in first
//! (`handle_due` or `handle_none_due`), then what it tells of the reaped one (`handle_gone` or `handle_alive`).
//! A reap without an answer need not be told: the worker comes again.

#[cfg(test)]
mod rules_test;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::id::WorkerId;

/// For how long a worker is left to whoever reaps it before the next one looks.
const PATIENCE: Duration = Duration::from_secs(1);

/// For how long at most, however often "reaping" is heard: who only says so does not keep others from it.
const LONGEST_STAND_DOWN: Duration = Duration::from_secs(10);

/// Deadlines are in whole milliseconds, and a key is over only after its last one.
const TIMER_SLACK: Duration = Duration::from_millis(2);

/// Below this rank, a worker begins to listen; from [`LAST_RANK`] on, it ceases to. Some are there always, as ranks change.
const LISTENERS: u64 = 16;

/// The largest rank that still waits a whole step longer than the one before it; it bounds how late a takeover can be.
const LAST_RANK: u64 = 50;

/// The largest rank that still waits longer than the one before it; after [`LAST_RANK`], a fifth of a step each.
const LAST_DEAF_RANK: u64 = 1_000;

/// A deadline that is told to be further away is looked at again by then.
const FURTHEST: Duration = Duration::from_secs(24 * 3600);

/// How many workers may be waited for at a time. What finds no room is told by a heartbeat in its turn.
const MOST_CANDIDATES: usize = 1_024;

/// How many of the workers that are gone are remembered, so that a late event about them is no work.
const MOST_GONE: usize = 256;

/// The workers that may have to be reaped, and when it is this participant's turn.
#[derive(Debug)]
pub(crate) struct Standby {
    step: Duration,
    heartbeat: Duration,
    /// Never reaped by itself: a worker's own lock is its lease's business.
    me: Option<WorkerId>,
    rank: u64,
    listens: bool,
    candidates: BTreeMap<WorkerId, Candidate>,
    /// Workers lately gone, the oldest first.
    gone: VecDeque<WorkerId>,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    phase: Phase,
    /// When the first in rank is to act.
    at: Instant,
    /// Since when it has been asked for, or left to others, without an end.
    since: Option<Instant>,
    /// It follows on one that we have reaped, and nobody before us has been at it.
    ours: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The server told when its lock ends. Void as soon as the server tells of another: then this one went on.
    Told,
    /// An event said that its lock ended.
    Ended,
    /// It was handed out by `poll`, or somebody else is at it.
    Left,
}

impl Standby {
    /// A participant that acts at once, until it is told its rank; `step` is what each rank waits for the one
    /// before it, `heartbeat` how often it is told what is due. `me`: its own number, if it is a worker.
    pub(crate) fn new(step: Duration, heartbeat: Duration, me: Option<WorkerId>) -> Self {
        Self {
            step,
            heartbeat,
            me,
            rank: 0,
            listens: true,
            candidates: BTreeMap::new(),
            gone: VecDeque::new(),
        }
    }

    /// How many act before this participant. Masters: 0.
    pub(crate) fn handle_rank(&mut self, rank: u64) {
        self.rank = rank;
        self.listens = rank < if self.listens { LAST_RANK } else { LISTENERS };
    }

    /// Whether it is to hear of locks that ended, and of those that are being reaped.
    pub(crate) fn listens(&self) -> bool {
        self.listens
    }

    /// The server told, at `now`, whose lock ends first, and when. It replaces what was told before.
    pub(crate) fn handle_due(&mut self, now: Instant, worker: WorkerId, at: Instant) {
        // Of one that is told again as over, the turn is not put off.
        let told = self.candidates.get(&worker).filter(|_| at <= now).copied();
        self.handle_none_due();
        if self.me == Some(worker) {
            return;
        }
        if self.candidates.len() >= MOST_CANDIDATES {
            self.forget_last();
        }
        let mut due = Candidate { phase: Phase::Told, at: at + TIMER_SLACK, since: None, ours: false };
        if let Some(told) = told {
            (due.at, due.ours) = (due.at.min(told.at), told.ours);
        }
        // Whoever is on the way already stays so: what was told may be older than the event.
        self.candidates.entry(worker).or_insert(due);
    }

    /// After `handle_due`: it came with the answer to a reap that was the last of its worker. If the next one's lock is over
    /// as well, whoever would act before us has not been at it, or will not mind.
    pub(crate) fn handle_finished(&mut self, now: Instant) {
        for candidate in self.candidates.values_mut() {
            candidate.ours |= candidate.phase == Phase::Told && candidate.at <= now + TIMER_SLACK;
        }
    }

    /// Whether the worker's jobs are moved to the last one, batch after batch; or one batch only, as it cannot be heard who else does
    /// the same.
    pub(crate) fn goes_on(&self, worker: WorkerId) -> bool {
        self.listens || self.candidates.get(&worker).is_some_and(|candidate| candidate.ours)
    }

    /// The server told that there is no other lock.
    pub(crate) fn handle_none_due(&mut self) {
        self.candidates.retain(|_, candidate| candidate.phase != Phase::Told);
    }

    /// A keyspace event: the worker's lock ended.
    pub(crate) fn handle_lock_ended(&mut self, now: Instant, worker: WorkerId) {
        match self.candidates.get_mut(&worker) {
            Some(candidate) if candidate.phase == Phase::Told => {
                candidate.phase = Phase::Ended;
                candidate.at = candidate.at.min(now);
            }
            Some(_) => {}
            None => {
                self.hear_of(worker, Candidate { phase: Phase::Ended, at: now, since: None, ours: false });
            }
        }
    }

    /// Somebody reaps the worker and has not finished: stand down, and look again later.
    pub(crate) fn handle_reaping(&mut self, now: Instant, worker: WorkerId) {
        match self.candidates.get_mut(&worker) {
            Some(candidate) => candidate.leave(now),
            None => {
                let (phase, at) = (Phase::Left, now + PATIENCE);
                self.hear_of(worker, Candidate { phase, at, since: Some(now), ours: false });
            }
        }
    }

    /// The worker was reaped or has left: forget it, and what is heard of it late.
    pub(crate) fn handle_gone(&mut self, worker: WorkerId) {
        self.candidates.remove(&worker);
        if !self.gone.contains(&worker) {
            if self.gone.len() == MOST_GONE {
                self.gone.pop_front();
            }
            self.gone.push_back(worker);
        }
    }

    /// Our reap was answered "not before `remaining` is over": its lock has not ended; or it is dead, and its jobs are
    /// kept for its name until then.
    pub(crate) fn handle_alive(&mut self, now: Instant, worker: WorkerId, remaining: Duration) {
        let Some(candidate) = self.candidates.get_mut(&worker) else { return };
        // The next reap comes when the deadline is over, and the deadline alone decides. So nobody is told "soon" again and
        // again, unless the server's clock was set back or stands still: it is asked ever more rarely then, not every 2 ms.
        let tried = candidate.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let pause = tried.min(PATIENCE);
        if remaining > PATIENCE {
            candidate.since = None;
        }
        (candidate.phase, candidate.ours) = (Phase::Told, false);
        candidate.at = now + remaining.clamp(pause, FURTHEST) + TIMER_SLACK;
    }

    /// The worker to reap now, if any. It is handed out once, and again only when patience ends and nothing was
    /// heard.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<WorkerId> {
        let delay = self.delay();
        let (worker, candidate) =
            self.candidates.iter_mut().min_by_key(|(_, candidate)| candidate.turn(delay))?;
        if now < candidate.turn(delay) {
            return None;
        }
        // The time that was spent on it so far still counts, so that what never ends is not new each time.
        candidate.since = candidate.since.filter(|since| now < *since + LONGEST_STAND_DOWN).or(Some(now));
        candidate.phase = Phase::Left;
        candidate.at = now + PATIENCE;
        Some(*worker)
    }

    /// When to poll again.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let delay = self.delay();
        self.candidates.values().map(|candidate| candidate.turn(delay)).min()
    }

    /// What this participant waits so that those before it may act first.
    fn delay(&self) -> Duration {
        let times = |rank: u64| u32::try_from(rank).unwrap_or(0);
        let delay = self.step * times(self.rank.min(LAST_RANK));
        if self.listens {
            return delay;
        }
        delay + self.heartbeat + self.step / 5 * times(self.rank.clamp(LAST_RANK, LAST_DEAF_RANK) - LAST_RANK)
    }

    /// Takes in a worker that something was heard of, if there is room and it is neither known to be gone nor us.
    fn hear_of(&mut self, worker: WorkerId, candidate: Candidate) {
        let is_news = self.me != Some(worker) && !self.gone.contains(&worker);
        if is_news && self.candidates.len() < MOST_CANDIDATES {
            self.candidates.insert(worker, candidate);
        }
    }

    /// Makes room for what the server tells: it is believed over what was heard, and tells of the rest in turn.
    fn forget_last(&mut self) {
        let last =
            self.candidates.iter().max_by_key(|(_, candidate)| candidate.at).map(|(worker, _)| *worker);
        if let Some(worker) = last {
            self.candidates.remove(&worker);
        }
    }
}

impl Candidate {
    /// When it is the turn of a participant that waits this long for those before it.
    fn turn(&self, delay: Duration) -> Instant {
        if self.ours { self.at } else { self.at + delay }
    }

    /// Somebody else is at it at `now`.
    fn leave(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        let until = (now + PATIENCE).min(since + LONGEST_STAND_DOWN);
        self.at = if self.phase == Phase::Left { self.at.max(until) } else { until };
        self.ours = false;
        self.phase = Phase::Left;
    }
}

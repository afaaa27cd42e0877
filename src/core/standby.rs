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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STEP: Duration = Duration::from_millis(20);
    const HEARTBEAT: Duration = Duration::from_millis(1_600);
    /// What the last in rank waits.
    const LONGEST_DELAY: Duration = Duration::from_millis(1_000 + 1_600 + 950 * 4);
    const A: WorkerId = WorkerId(1);
    const B: WorkerId = WorkerId(2);
    const ME: WorkerId = WorkerId(99_999);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn at_rank(rank: u64) -> (Standby, Instant) {
        let mut standby = Standby::new(STEP, HEARTBEAT, Some(ME));
        standby.handle_rank(rank);
        (standby, Instant::now())
    }

    #[test]
    fn a_master_reaps_at_the_event_and_a_worker_after_those_before_it() {
        for (rank, delay) in [(0, 0), (3, 60), (49, 980)] {
            let (mut standby, start) = at_rank(rank);
            standby.handle_lock_ended(start, A);
            assert_eq!(standby.poll_timeout(), Some(start + ms(delay)));
            if delay > 0 {
                assert_eq!(standby.poll(start + ms(delay - 1)), None);
            }
            assert_eq!(standby.poll(start + ms(delay)), Some(A));
        }
    }

    // "Notifications are hints": with every one lost, the timer reaps.
    #[test]
    fn without_any_event_the_timer_reaps_just_after_the_deadline() {
        let (mut standby, start) = at_rank(2);
        standby.handle_due(start, A, start + ms(500));
        assert_eq!(standby.poll(start + ms(541)), None);
        assert_eq!(standby.poll(start + ms(542)), Some(A));
    }

    #[test]
    fn what_is_told_replaces_what_was_told_before_but_not_what_was_heard() {
        let (mut standby, start) = at_rank(0);
        standby.handle_due(start, A, start);
        standby.handle_due(start, B, start + ms(900));
        assert_eq!(standby.poll(start + ms(10)), None, "A went on");
        standby.handle_lock_ended(start + ms(10), A);
        standby.handle_none_due();
        assert_eq!(standby.poll(start + ms(10)), Some(A));
        assert_eq!(standby.poll(start + ms(2_000)), Some(A), "nothing was heard of it");
        assert_eq!(standby.poll(start + ms(2_000)), None, "of B it was told that it goes on");
    }

    #[test]
    fn a_repeated_event_does_not_put_off_the_turn() {
        let (mut standby, start) = at_rank(5);
        standby.handle_due(start, A, start);
        standby.handle_lock_ended(start + ms(50), A);
        standby.handle_lock_ended(start + ms(90), A);
        assert_eq!(standby.poll(start + ms(102)), Some(A));
    }

    // No stampede: whoever comes later in rank hears that it is done, or being done.
    #[test]
    fn it_stands_down_when_reaping_or_reaped_is_heard() {
        let (mut standby, start) = at_rank(4);
        standby.handle_lock_ended(start, A);
        standby.handle_reaping(start + ms(5), A);
        assert_eq!(standby.poll(start + ms(1_084)), None);
        standby.handle_gone(A);
        assert_eq!(standby.poll_timeout(), None);
        standby.handle_lock_ended(start + ms(6), A);
        standby.handle_reaping(start + ms(6), A);
        assert_eq!(standby.poll_timeout(), None, "late news of a worker that is gone");
    }

    // A cluster of thousands is not to be told, each of them, of each that ends: only the first in rank hear it, and none begins and
    // ceases again and again at the border.
    #[test]
    fn only_the_first_in_rank_listen() {
        let (mut standby, _) = at_rank(49);
        assert!(standby.listens(), "as at first, when it knows no rank");
        for (rank, listens) in [(50, false), (16, false), (15, true), (49, true), (u64::MAX, false)] {
            standby.handle_rank(rank);
            assert_eq!(standby.listens(), listens, "at rank {rank}");
        }
    }

    // "Notifications are hints": who does not listen takes over as well, at most a heartbeat later.
    #[test]
    fn who_does_not_listen_acts_after_its_next_heartbeat_and_is_not_put_off_by_what_that_tells_again() {
        for (rank, delay) in [(50, 2_600), (60, 2_640), (1_000, 6_400), (u64::MAX, 6_400)] {
            let (mut standby, start) = at_rank(rank);
            standby.handle_due(start, A, start + ms(500));
            standby.handle_due(start + ms(1_600), A, start + ms(1_600));
            assert_eq!(standby.poll_timeout(), Some(start + ms(502 + delay)));
            standby.handle_due(start + ms(1_700), A, start + ms(3_000));
            assert_eq!(standby.poll_timeout(), Some(start + ms(3_002 + delay)), "it went on after all");
            standby.handle_due(start + ms(3_200), B, start + ms(3_200));
            assert_eq!(standby.poll_timeout(), Some(start + ms(3_202 + delay)), "somebody has reaped A");
        }
    }

    // Hundreds that died at once are not waited for one after the other, each for the whole delay.
    #[test]
    fn whoever_has_finished_one_goes_on_with_the_next_that_is_over_at_once() {
        for rank in [3, 49, 500] {
            let (mut standby, start) = at_rank(rank);
            standby.handle_due(start, A, start);
            let mut now = standby.poll_timeout().unwrap();
            assert_eq!(standby.poll(now), Some(A));
            assert_eq!(standby.goes_on(A), rank < 50);
            for worker in 2..9 {
                now += ms(3);
                standby.handle_due(now, WorkerId(worker), now);
                standby.handle_gone(WorkerId(worker - 1));
                standby.handle_finished(now);
                assert_eq!(standby.poll_timeout(), Some(now + TIMER_SLACK));
                now += TIMER_SLACK;
                assert_eq!(standby.poll(now), Some(WorkerId(worker)));
                assert!(standby.goes_on(WorkerId(worker)));
            }
            standby.handle_due(now, ME, now);
            standby.handle_due(now, WorkerId(20), now + ms(800));
            standby.handle_finished(now);
            assert!(standby.poll_timeout() > Some(now + ms(850)), "that one is not over");
        }
    }

    #[test]
    fn who_hears_that_another_is_at_it_does_not_go_on() {
        let (mut standby, start) = at_rank(10);
        standby.handle_due(start, A, start);
        standby.handle_finished(start);
        standby.handle_reaping(start, A);
        assert_eq!(standby.poll_timeout(), Some(start + PATIENCE + ms(200)));
    }

    // Rule 6: another finishes if the reaper dies.
    #[test]
    fn a_reaper_that_dies_half_way_is_followed_by_the_next_even_if_only_its_reaping_was_heard() {
        let (mut standby, start) = at_rank(1);
        standby.handle_reaping(start, A);
        assert_eq!(standby.poll(start + ms(1_019)), None);
        assert_eq!(standby.poll(start + ms(1_020)), Some(A));
    }

    #[test]
    fn who_only_says_that_it_is_reaping_keeps_nobody_from_it_for_ever() {
        let (mut standby, start) = at_rank(0);
        standby.handle_lock_ended(start, A);
        let handed_out = (0..200u64).map(|i| start + ms(i * 100)).find(|now| {
            standby.handle_reaping(*now, A);
            standby.poll(*now).is_some()
        });
        assert_eq!(handed_out, Some(start + LONGEST_STAND_DOWN));
    }

    #[test]
    fn a_reap_without_an_answer_is_asked_for_again_after_patience() {
        let (mut standby, start) = at_rank(0);
        standby.handle_lock_ended(start, A);
        for round in 0..30 {
            let now = start + PATIENCE * round;
            assert_eq!(standby.poll(now), Some(A));
            assert_eq!(standby.poll(now + PATIENCE - ms(1)), None);
        }
    }

    #[test]
    fn a_reap_that_came_too_early_is_repeated_when_the_lock_ends() {
        let (mut standby, start) = at_rank(0);
        standby.handle_due(start, A, start);
        assert_eq!(standby.poll(start + ms(2)), Some(A));
        standby.handle_due(start, B, start + ms(700));
        standby.handle_alive(start + ms(3), A, ms(40));
        assert_eq!(standby.poll_timeout(), Some(start + ms(45)));
        assert_eq!(standby.poll(start + ms(45)), Some(A));
    }

    // One forged event costs one reap, not one every TTL.
    #[test]
    fn a_live_worker_is_left_alone_once_the_server_tells_of_another() {
        let (mut standby, start) = at_rank(0);
        standby.handle_lock_ended(start, A);
        assert_eq!(standby.poll(start), Some(A));
        standby.handle_alive(start, A, ms(9_000));
        standby.handle_due(start, B, start + ms(60_000));
        assert_eq!(standby.poll_timeout(), Some(start + ms(60_002)));
    }

    // No participant reaps itself, whoever says that it should.
    #[test]
    fn what_is_told_or_heard_of_itself_is_nothing_to_a_worker_and_all_it_has_to_a_master() {
        let (mut worker, start) = at_rank(0);
        let mut master = Standby::new(STEP, HEARTBEAT, None);
        for standby in [&mut worker, &mut master] {
            standby.handle_due(start, ME, start);
        }
        assert_eq!((worker.poll_timeout(), master.poll_timeout()), (None, Some(start + TIMER_SLACK)));
        worker.handle_due(start, A, start + ms(5));
        worker.handle_due(start, ME, start);
        assert_eq!(worker.poll_timeout(), None, "the server told of another than A");
        worker.handle_lock_ended(start, ME);
        worker.handle_reaping(start, ME);
        worker.handle_alive(start, ME, ms(1));
        assert_eq!(worker.poll_timeout(), None);
        worker.handle_lock_ended(start, A);
        assert_eq!((worker.poll(start), worker.poll(start)), (Some(A), None));
    }

    // A dead worker's jobs are kept for its name: whoever asked comes again at the end of the grace, although "reaped" was
    // said of it at once; and if only the server tells of it then, that is enough.
    #[test]
    fn a_worker_whose_jobs_are_kept_is_reaped_when_its_grace_is_over() {
        for heard_reaped in [false, true] {
            let (mut standby, start) = at_rank(0);
            standby.handle_lock_ended(start, A);
            assert_eq!(standby.poll(start), Some(A));
            standby.handle_none_due();
            standby.handle_alive(start, A, ms(30_000));
            if heard_reaped {
                standby.handle_gone(A);
                standby.handle_lock_ended(start + ms(10), A);
                assert_eq!(standby.poll_timeout(), None, "late news of its lock");
                standby.handle_due(start, A, start + ms(30_000));
            }
            assert_eq!(standby.poll(start + ms(30_001)), None);
            assert_eq!(standby.poll(start + ms(30_002)), Some(A));
        }
    }

    // Not every 2 ms, were the server's clock to stand still.
    #[test]
    fn a_server_that_says_soon_again_and_again_is_asked_ever_more_rarely() {
        let (mut standby, start) = at_rank(0);
        standby.handle_lock_ended(start, A);
        let (mut now, mut reaps) = (start, 0);
        while now < start + ms(5_000) {
            assert_eq!(standby.poll(now), Some(A));
            reaps += 1;
            standby.handle_alive(now, A, ms(1));
            now = standby.poll_timeout().unwrap();
        }
        assert!(reaps < 20, "{reaps} reaps in 5 s");
    }

    #[test]
    fn an_absurd_answer_does_not_panic() {
        let (mut standby, start) = at_rank(0);
        standby.handle_lock_ended(start, A);
        assert_eq!(standby.poll(start), Some(A));
        standby.handle_alive(start, A, Duration::MAX);
        assert_eq!(standby.poll_timeout(), Some(start + FURTHEST + TIMER_SLACK));
    }

    // "Bounded memory", and the server's word finds room in spite of a flood.
    #[test]
    fn forged_events_do_not_grow_it_and_do_not_hide_what_the_server_tells() {
        let (mut standby, start) = at_rank(0);
        for worker in 10..5_000 {
            standby.handle_lock_ended(start + ms(worker), WorkerId(worker));
            standby.handle_reaping(start + ms(worker), WorkerId(worker + 10_000));
            standby.handle_gone(WorkerId(worker + 20_000));
        }
        for worker in 1..5 {
            standby.handle_due(start, WorkerId(worker), start);
            standby.handle_lock_ended(start, WorkerId(worker));
        }
        assert_eq!((standby.candidates.len(), standby.gone.len()), (MOST_CANDIDATES, MOST_GONE));
        let first: Vec<_> = (1..5).filter_map(|_| standby.poll(start + ms(2))).collect();
        assert_eq!(first, [1, 2, 3, 4].map(WorkerId));
    }

    /// What may be heard, by time passed and worker; never the end of worker A.
    #[derive(Clone, Debug)]
    enum Heard {
        Rank(u64),
        Due(u64),
        NoneDue,
        Finished,
        LockEnded(u64),
        Reaping(u64),
        Gone(u64),
    }

    fn heard() -> impl Strategy<Value = Heard> {
        let anyone = || 1..6u64;
        let others = || 2..6u64;
        prop_oneof![
            (0..100u64).prop_map(Heard::Rank),
            others().prop_map(Heard::Due),
            Just(Heard::NoneDue),
            Just(Heard::Finished),
            anyone().prop_map(Heard::LockEnded),
            anyone().prop_map(Heard::Reaping),
            others().prop_map(Heard::Gone),
        ]
    }

    proptest! {
        // Guards "nothing lost": a dead worker is handed out within bounded time whatever else is heard, and
        // nobody who is not gone meanwhile is handed out twice within patience.
        #[test]
        fn a_dead_worker_is_handed_out_within_bounded_time(
            noise in prop::collection::vec((0..400u64, heard()), 1..150)
        ) {
            let (mut standby, start) = at_rank(0);
            standby.handle_lock_ended(start, A);
            let bound = start + LONGEST_STAND_DOWN + LONGEST_DELAY;
            let mut last: BTreeMap<WorkerId, Instant> = BTreeMap::new();
            let polled = |standby: &mut Standby, last: &mut BTreeMap<_, _>, now| -> Result<(), TestCaseError> {
                while let Some(worker) = standby.poll(now) {
                    if let Some(before) = last.insert(worker, now) {
                        prop_assert!(now >= before + PATIENCE, "{worker} twice");
                    } else if worker == A {
                        prop_assert!(now <= bound, "late by {:?}", now - bound);
                    }
                }
                Ok(())
            };
            let mut now = start;
            for (pass, heard) in noise {
                let until = now + ms(pass);
                while let Some(turn) = standby.poll_timeout().filter(|turn| *turn <= until) {
                    now = now.max(turn);
                    polled(&mut standby, &mut last, now)?;
                }
                now = until;
                match heard {
                    Heard::Rank(rank) => standby.handle_rank(rank),
                    Heard::Due(worker) => standby.handle_due(now, WorkerId(worker), now + ms((worker - 2) * 50)),
                    Heard::NoneDue => standby.handle_none_due(),
                    Heard::Finished => standby.handle_finished(now),
                    Heard::LockEnded(worker) => standby.handle_lock_ended(now, WorkerId(worker)),
                    Heard::Reaping(worker) => standby.handle_reaping(now, WorkerId(worker)),
                    Heard::Gone(worker) => {
                        standby.handle_gone(WorkerId(worker));
                        last.remove(&WorkerId(worker));
                    }
                }
            }
            while let Some(turn) = standby.poll_timeout().filter(|turn| *turn <= bound) {
                now = now.max(turn);
                polled(&mut standby, &mut last, now)?;
            }
            prop_assert!(last.contains_key(&A));
        }
    }
}

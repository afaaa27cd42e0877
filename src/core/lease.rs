//! One worker's lock by the worker's own clock: when to send the next heartbeat, and when to stop.
//!
//! ```text
//!            sent                                            fence            lock ends
//!  join/beat  |---- ttl/3 ----|---- ttl/3 ----|-- .. ---------|--- margin ---|
//!             Wait            Beat            Beat            Fenced          (on the server, or later)
//! ```
//!
//! The server extends the lock when it *runs* a heartbeat, which is after the worker sent it. So the lock ends no
//! earlier than one TTL after the sending of the last heartbeat that was accepted; an answer's arrival says
//! nothing about it. A worker that is strict stops a margin before that; a lenient one goes on with its heartbeats until
//! the server refuses one, or until it leaves and has let go of everything: then there is nothing to go on for.
//!
//! Calling order: [`poll`](Lease::poll) whenever its `Wait` is over and after each `handle_*`; each `Beat` is
//! followed by at most one `handle_accepted` or `handle_failed`. `now` does not go back.

#[cfg(test)]
mod walk;

use std::time::{Duration, Instant};

/// When the worker's next heartbeat is due, and from when on its lock is not to be relied on.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    /// For how long after the sending of an accepted heartbeat the lock may be relied on: TTL - margin.
    lifetime: Duration,
    interval: Duration,
    /// Whether there is a fence at all.
    fence: Fence,
    /// The sending of the newest heartbeat (or the join) that was accepted.
    accepted: Instant,
    /// The sending of the newest heartbeat (or the join), answered or not.
    sent: Instant,
    phase: Phase,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// The lock may be relied on; the next heartbeat is due at this instant.
    Held(Instant),
    /// It was told that the fence has come. Final: what it held is already being given up.
    Fenced,
}

/// What a worker does when it cannot be sure of its lock any more: when no heartbeat was answered for nearly as long as
/// the lock lives.
///
/// A worker that hears nothing from the server cannot tell whether the server is away, for everybody, or whether it is
/// cut off alone, and others have its jobs already. One of the two has to be risked:
///
/// | | [`Strict`](Self::Strict) | [`Lenient`](Self::Lenient) |
/// |---|---|---|
/// | the server is away for longer than a lock lives | every worker gives up its jobs and closes; they wait for the next that joins | everybody goes on; when the server is back, heartbeats revive the locks, and no job moves |
/// | one worker is cut off from the server | it gives up its jobs before others get them | it goes on beside the worker that got its jobs, until it hears of it |
/// | a process is stopped, and goes on later | it gives everything up before its consumer gets anything else | it gives everything up when the server's answer comes |
/// | what makes two owners at once impossible | handlers that stop within the [fence margin](crate::ClusterBuilder::fence_margin) | nothing; only the [epoch](crate::Epoch) tells who is right |
///
/// **Take `Strict`**, the default, where two at once do harm and cannot be told apart afterwards: a mailbox whose sessions
/// are counted, an order book, a device. Make [`lock_ttl`](crate::ClusterBuilder::lock_ttl) longer than the server is
/// ever away for a failover or a restart, and nothing stops for that.
///
/// **Take `Lenient`** where a pause is worse than two at once: reading sensors, watching prices, whatever
/// is done twice without harm; or where everything that a job writes goes where its epoch is checked.
///
/// A lenient worker that is [terminated](crate::Worker::terminate) or dropped leaves without the server where that is away:
/// as soon as it holds nothing and its lock is not to be relied on, by its own clock, it closes with
/// [`LockExpired`](crate::CloseReason::LockExpired). That is at the latest one [`lock_ttl`](crate::ClusterBuilder::lock_ttl) or one
/// [`release_timeout`](crate::ClusterBuilder::release_timeout) after the call, whichever is longer.
///
/// It is each worker's own choice ([`WorkerOptions::fence`](crate::WorkerOptions::fence)). Whoever takes over dead workers'
/// jobs waits for a heartbeat's time after the server was away, so that lenient workers come first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fence {
    /// It gives everything up, by its own clock, before its lock can end.
    #[default]
    Strict,
    /// It goes on until the server says that its jobs were given to others; if they were not, its next heartbeat
    /// revives the lock.
    Lenient,
}

/// What a worker does next about its lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseAction {
    /// Send a heartbeat, now. It counts as sent at the `now` of the poll that said so.
    Beat,
    /// Nothing to do before this instant; it is never after the fence, if there is one.
    Wait(Instant),
    /// Stop: the lock may end within the margin. Every later poll says the same.
    Fenced,
}

impl Lease {
    /// The lease that an accepted join begins; `sent` is the instant at which the join was *sent*.
    ///
    /// Where the answer took so long that the fence has passed, the first poll says so, before any job is taken.
    pub(crate) fn new(ttl: Duration, margin: Duration, fence: Fence, sent: Instant) -> Self {
        let interval = Self::interval(ttl);
        let lifetime = ttl.saturating_sub(margin);
        Self { lifetime, interval, fence, accepted: sent, sent, phase: Phase::Held(later(sent, interval)) }
    }

    /// How far apart heartbeats are: two may fail before the lock is in danger.
    pub(crate) fn interval(ttl: Duration) -> Duration {
        ttl / 3
    }

    /// The heartbeat that was sent at `sent` was accepted. An older one than the newest accepted changes nothing.
    pub(crate) fn handle_accepted(&mut self, sent: Instant) {
        // No heartbeat was sent after the newest one: a caller whose clock was read a moment after the poll gains
        // nothing by it.
        self.accepted = self.accepted.max(sent.min(self.sent));
    }

    /// A heartbeat failed, or had no answer in time: the next one is due soon, but never at once.
    pub(crate) fn handle_failed(&mut self, now: Instant) {
        if let Phase::Held(next) = &mut self.phase {
            *next = later(now, self.interval / 4);
        }
    }

    /// The worker leaves, gets no answer, and holds nothing any more: a lenient one, too, ends where a strict one does.
    /// Final, as it takes nothing new.
    pub(crate) fn handle_let_go(&mut self) {
        self.fence = Fence::Strict;
    }

    /// What to do at `now`.
    pub(crate) fn poll(&mut self, now: Instant) -> LeaseAction {
        let Phase::Held(next) = self.phase else { return LeaseAction::Fenced };
        if self.is_over(now) {
            self.phase = Phase::Fenced;
            LeaseAction::Fenced
        } else if now >= next {
            self.sent = now;
            self.phase = Phase::Held(later(now, self.interval));
            LeaseAction::Beat
        } else {
            LeaseAction::Wait(match self.fence {
                Fence::Strict => next.min(self.fence_at()),
                Fence::Lenient => next,
            })
        }
    }

    /// Whether the worker must have stopped by now.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.fence == Fence::Strict && now >= self.fence_at()
    }

    /// From when on the lock is not to be relied on, as far as is known now.
    pub(crate) fn fence_at(&self) -> Instant {
        later(self.accepted, self.lifetime)
    }
}

/// `instant + by`. What no clock can show is taken as no time at all: that errs towards stopping too early.
fn later(instant: Instant, by: Duration) -> Instant {
    instant.checked_add(by).unwrap_or(instant)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TTL: Duration = Duration::from_millis(12_000);
    const MARGIN: Duration = Duration::from_millis(2_000);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn joined() -> (Lease, Instant) {
        let start = Instant::now();
        (Lease::new(TTL, MARGIN, Fence::Strict, start), start)
    }

    #[test]
    fn a_heartbeat_is_due_every_third_of_the_ttl() {
        let (mut lease, start) = joined();
        assert_eq!(lease.poll(start), LeaseAction::Wait(start + ms(4_000)));
        assert_eq!(lease.poll(start + ms(4_000)), LeaseAction::Beat);
        assert_eq!(
            lease.poll(start + ms(4_000)),
            LeaseAction::Wait(start + ms(8_000)),
            "one Beat for one due"
        );
        lease.handle_accepted(start + ms(4_000));
        assert_eq!(lease.poll(start + ms(8_000)), LeaseAction::Beat);
    }

    // Rule 4: the lease starts when join or beat is sent, not when it is answered.
    #[test]
    fn a_join_that_was_answered_after_the_fence_is_fenced_at_the_first_poll() {
        let (mut lease, start) = joined();
        assert_eq!(lease.poll(start + ms(10_000)), LeaseAction::Fenced);
    }

    #[test]
    fn the_fence_is_measured_from_the_sending_of_the_accepted_heartbeat() {
        let (mut lease, start) = joined();
        assert_eq!(lease.fence_at(), start + ms(10_000));
        assert_eq!(lease.poll(start + ms(5_000)), LeaseAction::Beat);
        // The answer comes at 7,900: no matter.
        lease.handle_accepted(start + ms(5_000));
        assert_eq!(lease.fence_at(), start + ms(15_000));
    }

    #[test]
    fn a_caller_that_names_a_later_instant_than_the_sending_gains_nothing() {
        let (mut lease, start) = joined();
        assert_eq!(lease.poll(start + ms(5_000)), LeaseAction::Beat);
        lease.handle_accepted(start + ms(6_000));
        assert_eq!(lease.fence_at(), start + ms(15_000));
    }

    #[test]
    fn an_older_heartbeat_accepted_late_does_not_move_the_fence_back() {
        let (mut lease, start) = joined();
        assert_eq!(lease.poll(start + ms(4_000)), LeaseAction::Beat);
        assert_eq!(lease.poll(start + ms(8_000)), LeaseAction::Beat);
        lease.handle_accepted(start + ms(8_000));
        lease.handle_accepted(start + ms(4_000));
        assert_eq!(lease.fence_at(), start + ms(18_000));
    }

    #[test]
    fn a_failed_heartbeat_is_followed_by_another_soon_but_not_at_once() {
        let (mut lease, start) = joined();
        assert_eq!(lease.poll(start + ms(4_000)), LeaseAction::Beat);
        lease.handle_failed(start + ms(4_010));
        assert_eq!(lease.poll(start + ms(4_010)), LeaseAction::Wait(start + ms(5_010)));
        assert_eq!(lease.poll(start + ms(5_010)), LeaseAction::Beat);
    }

    #[test]
    fn a_wait_never_goes_past_the_fence() {
        let (mut lease, start) = joined();
        assert_eq!(lease.poll(start + ms(9_000)), LeaseAction::Beat);
        assert_eq!(lease.poll(start + ms(9_001)), LeaseAction::Wait(start + ms(10_000)));
    }

    // A paused process wakes up after its fence: it stops, whatever else is due or arrives.
    #[test]
    fn once_fenced_it_stays_fenced() {
        let (mut lease, start) = joined();
        assert_eq!(lease.poll(start + ms(4_000)), LeaseAction::Beat);
        assert_eq!(lease.poll(start + ms(60_000)), LeaseAction::Fenced);
        lease.handle_accepted(start + ms(4_000));
        lease.handle_failed(start + ms(60_000));
        assert_eq!(lease.poll(start + ms(60_000)), LeaseAction::Fenced);
    }

    #[test]
    fn a_lenient_lease_has_no_fence_and_goes_on_with_its_heartbeats() {
        let start = Instant::now();
        let mut lease = Lease::new(TTL, MARGIN, Fence::Lenient, start);
        for minute in 1..10 {
            let now = start + ms(60_000 * minute);
            assert_eq!(lease.poll(now), LeaseAction::Beat);
            lease.handle_failed(now);
            assert_eq!(lease.poll(now), LeaseAction::Wait(now + ms(1_000)));
            assert!(!lease.is_over(now));
        }
    }

    // Guards: nothing waits without bound. Whoever leaves a server that is away, and holds nothing, has nothing to wait for.
    #[test]
    fn a_lenient_lease_that_has_let_go_ends_where_a_strict_one_would() {
        let start = Instant::now();
        let mut lease = Lease::new(TTL, MARGIN, Fence::Lenient, start);
        assert_eq!(lease.poll(start + ms(9_000)), LeaseAction::Beat);
        lease.handle_let_go();
        assert_eq!(
            lease.poll(start + ms(9_001)),
            LeaseAction::Wait(start + ms(10_000)),
            "it is woken for it"
        );
        assert!(!lease.is_over(start + ms(9_999)) && lease.is_over(start + ms(10_000)));
        assert_eq!(lease.poll(start + ms(10_000)), LeaseAction::Fenced);

        // One that is cut off for long already goes at once; one that is answered after all has time to say that it goes.
        let mut lease = Lease::new(TTL, MARGIN, Fence::Lenient, start);
        assert_eq!(lease.poll(start + ms(60_000)), LeaseAction::Beat);
        let mut answered = lease.clone();
        lease.handle_let_go();
        assert_eq!(lease.poll(start + ms(60_001)), LeaseAction::Fenced);
        answered.handle_let_go();
        answered.handle_accepted(start + ms(60_000));
        assert_eq!(answered.poll(start + ms(60_001)), LeaseAction::Wait(start + ms(64_000)));
    }

    // It is woken for its heartbeats, and for no fence: neither one that is near nor one that is over.
    #[test]
    fn a_lenient_lease_waits_past_where_a_strict_one_would_stop() {
        let start = Instant::now();
        let mut lease = Lease::new(TTL, MARGIN, Fence::Lenient, start);
        assert_eq!(lease.poll(start + ms(9_000)), LeaseAction::Beat);
        assert_eq!(lease.poll(start + ms(9_001)), LeaseAction::Wait(start + ms(13_000)));
        assert_eq!(lease.poll(start + ms(10_001)), LeaseAction::Wait(start + ms(13_000)));
        lease.handle_accepted(start + ms(9_000));
        assert_eq!(
            lease.fence_at(),
            start + ms(19_000),
            "it is known all the same how far the lock may be relied on"
        );
    }

    #[test]
    fn settings_that_no_clock_can_show_fence_at_once_instead_of_panicking() {
        let start = Instant::now();
        assert_eq!(Lease::new(Duration::MAX, MARGIN, Fence::Strict, start).poll(start), LeaseAction::Fenced);
        assert_eq!(Lease::new(MARGIN, TTL, Fence::Strict, start).poll(start), LeaseAction::Fenced);
    }

    /// What may happen to a lease next.
    #[derive(Clone, Debug)]
    enum Step {
        Pass(u64),
        Poll,
        Sleep,
        /// The heartbeat before the last `.0` ones is answered.
        Accept(usize),
        Fail,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..3_000u64).prop_map(Step::Pass),
            Just(Step::Poll),
            Just(Step::Sleep),
            (0..3usize).prop_map(Step::Accept),
            Just(Step::Fail),
        ]
    }

    proptest! {
        // Guards "one owner": whatever is lost, late or repeated, nothing is done on a lock past its fence, and
        // the fence is exactly the newest accepted sending + TTL - margin. A lenient lease goes on, at the same pace.
        #[test]
        fn nothing_is_done_past_the_fence_and_heartbeats_never_come_in_a_storm(
            lenient in any::<bool>(),
            steps in prop::collection::vec(step(), 1..200)
        ) {
            let start = Instant::now();
            let fence = if lenient { Fence::Lenient } else { Fence::Strict };
            let mut lease = Lease::new(TTL, MARGIN, fence, start);
            let (mut now, mut beats, mut accepted, mut fenced) = (start, vec![start], start, false);
            for step in steps {
                match step {
                    Step::Pass(time) => now += ms(time),
                    Step::Fail => lease.handle_failed(now),
                    Step::Accept(back) => if let Some(sent) = beats.iter().rev().nth(back) {
                        lease.handle_accepted(*sent);
                        accepted = accepted.max(*sent);
                    },
                    Step::Poll | Step::Sleep => match lease.poll(now) {
                        LeaseAction::Beat => {
                            prop_assert!(!fenced && (lenient || now < lease.fence_at()));
                            prop_assert!(now.duration_since(beats[beats.len() - 1]) >= TTL / 12);
                            beats.push(now);
                        }
                        LeaseAction::Wait(until) => {
                            prop_assert!(!fenced && now < until && until <= now + TTL / 3);
                            prop_assert!(lenient || until <= lease.fence_at());
                            if matches!(step, Step::Sleep) {
                                now = until;
                            }
                        }
                        LeaseAction::Fenced => {
                            prop_assert!(!lenient && (fenced || now >= lease.fence_at()));
                            fenced = true;
                        }
                    },
                }
                prop_assert_eq!(lease.fence_at(), accepted + TTL - MARGIN);
            }
        }
    }
}

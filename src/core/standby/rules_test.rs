//! One test for each rule of the standby, by hand; and that, whatever it hears, somebody acts in bounded time.

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

//! open, reserve, join, beat, leave.

use std::time::Duration;

use super::bench::{BEATEN, Bench, DEAD, JOINED, RESERVED, RESET, id, reaped, until};
use crate::id::{Revision, WorkerId};
use crate::redis::script;
use crate::redis::store::{AddCode, DeleteCode, Due, Ended, Member, Reap};
use crate::{ErrorKind, JobState};

const NOTHING: [&str; 0] = [];

#[tokio::test]
async fn open_makes_the_cluster_once() {
    let mut bench = Bench::new().await;
    bench.command(&["FLUSHALL"]);
    bench.look();
    let opened = bench.store.open("run-1").await.unwrap();
    assert_ne!(opened.incarnation, bench.incarnation);
    bench.incarnation = opened.incarnation.clone();
    assert_eq!(
        bench.look(),
        [
            "meta incarnation: ME",
            "meta last_worker: 0",
            "meta lifted: 0",
            "meta partitions: 1",
            "meta protocol: 1",
            "meta run_id: run-1",
        ]
    );
    assert_eq!(bench.store.open("run-1").await.unwrap().incarnation, opened.incarnation);
    assert_eq!(bench.look(), NOTHING);
}

// Of the bench: one random token in some 800 has as many digits in a row as a revision.
#[tokio::test]
async fn a_token_that_looks_like_a_revision_is_none() {
    let mut bench = Bench::new().await;
    let incarnation = bench.incarnation.clone();
    let args = [incarnation.as_bytes(), b"25000", b"info", b"9", b"019ab1795513190123765abcdefabcde"];
    bench.run(&script::RESERVE, WorkerId(1), &args).await.unwrap();
    assert_eq!(bench.look(), ["deadlines 1: 30s", "meta last_worker: 1", "workers 1: info"]);
    bench.add("a", "x").await;
    assert_eq!(bench.look(), ["jobs a: x", "owner a: p 0 0 r1", "pending a: r1", "rev: r1"]);
}

// Rule 10: on another run of the server, whatever was granted before counts as granted anew, and later.
#[tokio::test]
async fn open_lifts_once_for_each_run_of_the_server() {
    let (mut bench, members) = Bench::with_workers(1).await;
    let (_, grant) = bench.add("a", "one").await;
    bench.look();
    let opened = bench.store.open("run-2").await.unwrap();
    assert_eq!(opened.incarnation, bench.incarnation);
    assert_eq!(bench.look(), ["meta last_worker: 1025", "meta lifted: r3", "meta run_id: run-2", "rev: r3"]);
    bench.store.open("run-2").await.unwrap();
    assert_eq!(bench.look(), NOTHING);

    // It is heard of wherever a worker asks.
    let beat = bench.beat(&members[0], BEATEN, false).await.unwrap().unwrap();
    let page = bench.store.sync(&members[0], grant, None).await.unwrap().unwrap();
    assert_eq!((beat.lifted, beat.inbox), (page.lifted, grant));
    assert!(page.lifted > grant);
    assert_eq!(page.rows[0].grant, grant, "the grant stays the assignment's name");
}

// A revision does not go back, even if the server that takes over has a clock or a counter that is behind.
#[tokio::test]
async fn a_lift_goes_past_a_counter_that_is_ahead_of_the_clock() {
    let mut bench = Bench::new().await;
    bench.command(&["SET", "@rev", "4000000000000000"]);
    bench.store.open("run-2").await.unwrap();
    assert_eq!(bench.command(&["HGET", "@meta", "lifted"]).text(), "4000000000000001");
    assert_eq!(bench.command(&["GET", "@rev"]).text(), "4000000000000001");
    let (_, born) = bench.add("a", "one").await;
    assert_eq!(born, Revision(4_000_000_000_000_002));
}

#[tokio::test]
async fn open_refuses_a_protocol_that_it_does_not_speak_and_changes_nothing() {
    let mut bench = Bench::new().await;
    bench.command(&["HSET", "@meta", "protocol", "2"]);
    bench.look();
    let error = bench.store.open("run-2").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    assert_eq!(bench.look(), NOTHING);
}

#[tokio::test]
async fn a_number_is_reserved_then_joined_and_joining_twice_is_joining_once() {
    let mut bench = Bench::new().await;
    let member = bench.reserved().await;
    assert_eq!(bench.look(), ["deadlines 1: 30s", "meta last_worker: 1", "workers 1: \\x80 info"]);
    // It is given nothing yet.
    let (code, born) = bench.add("early", "x").await;
    assert_eq!((code, bench.delete("early", Some(born)).await), (AddCode::Pending, DeleteCode::Gone));
    bench.look();
    let joined = bench.join(&member, JOINED).await.unwrap().unwrap();
    assert_eq!((joined.pending, joined.due.len()), (0, 0));
    assert_eq!(
        bench.look(),
        [
            "deadlines 1: 50s",
            "inbox 1: r2",
            "load 1: 0",
            "lock:1: ME 50s",
            "rev: r2",
            "terms 1: 1 0 0",
            "terms 1:ttl: 45000",
            "terms changed: T",
        ]
    );
    let joined = bench.join(&member, BEATEN).await.unwrap();
    assert!(joined.is_ok());
    assert_eq!(bench.look(), ["deadlines 1: 70s", "lock:1: ME 70s"], "it renews the lock and nothing more");
}

// A late copy of a join does not undo what came after the first: the chain, the jobs, the drain.
#[tokio::test]
async fn a_late_second_join_neither_resets_the_chain_nor_ends_a_drain() {
    let (mut bench, members) = Bench::with_workers(1).await;
    bench.add("a", "one").await;
    bench.beat(&members[0], BEATEN, true).await.unwrap().unwrap();
    bench.look();
    bench.join(&members[0], BEATEN).await.unwrap().unwrap();
    assert_eq!(bench.look(), NOTHING);
    assert_eq!(bench.add("b", "two").await.0, AddCode::Pending);
}

#[tokio::test]
async fn numbers_are_never_given_twice() {
    let (mut bench, members) = Bench::with_workers(2).await;
    bench.store.leave(&members[1]).await.unwrap().unwrap();
    assert_eq!(bench.reserved().await.worker, WorkerId(3));
    bench.end_lock(members[0].worker);
    bench.reap(members[0].worker).await.unwrap();
    assert_eq!(bench.reserved().await.worker, WorkerId(4));
    assert_eq!(bench.reserved().await.worker, WorkerId(5), "run twice it wastes a number");
}

// Two processes never share a number, even where a failover forgot that one was given out.
#[tokio::test]
async fn a_number_whose_reservation_was_lost_in_a_failover_is_not_given_out_again() {
    let mut bench = Bench::new().await;
    let lost = bench.reserved().await;
    // The replica that takes over never heard of it.
    bench.command(&["HSET", "@meta", "last_worker", "0"]);
    bench.command(&["DEL", "@workers", "@deadlines"]);
    bench.store.open("run-2").await.unwrap();
    assert_ne!(bench.reserved().await.worker, lost.worker);
    assert_eq!(bench.join(&lost, JOINED).await.unwrap().unwrap_err(), DEAD);
}

// Promise: one owner. A cluster that lost its meta key counts from 1 again, beside workers that still have numbers.
#[tokio::test]
async fn reserve_passes_over_a_number_that_is_still_somebodys() {
    let (mut bench, members) = Bench::with_workers(2).await;
    bench.command(&["DEL", "@meta"]);
    let incarnation = bench.store.open("run-1").await.unwrap().incarnation;
    let member = bench.reserve(&incarnation, RESERVED, Vec::new()).await.unwrap();
    assert_eq!(member.unwrap().worker, WorkerId(3));
    assert_eq!(bench.beat(&members[0], BEATEN, false).await.unwrap().unwrap_err(), Ended::Reset);
}

#[tokio::test]
async fn join_tells_what_waits_and_whom_to_reap() {
    let (mut bench, members) = Bench::with_workers(2).await;
    for member in &members {
        bench.beat(member, JOINED, true).await.unwrap().unwrap();
    }
    bench.add("a", "one").await;
    bench.end_lock(members[1].worker);
    let member = bench.reserved().await;
    let joined = bench.join(&member, JOINED).await.unwrap().unwrap();
    assert_eq!((joined.pending, joined.due), (1, vec![members[1].worker]));
    for _ in 0..30 {
        let lapsed = bench.reserved().await;
        bench.end_lock(lapsed.worker);
    }
    assert_eq!(bench.join(&member, JOINED).await.unwrap().unwrap().due.len(), 16, "so many at a time");
}

#[tokio::test]
async fn a_number_whose_reservation_lapsed_was_reaped_or_left_does_not_join() {
    let (mut bench, members) = Bench::with_workers(2).await;
    let lapsed = bench.reserved().await;
    bench.end_lock(lapsed.worker);
    assert_eq!(bench.join(&lapsed, JOINED).await.unwrap().unwrap_err(), DEAD);
    assert_eq!(bench.look(), NOTHING);

    bench.reap(lapsed.worker).await.unwrap();
    bench.end_lock(members[0].worker);
    bench.reap(members[0].worker).await.unwrap();
    bench.store.leave(&members[1]).await.unwrap().unwrap();
    bench.look();
    for gone in [&lapsed, &members[0], &members[1]] {
        assert_eq!(bench.join(gone, JOINED).await.unwrap().unwrap_err(), DEAD);
        assert_eq!(bench.beat(gone, BEATEN, false).await.unwrap().unwrap_err(), Ended::Dead);
        assert_eq!(bench.store.sync(gone, Revision(0), None).await.unwrap().unwrap_err(), Ended::Dead);
        assert_eq!(bench.store.leave(gone).await.unwrap(), None);
        assert_eq!(bench.look(), NOTHING);
    }
}

#[tokio::test]
async fn beat_extends_the_lock_and_tells_what_may_have_been_missed() {
    let (mut bench, members) = Bench::with_workers(3).await;
    let (_, grant) = bench.add("a", "one").await;
    bench.look();
    let beat = bench.beat(&members[0], BEATEN, false).await.unwrap().unwrap();
    assert_eq!(bench.look(), ["deadlines 1: 70s", "lock:1: ME 70s"]);
    assert_eq!((beat.inbox, beat.lifted, beat.rank, beat.waiting), (grant, Revision(0), 2, 0));
    let Due { worker, after } = beat.due.unwrap();
    assert_eq!(worker, members[1].worker, "the lock that ends first, and not its own");
    assert!(after <= JOINED && after > JOINED / 2);
    let beat = bench.beat(&members[1], BEATEN, false).await.unwrap().unwrap();
    assert_eq!((beat.rank, beat.due.unwrap().worker), (0, members[2].worker));
}

#[tokio::test]
async fn a_worker_alone_has_nobody_to_reap() {
    let (bench, members) = Bench::with_workers(1).await;
    let beat = bench.beat(&members[0], BEATEN, false).await.unwrap().unwrap();
    assert_eq!(beat.due, None);
}

// Rule 5: the mark keeps what a leaving worker hands back from coming back to it.
#[tokio::test]
async fn a_draining_worker_gets_no_new_job() {
    let (mut bench, members) = Bench::with_workers(2).await;
    let (_, grant) = bench.add("a", "one").await;
    bench.look();
    let beat = bench.beat(&members[0], BEATEN, true).await.unwrap().unwrap();
    assert_eq!(
        bench.look(),
        ["deadlines 1: 70s", "load 1: -", "lock:1: ME 70s", "terms 1: -", "terms changed: T"]
    );
    assert_eq!(beat.rank, 1, "it acts after those that stay");
    bench.beat(&members[0], BEATEN, true).await.unwrap().unwrap();
    assert_eq!(bench.look(), NOTHING);
    assert!(bench.release(members[0].worker, "a", grant).await);
    assert_eq!(
        bench.look(),
        [
            "assigned a: 2/r4",
            "inbox 2: r4",
            "load 2: 1",
            "owner a: a 2 r4 r3",
            "rev: r4",
            "inbox:2 <- r4 after r2: add a r3 \"one\"",
        ]
    );
}

// The deadline says when a lock ends; its key only announces it.
#[tokio::test]
async fn beat_restores_a_lock_that_was_evicted_and_revives_none_that_has_ended() {
    let (mut bench, members) = Bench::with_workers(1).await;
    bench.command(&["DEL", "@lock:1"]);
    bench.look();
    assert!(bench.beat(&members[0], BEATEN, false).await.unwrap().is_ok());
    assert_eq!(bench.look(), ["deadlines 1: 70s", "lock:1: ME 70s"]);
    bench.end_lock(members[0].worker);
    assert_eq!(bench.beat(&members[0], BEATEN, false).await.unwrap().unwrap_err(), Ended::Expired);
    assert_eq!(bench.look(), NOTHING);
}

// The same by time, and not by hand.
#[tokio::test]
async fn a_lock_ends_by_itself_and_then_its_worker_cannot_beat_and_can_be_reaped() {
    let bench = Bench::new().await;
    let member = bench.reserved().await;
    bench.join(&member, Duration::from_millis(40)).await.unwrap().unwrap();
    let (lock, mut raw) = (bench.keys.lock(member.worker), bench.server.connect());
    until("the lock's key is gone", || raw.command(&["EXISTS", &lock]).int() == 0).await;
    // The key and the deadline may be a millisecond apart.
    loop {
        match bench.reap(member.worker).await.unwrap().0 {
            Reap::Alive { remaining } => assert!(remaining <= Duration::from_millis(2), "{remaining:?}"),
            reap => break assert_eq!(reap, reaped(0, 0)),
        }
    }
    assert_eq!(bench.beat(&member, BEATEN, false).await.unwrap().unwrap_err(), Ended::Dead);
}

// A cluster that was wiped is not the same one, although it has workers of the same numbers.
#[tokio::test]
async fn a_member_of_a_wiped_cluster_is_refused_everywhere() {
    let (mut bench, members) = Bench::with_workers(1).await;
    bench.command(&["FLUSHALL"]);
    bench.look();
    let old = &members[0];
    for opened_anew in [false, true] {
        if opened_anew {
            let incarnation = bench.store.open("run-1").await.unwrap().incarnation;
            assert_eq!(bench.reserve(&old.incarnation, RESERVED, vec![]).await.unwrap().unwrap_err(), RESET);
            bench.incarnation = incarnation;
            assert_eq!(bench.joined().await.worker, old.worker);
            bench.add("a", "one").await;
            bench.look();
        }
        assert_eq!(bench.beat(old, BEATEN, false).await.unwrap().unwrap_err(), Ended::Reset);
        assert_eq!(bench.join(old, JOINED).await.unwrap().unwrap_err(), RESET);
        assert_eq!(bench.store.sync(old, Revision(0), None).await.unwrap().unwrap_err(), Ended::Reset);
        assert_eq!(bench.store.leave(old).await.unwrap(), None);
        assert_eq!(bench.look(), NOTHING);
    }
}

// Rule 10: two failovers that both forget the last reservations may give out a number twice.
#[tokio::test]
async fn a_number_that_was_given_out_again_is_its_first_holders_no_more() {
    let (mut bench, members) = Bench::with_workers(1).await;
    bench.command(&["DEL", "@workers", "@deadlines", "@inbox", "@terms", "@load"]);
    bench.command(&["HSET", "@meta", "last_worker", "0"]);
    let newer = bench.joined().await;
    assert_eq!(newer.worker, members[0].worker);
    bench.add("a", "one").await;
    bench.look();
    let older = &members[0];
    assert_eq!(bench.beat(older, BEATEN, false).await.unwrap().unwrap_err(), Ended::Dead);
    assert_eq!(bench.join(older, BEATEN).await.unwrap().unwrap_err(), DEAD);
    assert_eq!(bench.store.sync(older, Revision(0), None).await.unwrap().unwrap_err(), Ended::Dead);
    assert_eq!(bench.store.leave(older).await.unwrap(), None);
    assert_eq!(bench.look(), NOTHING);
    assert!(bench.beat(&newer, BEATEN, false).await.unwrap().is_ok());
    assert_eq!(bench.store.sync(&newer, Revision(0), None).await.unwrap().unwrap().rows.len(), 1);
}

// Rule 10: the last heartbeats may have been lost, and whoever sent them relies on them.
#[tokio::test]
async fn a_lift_extends_the_locks_of_the_living_and_of_nobody_else() {
    let (mut bench, members) = Bench::with_workers(2).await;
    let kept = bench.joined_as("mail", JOINED, false).await;
    bench.end_lock(kept.worker);
    assert!(matches!(bench.reap(kept.worker).await.unwrap().0, Reap::Kept { .. }));
    bench.end_lock(members[0].worker);
    assert!(bench.beat(&members[1], BEATEN, false).await.unwrap().is_ok());
    bench.look();
    bench.store.open("run-2").await.unwrap();
    let told = bench.look();
    let locks: Vec<_> = told.iter().filter(|line| line.starts_with("deadlines")).collect();
    assert_eq!(locks, ["deadlines 1: 50s"], "the longer one stays: {told:?}");
    assert!(bench.beat(&members[0], BEATEN, false).await.unwrap().is_ok());
}

#[tokio::test]
async fn a_worker_that_holds_nothing_leaves_without_a_trace() {
    let (mut bench, members) = Bench::with_workers(1).await;
    assert_eq!(bench.store.leave(&members[0]).await.unwrap(), Some((0, 0)));
    assert_eq!(
        bench.look(),
        [
            "deadlines 1: -",
            "inbox 1: -",
            "load 1: -",
            "lock:1: -",
            "terms 1: -",
            "terms 1:ttl: -",
            "terms changed: T",
            "workers 1: -",
            "control <- Left(WorkerId(1))",
        ]
    );
    assert_eq!(bench.store.leave(&members[0]).await.unwrap(), None);
    assert_eq!(bench.look(), NOTHING);
}

#[tokio::test]
async fn what_a_leaving_worker_still_counts_as_its_own_moves_on() {
    let (mut bench, members) = Bench::with_workers(2).await;
    bench.command(&["ZINCRBY", "@load", "5", "2"]);
    let (_, kept) = bench.add("kept", "k").await;
    bench.add("gone", "g").await;
    bench.delete("gone", None).await;
    bench.look(); // r3, r4: the adds, r5: the delete
    assert_eq!(bench.store.leave(&members[0]).await.unwrap(), Some((2, 0)));
    assert_eq!(
        bench.look(),
        [
            "assigned gone: -",
            "assigned kept: 2/r6",
            "deadlines 1: -",
            "inbox 1: -",
            "inbox 2: r6",
            "load 1: -",
            "load 2: 6",
            "lock:1: -",
            "owner gone: -",
            "owner kept: a 2 r6 r3",
            "rev: r6",
            "terms 1: -",
            "terms 1:ttl: -",
            "terms changed: T",
            "workers 1: -",
            "inbox:2 <- r6 after r2: add kept r3 \"k\"",
            "released <- gone r4",
            "control <- Left(WorkerId(1))",
        ]
    );
    assert!(!bench.release(members[0].worker, "kept", kept).await);
}

// In batches: dead from the first on, and whoever reaps it later finishes what it began.
#[tokio::test]
async fn leaving_in_batches_can_be_finished_by_another() {
    let (mut bench, members) = Bench::with_workers(1).await;
    for job in ["a", "b", "c"] {
        bench.add(job, "x").await;
    }
    bench.look();
    bench.leave_batch(&members[0], 1).await;
    assert_eq!(
        bench.look(),
        [
            "assigned a: -",
            "inbox 1: -",
            "load 1: -",
            "owner a: p 0 0 r2",
            "pending a: r2",
            "terms 1: -",
            "terms changed: T",
            "workers 1: -",
        ]
    );
    assert_eq!(bench.beat(&members[0], BEATEN, false).await.unwrap().unwrap_err(), Ended::Dead);
    assert_eq!(bench.join(&members[0], JOINED).await.unwrap().unwrap_err(), DEAD);
    assert_eq!(bench.store.sync(&members[0], Revision(0), None).await.unwrap().unwrap_err(), Ended::Dead);
    assert_eq!(bench.look(), NOTHING);
    // A job is deleted meanwhile: its owner is told although it is as good as gone.
    assert!(matches!(bench.delete("b", None).await, DeleteCode::Releasing { .. }));
    bench.end_lock(members[0].worker);
    assert_eq!(bench.reap(members[0].worker).await.unwrap().0, reaped(2, 0));
    assert_eq!(
        bench.look(),
        [
            "assigned b: -",
            "assigned c: -",
            "deadlines 1: -",
            "inbox 1: -",
            "owner b: -",
            "owner c: p 0 0 r4",
            "pending c: r4",
            "terms 1:ttl: -",
            "released <- b r3",
            "control <- Reaped(WorkerId(1))",
        ]
    );
    assert!(matches!(bench.store.find(&id("c")).await.unwrap().unwrap().record.state, JobState::Pending));
}

#[tokio::test]
async fn nobody_is_a_member_of_what_was_never_opened() {
    let (mut bench, _) = Bench::with_workers(0).await;
    let member = |incarnation| Member { worker: WorkerId(7), incarnation, token: "token".into() };
    let stranger = member("another".into());
    assert_eq!(bench.join(&stranger, JOINED).await.unwrap().unwrap_err(), RESET);
    let unknown = member(bench.incarnation.clone());
    assert_eq!(bench.join(&unknown, JOINED).await.unwrap().unwrap_err(), DEAD);
    assert_eq!(bench.look(), NOTHING);
}

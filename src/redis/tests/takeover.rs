//! reap: who, when, in batches, and by whom.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::bench::{BEATEN, Bench, DEAD, JOINED, id, reaped};
use crate::JobState;
use crate::id::{Revision, WorkerId};
use crate::redis::store::{BATCH_MOVES, DeleteCode, Ended, Reap};
use crate::test_server::Reply;

const NOTHING: [&str; 0] = [];

// Promise: no master needed, nothing lost. A dead worker's jobs go on, and it is told that they did.
#[tokio::test]
async fn the_jobs_of_a_dead_worker_go_on() {
    let (mut bench, members) = Bench::with_workers(2).await;
    bench.command(&["ZINCRBY", "@load", "5", "2"]);
    let (_, grant) = bench.add("a", "one").await;
    bench.add("gone", "x").await;
    bench.delete("gone", None).await;
    bench.add("again", "x").await;
    bench.delete("again", None).await;
    bench.add("again", "two").await;
    bench.end_lock(members[0].worker);
    let (reap, due) = bench.reap(members[0].worker).await.unwrap();
    assert_eq!((reap, due.unwrap().worker), (reaped(3, 0), members[1].worker));
    // r3, r4, r6: granted; r5, r7: deleted; r8: added again.
    assert_eq!(
        bench.look(),
        [
            "assigned a: 2/r10",
            "assigned again: 2/r11",
            "assigned gone: -",
            "deadlines 1: -",
            "inbox 1: -",
            "inbox 2: r11",
            "load 1: -",
            "load 2: 7",
            "owner a: a 2 r10 r3",
            "owner again: a 2 r11 r8",
            "owner gone: -",
            "rev: r11",
            "terms 1: -",
            "terms 1:ttl: -",
            "terms changed: T",
            "workers 1: -",
            "inbox:1 <- r9 after r7: fenced",
            "inbox:2 <- r10 after r2: add a r3 \"one\"",
            "released <- gone r4",
            "released <- again r6",
            "inbox:2 <- r11 after r10: add again r8 \"two\"",
            "control <- Reaped(WorkerId(1))",
        ]
    );
    assert_eq!(bench.reap(members[0].worker).await.unwrap().0, Reap::Nothing);
    assert_eq!(bench.look(), NOTHING);
    // What it says afterwards changes nothing.
    assert!(!bench.release(members[0].worker, "a", grant).await);
    assert_eq!(bench.beat(&members[0], BEATEN, false).await.unwrap().unwrap_err(), Ended::Dead);
    assert_eq!(bench.look(), NOTHING);
}

#[tokio::test]
async fn the_jobs_of_the_last_worker_wait_in_the_order_in_which_they_were_added() {
    let (mut bench, members) = Bench::with_workers(1).await;
    let mut expected = Vec::new();
    for job in ["z", "y", "x"] {
        let (_, born) = bench.add(job, "").await;
        expected.extend([job.to_owned(), born.to_string()]);
    }
    bench.end_lock(members[0].worker);
    assert_eq!(bench.reap(members[0].worker).await.unwrap().0, reaped(3, 0));
    let waiting = bench.command(&["ZRANGE", "@pending", "0", "-1", "WITHSCORES"]);
    assert_eq!(waiting.list().iter().map(Reply::text).collect::<Vec<_>>(), expected);
}

// Promise: nothing lost. A key that somebody set by hand must not keep a dead worker's jobs for ever.
#[tokio::test]
async fn a_lock_that_never_expires_does_not_keep_its_worker_from_being_reaped() {
    let (mut bench, members) = Bench::with_workers(1).await;
    bench.add("a", "one").await;
    bench.end_lock(members[0].worker);
    bench.command(&["SET", "@lock:1", "by hand"]);
    bench.look();
    assert_eq!(bench.reap(members[0].worker).await.unwrap().0, reaped(1, 0));
    assert!(bench.look().contains(&"lock:1: -".into()));
}

#[tokio::test]
async fn a_lock_that_has_not_ended_is_not_reaped() {
    let (mut bench, members) = Bench::with_workers(2).await;
    let worker = members[0].worker;
    bench.add("a", "one").await;
    bench.look();
    let is_alive =
        |reap| matches!(reap, Reap::Alive { remaining } if !remaining.is_zero() && remaining <= JOINED);
    let (reap, due) = bench.reap(worker).await.unwrap();
    assert!(is_alive(reap));
    assert_eq!(due.unwrap().worker, members[1].worker, "it tells of the next one all the same");
    assert_eq!(bench.look(), NOTHING);
    // Its key is gone before its time, evicted or deleted by hand: the worker still counts on its lease.
    bench.command(&["DEL", "@lock:1"]);
    bench.look();
    assert!(is_alive(bench.reap(worker).await.unwrap().0));
    assert_eq!(bench.look(), NOTHING);
}

#[tokio::test]
async fn a_number_that_was_reserved_and_never_joined_is_reaped() {
    let mut bench = Bench::new().await;
    let member = bench.reserved().await;
    assert!(matches!(bench.reap(member.worker).await.unwrap().0, Reap::Alive { .. }));
    bench.end_lock(member.worker);
    assert_eq!(bench.reap(member.worker).await.unwrap(), (reaped(0, 0), None));
    assert_eq!(
        bench.look(),
        [
            "deadlines 1: -",
            "rev: r1",
            "workers 1: -",
            "inbox:1 <- r1 after 0: fenced",
            "control <- Reaped(WorkerId(1))"
        ]
    );
    assert_eq!(bench.reap(WorkerId(99)).await.unwrap(), (Reap::Nothing, None));
    assert_eq!(bench.look(), NOTHING);
}

// Rule 6: dead from the first batch on; its deadline stays, so that another finishes.
#[tokio::test]
async fn another_reaper_finishes_what_one_began() {
    let (mut bench, members) = Bench::with_workers(1).await;
    const BATCH: u64 = BATCH_MOVES as u64;
    let jobs: Vec<_> =
        (0..2 * BATCH + 7).map(|job| (id(&format!("{job:03}")), Bytes::from_static(b"x"))).collect();
    bench.add_all(&jobs).await.unwrap();
    let heir = bench.joined().await;
    bench.end_lock(members[0].worker);
    let other = bench.store(JOINED);
    other.open("run-1").await.unwrap(); // as everybody does first: a reap needs the server's clock
    assert_eq!(bench.reap(members[0].worker).await.unwrap().0, reaped(BATCH, BATCH + 7));
    let told = bench.look();
    assert_eq!(told.last().unwrap(), "control <- Reaping(WorkerId(1))");
    assert_eq!(told.iter().filter(|line| line.ends_with("fenced")).count(), 1);
    assert_eq!(bench.beat(&members[0], BEATEN, false).await.unwrap().unwrap_err(), Ended::Dead);
    assert_eq!(bench.join(&members[0], BEATEN).await.unwrap().unwrap_err(), DEAD);
    assert_eq!(bench.store.sync(&members[0], Revision(0), None).await.unwrap().unwrap_err(), Ended::Dead);
    assert_eq!(bench.look(), NOTHING);

    // The survey still tells of it, and each join, so that it is not forgotten if the first reaper dies.
    assert_eq!(bench.join(&heir, JOINED).await.unwrap().unwrap().due, [members[0].worker]);
    assert_eq!(other.survey().await.unwrap().due.unwrap().worker, members[0].worker);
    assert_eq!(bench.reap_by(&other, members[0].worker).await.unwrap().0, reaped(BATCH, 7));
    assert_eq!(bench.reap(members[0].worker).await.unwrap().0, reaped(7, 0));
    assert_eq!(bench.reap_by(&other, members[0].worker).await.unwrap().0, Reap::Nothing);
    let told = bench.look();
    assert_eq!(told.iter().filter(|line| line.ends_with("fenced")).count(), 0, "it was told already");

    let mut owners = BTreeMap::new();
    let mut cursor = Some("0".to_owned());
    while let Some(from) = cursor {
        let (rows, next) = bench.store.list(&from).await.unwrap();
        owners.extend(rows.into_iter().map(|(job, record)| (job, record.state)));
        cursor = next;
    }
    assert_eq!(owners.len(), jobs.len());
    assert!(
        owners
            .values()
            .all(|state| matches!(state, JobState::Assigned { worker, .. } if *worker == heir.worker))
    );
}

// Between two batches the dead worker's jobs can still be deleted and released; nothing of it stays behind.
#[tokio::test]
async fn what_happens_between_two_batches_leaves_no_trace_of_the_dead() {
    let (mut bench, members) = Bench::with_workers(1).await;
    let mut grants = BTreeMap::new();
    for job in ["a", "b", "c", "d"] {
        grants.insert(job, bench.add(job, "x").await.1);
    }
    bench.end_lock(members[0].worker);
    bench.reap_batch(members[0].worker, 1, 0).await;
    assert!(matches!(bench.delete("b", None).await, DeleteCode::Releasing { .. }));
    assert!(bench.release(members[0].worker, "c", grants["c"]).await);
    assert_eq!(bench.reap(members[0].worker).await.unwrap().0, reaped(2, 0));
    bench.look();
    for key in ["@inbox", "@load", "@workers", "@deadlines", "@assigned", "@lock:1"] {
        assert_eq!(bench.command(&["EXISTS", key]).int(), 0, "{key} has something of it");
    }
    assert_eq!(bench.command(&["HKEYS", "@terms"]).list().len(), 1, "only when something changed last");
    assert_eq!(bench.command(&["ZCARD", "@pending"]).int(), 3);
}

// The index of assignments may have what no record confirms: the record decides.
#[tokio::test]
async fn an_orphan_of_the_index_is_dropped() {
    let (mut bench, members) = Bench::with_workers(2).await;
    bench.add("a", "one").await;
    bench.command(&["HSET", "@owner", "a", "a 2 5 5"]);
    bench.command(&["ZADD", "@assigned", "67108869", "nothing"]);
    bench.end_lock(members[0].worker);
    assert_eq!(bench.reap(members[0].worker).await.unwrap().0, reaped(2, 0));
    let told = bench.look();
    assert!(
        told.contains(&"assigned a: -".into()) && told.contains(&"assigned nothing: -".into()),
        "{told:?}"
    );
    assert!(!told.iter().any(|line| line.starts_with("owner") || line.contains("add")), "{told:?}");
}

#[tokio::test]
async fn nobody_is_reaped_twice_at_once() {
    let (mut bench, members) = Bench::with_workers(3).await;
    for job in ["a", "b", "c"] {
        bench.add(job, "x").await;
    }
    bench.end_lock(members[0].worker);
    let worker = members[0].worker;
    let answers = tokio::join!(bench.reap(worker), bench.reap(worker), bench.reap(worker));
    let mut answers = [answers.0.unwrap().0, answers.1.unwrap().0, answers.2.unwrap().0];
    answers.sort_by_key(|reap| *reap == Reap::Nothing);
    assert_eq!(answers, [reaped(1, 0), Reap::Nothing, Reap::Nothing]);
    let told = bench.look();
    assert_eq!(told.iter().filter(|line| line.contains("add a")).count(), 1, "{told:?}");
}

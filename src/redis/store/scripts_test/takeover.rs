//! Takeover: reap.

use super::bench::{BEATEN, Bench, JOINED};
use crate::id::{Revision, WorkerId};
use crate::redis::script;
use crate::redis::store::{Ended, Member, Reap};
use crate::test_server::Reply;

/// Reaps a batch of so many.
fn reap(bench: &Bench, member: &Member, limit: &str) -> Vec<i64> {
    let names = ["inbox:", "released", "control"].map(|name| bench.key(name));
    let worker = member.worker.to_string();
    let args =
        [names[0].as_bytes(), names[1].as_bytes(), names[2].as_bytes(), worker.as_bytes(), limit.as_bytes()];
    bench.run(&script::REAP, member.worker.get(), &args).list()[..3].iter().map(Reply::int).collect()
}

// Promise: one owner. A lock's key that is gone early (deleted, evicted) does not end the lease its worker counts on.
#[tokio::test(flavor = "multi_thread")]
async fn before_the_deadline_nobody_is_reaped_even_if_the_lock_was_deleted() {
    let (mut bench, members) = Bench::with_workers(2).await;
    bench.add("a", "one").await;
    for _ in 0..2 {
        bench.forget();
        let (reap, due) = bench.store.reap(members[0].worker).await.unwrap();
        let Reap::Alive { remaining } = reap else { panic!("{reap:?}") };
        assert!(remaining > BEATEN && remaining <= JOINED, "{remaining:?}");
        assert_eq!(due.unwrap().worker, members[1].worker);
        assert_eq!(bench.news(), [""; 0]);
        bench.command(&["DEL", &bench.key("lock:1")]);
    }
}

// Promise: no master needed. The jobs go on, the dead worker is told, and so is everybody else.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_lock_has_ended_is_fenced_and_its_jobs_go_on() {
    let (mut bench, members) = Bench::with_workers(2).await;
    let (_, a) = bench.add("a", "one").await;
    bench.add("b", "two").await;
    bench.add("c", "three").await;
    bench.delete("a", Some(a)).await;
    bench.end_lock(&members[0]); // r3, r4, r5 the adds, r6 the delete
    let (reaped, due) = bench.store.reap(members[0].worker).await.unwrap();
    assert_eq!((reaped, due.unwrap().worker), (Reap::Reaped { moved: 2, left: 0 }, members[1].worker));
    let mut news = bench.news();
    news.sort();
    assert_eq!(
        news,
        [
            "> control Reaped(WorkerId(1))",
            "> inbox:1 r7 after r6: fenced",
            "> inbox:2 r8 after r4: add c born r5 \"three\"",
            "> released a r3",
            "assigned: b=2/r4 c=2/r8",
            "deadlines: 2=40s",
            "inbox: 2=r8",
            "load: 2=2",
            "owner: b=a 2 r4 r4 c=a 2 r8 r5",
            "rev: r8",
            "workers: 2=info",
        ]
    );
    assert_eq!(bench.store.reap(members[0].worker).await.unwrap().0, Reap::Nothing);
    assert_eq!(bench.news(), [""; 0]);
    // What it says afterwards changes nothing.
    assert!(!bench.release(&members[0], "c", a).await);
    assert_eq!(bench.store.beat(&members[0], BEATEN, false).await.unwrap().unwrap_err(), Ended::Dead);
    assert_eq!(bench.news(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_jobs_of_the_last_worker_wait_in_the_order_in_which_they_were_added() {
    let (mut bench, members) = Bench::with_workers(1).await;
    let mut born = Vec::new();
    for job in ["z", "y", "x"] {
        born.push(bench.add(job, job).await.1);
    }
    bench.end_lock(&members[0]);
    bench.store.reap(members[0].worker).await.unwrap();
    assert_eq!(bench.news().len(), 10);
    let scores = bench.command(&["ZRANGE", &bench.key("pending"), "0", "-1", "WITHSCORES"]);
    let order: Vec<String> = scores.list().iter().map(Reply::text).collect();
    let texts: Vec<String> = born.iter().map(Revision::to_string).collect();
    assert_eq!(order, ["z", &texts[0], "y", &texts[1], "x", &texts[2]]);
}

// Rule 6: dead from the first batch on, and another finishes.
#[tokio::test(flavor = "multi_thread")]
async fn another_finishes_what_a_reaper_began() {
    let (mut bench, members) = Bench::with_workers(1).await;
    for job in ["a", "b", "c", "d", "e"] {
        bench.add(job, "x").await;
    }
    bench.end_lock(&members[0]);
    assert_eq!(reap(&bench, &members[0], "2"), [1, 2, 3]);
    let news = bench.news();
    let published: Vec<&str> = news.iter().filter(|line| line.starts_with('>')).map(|line| &**line).collect();
    assert_eq!(published, ["> inbox:1 r7 after r6: fenced", "> control Reaping(WorkerId(1))"]);
    assert!(news.iter().any(|line| line == "workers: gone"), "{news:?}");
    assert!(!news.iter().any(|line| line.starts_with("deadlines")), "another must find it: {news:?}");

    // In between it is dead, however it tries.
    let old = &members[0];
    assert_eq!(bench.store.beat(old, BEATEN, false).await.unwrap().unwrap_err(), Ended::Dead);
    assert_eq!(bench.store.join(old, JOINED).await.unwrap().unwrap_err(), Ended::Dead);
    assert_eq!(bench.store.sync(old, Revision(0), None).await.unwrap().unwrap_err(), Ended::Dead);
    assert_eq!(bench.news(), [""; 0]);

    // A new worker hears of it at its join, and finishes.
    let next = bench.reserve().await;
    let joined = bench.store.join(&next, JOINED).await.unwrap().unwrap();
    assert_eq!((joined.due, joined.pending), (vec![old.worker], 2));
    bench.forget();
    assert_eq!(bench.store.reap(old.worker).await.unwrap().0, Reap::Reaped { moved: 3, left: 0 });
    let news = bench.news();
    assert!(!news.iter().any(|line| line.contains("fenced")), "it was told once: {news:?}");
    assert_eq!(news.last().unwrap(), "> control Reaped(WorkerId(1))");
    assert!(news.contains(&"deadlines: 2=40s".to_owned()), "{news:?}");
    bench.store.place().await.unwrap();
    assert_eq!(bench.store.sync(&next, Revision(0), None).await.unwrap().unwrap().rows.len(), 5);
}

// A delete between two batches sends a frame to the dead worker's inbox. Nothing of that may stay for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_deleted_between_two_batches_is_gone_and_leaves_nothing_behind() {
    let (mut bench, members) = Bench::with_workers(1).await;
    for job in ["a", "b"] {
        bench.add(job, "x").await;
    }
    bench.end_lock(&members[0]);
    assert_eq!(reap(&bench, &members[0], "1"), [1, 1, 1]);
    bench.delete("a", None).await;
    bench.delete("b", None).await;
    assert_eq!(bench.store.reap(members[0].worker).await.unwrap().0, Reap::Reaped { moved: 1, left: 0 });
    let keys = bench.command(&["KEYS", "*"]);
    let mut keys: Vec<String> = keys.list().iter().map(Reply::text).collect();
    keys.sort();
    assert_eq!(keys, [bench.key("meta"), bench.key("rev")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_was_reserved_and_never_joined_is_reaped() {
    let mut bench = Bench::new().await;
    let member = bench.reserve().await;
    bench.forget();
    assert!(matches!(bench.store.reap(member.worker).await.unwrap().0, Reap::Alive { .. }));
    bench.end_lock(&member);
    assert_eq!(bench.store.reap(member.worker).await.unwrap(), (Reap::Reaped { moved: 0, left: 0 }, None));
    assert_eq!(
        bench.news(),
        [
            "deadlines: gone",
            "rev: r1",
            "workers: gone",
            "> inbox:1 r1 after 0: fenced",
            "> control Reaped(WorkerId(1))",
        ]
    );
    assert_eq!(bench.store.reap(WorkerId(99)).await.unwrap(), (Reap::Nothing, None));
    assert_eq!(bench.news(), [""; 0]);
}

// Promise: nothing lost. A key that somebody set or persisted by hand must not keep a dead worker's jobs for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_never_expires_does_not_keep_its_worker_from_being_reaped() {
    let (mut bench, members) = Bench::with_workers(1).await;
    bench.add("a", "one").await;
    bench.end_lock(&members[0]);
    bench.command(&["SET", &bench.key("lock:1"), "by hand"]);
    assert_eq!(bench.store.reap(members[0].worker).await.unwrap().0, Reap::Reaped { moved: 1, left: 0 });
    assert_eq!(bench.command(&["EXISTS", &bench.key("lock:1")]).int(), 0);
    assert_eq!(bench.command(&["ZCARD", &bench.key("pending")]).int(), 1);
}

// What the index says and the record does not is dropped: the record decides.
#[tokio::test(flavor = "multi_thread")]
async fn an_orphan_of_the_index_is_not_moved() {
    let (mut bench, members) = Bench::with_workers(2).await;
    bench.add("a", "one").await;
    bench.add("b", "two").await;
    // The index counts b as the first worker's, the record as the second's.
    let score = (1u64 << 26) + 5;
    bench.command(&["ZADD", &bench.key("assigned"), &score.to_string(), "b"]);
    bench.end_lock(&members[0]);
    bench.store.reap(members[0].worker).await.unwrap();
    let news = bench.news();
    assert!(news.contains(&"owner: a=a 2 r6 r3 b=a 2 r4 r4".to_owned()), "{news:?}");
    assert_eq!(news.iter().filter(|line| line.starts_with("> inbox:2")).count(), 1, "{news:?}");
}

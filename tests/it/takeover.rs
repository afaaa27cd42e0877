//! Promises "nothing lost", "no master needed" and "one owner": dead workers' jobs go to others, by every road.
//!
//! The workers are processes of their own, killed as a power cut would.

use std::collections::HashSet;
use std::time::Duration;

use futures::StreamExt;
use nix::sys::signal::Signal;

use crate::support::{
    Ledger, Process, RedisServer, Report, TTL, add_jobs, builder, cluster, monotonic_us, until,
};

/// How late after the lock's end a takeover may be on a machine that is busy with other tests. What it really takes is
/// measured by the demo and the benchmarks.
const LATE: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_s_job_goes_to_another() {
    kill_one_of_two(1, TTL, |_| {}).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_jobs_of_a_killed_worker_go_to_another() {
    // The one that lives prints a line for each: where the machine stalls, that can take longer than the usual lock lives.
    kill_one_of_two(5_000, 5 * TTL, |_| {}).await;
}

// Promise: notifications are hints.
#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_needs_no_notifications() {
    kill_one_of_two(100, TTL, |server| {
        server.command(&["CONFIG", "SET", "notify-keyspace-events", ""]);
    })
    .await;
}

async fn kill_one_of_two(jobs: usize, ttl: Duration, before: impl FnOnce(&RedisServer)) {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let master = cluster.master().await.unwrap();
    let mut first = Process::worker(&server, ttl);
    let ids: HashSet<String> = add_jobs(&master, jobs).await.iter().map(ToString::to_string).collect();
    let (held, _) = first.wait_for_adds(jobs);
    let second = Process::worker(&server, ttl);
    before(&server);

    first.kill();
    let killed = monotonic_us();
    let (taken, last) = second.wait_for_adds(jobs);
    assert_eq!(taken.keys().cloned().collect::<HashSet<_>>(), ids, "each job, once");
    assert!(taken.iter().all(|(job, epoch)| *epoch > held[job]), "at a later epoch");
    // Not before the lock can have ended: its last heartbeat was at most a third of the time before.
    let taken_after = Duration::from_micros(last - killed);
    assert!(taken_after > ttl / 2, "the lock was waited for");
    assert!(taken_after < ttl + LATE, "taken over after {taken_after:?}");
    assert_eq!(master.workers().await.unwrap().len(), 1);
}

// Promise: no master needed.
#[tokio::test(flavor = "multi_thread")]
async fn workers_take_over_while_every_master_is_dead() {
    let server = RedisServer::start();
    let mut master_process = Process::master(&server, TTL);
    let mut first = Process::worker(&server, TTL);
    {
        let cluster = cluster(&server).await;
        add_jobs(&cluster.master().await.unwrap(), 50).await;
    }
    first.wait_for_adds(50);
    let (second, third) = (Process::worker(&server, TTL), Process::worker(&server, TTL));
    master_process.kill();
    first.kill();
    // Between the two of them, in whatever parts.
    let mut jobs = HashSet::new();
    let (mut at_second, mut at_third) = (0, 0);
    while jobs.len() < 50 {
        for (process, count) in [(&second, &mut at_second), (&third, &mut at_third)] {
            if *count < 25
                && let Some(Report::Add { job, .. }) = process.next()
            {
                assert!(jobs.insert(job), "one owner");
                *count += 1;
            }
        }
    }
}

// What all hear costs everybody, most when many die at once. So of many workers only the first in rank hear of it, and that is enough.
#[tokio::test(flavor = "multi_thread")]
async fn of_many_workers_only_the_first_listen_and_take_over() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let mut killed = Process::worker(&server, TTL);
    add_jobs(&cluster.master().await.unwrap(), 60).await;
    killed.wait_for_adds(60);
    let workers: Vec<_> = futures::future::try_join_all((0..70).map(|_| cluster.worker())).await.unwrap();
    let ledger = Ledger::default();
    let _consumers: Vec<_> = workers.into_iter().map(|worker| ledger.consume(worker)).collect();
    let control = "{assemblage:test}:control";
    until("most do not listen", || async {
        let listeners = server.command(&["PUBSUB", "SHARDNUMSUB", control]).list()[1].int();
        (1..=50).contains(&listeners)
    })
    .await;
    killed.kill();
    until("its jobs are held", || async { ledger.held().len() == 60 }).await;
    ledger.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_wait_when_every_worker_is_killed_and_go_to_the_next_that_joins() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let master = cluster.master().await.unwrap();
    let mut workers =
        [Process::worker(&server, TTL), Process::worker(&server, TTL), Process::worker(&server, TTL)];
    let ids = add_jobs(&master, 300).await;
    for worker in &workers {
        worker.wait_for_adds(100);
    }
    for worker in &mut workers {
        worker.kill();
    }
    until("all jobs wait", || async { master.stats().await.unwrap().pending == 300 }).await;
    assert_eq!(master.stats().await.unwrap().workers, 0);
    let next = Process::worker(&server, TTL);
    let (taken, _) = next.wait_for_adds(300);
    assert_eq!(taken.len(), ids.len());
}

// The third road: nobody was there to reap, and a join finds what has expired.
#[tokio::test(flavor = "multi_thread")]
async fn a_join_reaps_what_has_expired_while_nobody_was_there() {
    let server = RedisServer::start();
    let mut first = Process::worker(&server, TTL);
    {
        let cluster = cluster(&server).await;
        add_jobs(&cluster.master().await.unwrap(), 20).await;
    }
    first.wait_for_adds(20);
    first.kill();
    until("the lock has ended", || async {
        server.command(&["EXISTS", "{assemblage:test}:lock:1"]).int() == 0
    })
    .await;
    let second = Process::worker(&server, TTL);
    second.wait_for_adds(20);
}

// Promise: one owner; a paused process notices before its consumer gets anything else.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_stopped_for_two_ttls_gives_everything_up_when_it_goes_on() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let master = cluster.master().await.unwrap();
    let first = Process::worker(&server, TTL);
    add_jobs(&master, 10).await;
    let (held, _) = first.wait_for_adds(10);
    let second = Process::worker(&server, TTL);
    first.signal(Signal::SIGSTOP);
    let (taken, _) = second.wait_for_adds(10);
    assert!(taken.iter().all(|(job, epoch)| *epoch > held[job]), "a store can refuse the first one's writes");
    tokio::time::sleep(TTL).await; // two TTLs in all: the length of the pause is what is tested
    first.signal(Signal::SIGCONT);
    let mut deleted = HashSet::new();
    loop {
        match first.next() {
            Some(Report::Delete { job, .. }) => assert!(deleted.insert(job), "once"),
            Some(Report::Close { reason, .. }) => {
                assert_eq!(reason, "LockExpired");
                break;
            }
            other => panic!("only Deletes before Close: {other:?}"),
        }
    }
    assert_eq!(deleted, held.keys().cloned().collect());
    assert_eq!(first.next(), None, "nothing after Close");
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_start_at_the_same_instant_have_different_numbers_and_share_the_jobs() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let master = cluster.master().await.unwrap();
    let starting = (0..8).map(|_| cluster.worker());
    let workers: Vec<_> = futures::future::try_join_all(starting).await.unwrap();
    let numbers: HashSet<_> = workers.iter().map(assemblage::Worker::id).collect();
    assert_eq!(numbers.len(), 8);
    let ledger = Ledger::default();
    let consumers: Vec<_> = workers.into_iter().map(|worker| ledger.consume(worker)).collect();
    add_jobs(&master, 80).await;
    until("all are held", || async { ledger.held().len() == 80 }).await;
    for consumer in &consumers {
        assert_eq!(ledger.held_by(consumer.id()), 10, "each has its part");
    }
    ledger.assert_clean();
}

// A key that is deleted by hand does not end a lease that its worker counts on.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_is_deleted_by_hand_is_set_again_and_moves_no_job() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let master = cluster.master().await.unwrap();
    let ledger = Ledger::default();
    let first = ledger.consume(cluster.worker().await.unwrap());
    let ids = add_jobs(&master, 5).await;
    let _second = ledger.consume(cluster.worker().await.unwrap());
    until("all are held", || async { ledger.held().len() == 5 }).await;
    let lock = format!("{{assemblage:test}}:lock:{}", first.id());
    assert_eq!(server.command(&["DEL", &lock]).int(), 1);
    until("the next heartbeat sets it", || async { server.command(&["EXISTS", &lock]).int() == 1 }).await;
    assert!(ids.iter().all(|id| ledger.moves(id) == 1), "no job moved");
    ledger.assert_clean();
}

// Anybody who may publish can forge a notification: the script looks at the lock.
#[tokio::test(flavor = "multi_thread")]
async fn a_forged_notification_moves_no_job() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let master = cluster.master().await.unwrap();
    let ledger = Ledger::default();
    let first = ledger.consume(cluster.worker().await.unwrap());
    let _second = ledger.consume(cluster.worker().await.unwrap());
    let ids = add_jobs(&master, 10).await;
    until("all are held", || async { ledger.held().len() == 10 }).await;
    let channel = format!("__keyspace@0__:{{assemblage:test}}:lock:{}", first.id());
    for _ in 0..100 {
        assert!(server.command(&["PUBLISH", &channel, "expired"]).int() > 0, "somebody listens");
    }
    // A job that is added afterwards comes after whatever the forgery brought about.
    let last = add_jobs(&master, 1).await;
    until("the last is held", || async { ledger.held().contains(&last[0]) }).await;
    assert!(ids.iter().all(|id| ledger.moves(id) == 1), "no job moved");
    ledger.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_cannot_reach_the_server_gives_up_before_its_lock_ends() {
    let mut server = RedisServer::start();
    let cluster = cluster(&server).await;
    let master = cluster.master().await.unwrap();
    let ledger = Ledger::default();
    let consumer = ledger.consume(cluster.worker().await.unwrap());
    add_jobs(&master, 3).await;
    until("all are held", || async { ledger.held().len() == 3 }).await;
    server.kill();
    let cut = std::time::Instant::now();
    assert_eq!(consumer.closed().await, assemblage::CloseReason::LockExpired);
    // The lock ends a TTL after the last heartbeat, which was before the cut.
    assert!(cut.elapsed() < TTL, "it closed after {:?}", cut.elapsed());
    assert!(ledger.held().is_empty());
    assert!(!ledger.errors().is_empty(), "the consumer was told that heartbeats fail");
    ledger.assert_clean();
}

// What it can stand is a stall of some 100 ms: a time in which the machine stalled for longer proves nothing.
// All is on one thread, so that what keeps the worker from its heartbeats keeps the turns here from their end as well.
#[tokio::test]
async fn the_shortest_ttl_holds_a_worker() {
    let server = RedisServer::start();
    let cluster = builder().lock_ttl(Duration::from_millis(200)).connect_url(server.url()).await.unwrap();
    let master = cluster.master().await.unwrap();
    let begin = std::time::Instant::now();
    while begin.elapsed() < 2 * crate::support::PATIENCE {
        let mut worker = cluster.worker().await.unwrap();
        // Some TTLs of nothing: the stream must not close.
        let mut quiet = std::pin::pin!(tokio::time::timeout(Duration::from_millis(1_500), worker.next()));
        let mut stalled = Duration::ZERO;
        let closed = loop {
            let turn = std::time::Instant::now();
            let call = async {
                tokio::time::sleep(Duration::from_millis(5)).await;
                master.stats().await
            };
            tokio::select! {
                quiet = &mut quiet => break quiet.ok().map(|event| (event, stalled.max(turn.elapsed()))),
                _ = call => stalled = stalled.max(turn.elapsed()),
            }
        };
        match closed {
            None => return,
            // The turn that the end came in is the one that stalled, more likely than not.
            Some((event, stalled)) => {
                assert!(stalled > Duration::from_millis(50), "{event:?}; no stall above {stalled:?}");
            }
        }
    }
    panic!("the machine stalls all the time");
}

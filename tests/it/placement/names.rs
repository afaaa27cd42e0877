//! Workers with a name: who comes back is given what it had.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use assemblage::{CloseReason, ErrorKind, NameConflict, WorkerOptions};

use crate::support::{Ledger, Process, RedisServer, TTL, add_jobs, builder, cluster, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_named_worker_that_is_killed_and_comes_back_gets_its_jobs_again_at_new_epochs() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let master = cluster.master().await.unwrap();
    let ledger = Ledger::default();
    let other = ledger.consume(cluster.worker().await.unwrap());
    let mut named = Process::start("worker name=gw-1 grace=20000", &server, TTL);
    add_jobs(&master, 100).await;
    let (had, _) = named.wait_for_adds(50);
    until("the other has its half", || async { ledger.held_by(other.id()) == 50 }).await;
    named.kill();
    until("its lock has ended", || async { master.stats().await.unwrap().workers == 1 }).await;
    assert_eq!(ledger.held_by(other.id()), 50, "its jobs are kept");
    let again = Process::start("worker name=gw-1 grace=20000", &server, TTL);
    let (has, _) = again.wait_for_adds(50);
    assert_eq!(has.keys().collect::<HashSet<_>>(), had.keys().collect::<HashSet<_>>());
    assert!(has.iter().all(|(job, epoch)| *epoch > had[job]));
    assert_eq!(ledger.held_by(other.id()), 50, "nothing else moved");
    ledger.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_grace_is_over_the_jobs_go_to_others() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let master = cluster.master().await.unwrap();
    let mut named = Process::start("worker name=gw-1 grace=1500", &server, TTL);
    add_jobs(&master, 50).await;
    named.wait_for_adds(50);
    let other = Process::start("worker", &server, TTL);
    named.kill();
    let killed = Instant::now();
    other.wait_for_adds(50);
    // It was killed at most one TTL before its lock ended.
    assert!(killed.elapsed() >= Duration::from_millis(1_500), "{:?}", killed.elapsed());
    assert_eq!(server.command(&["HEXISTS", "{assemblage:test}:terms", "name:gw-1"]).int(), 0);
}

// A restart that is faster than the lock: the server takes the dead one for alive.
#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_takes_over_from_a_dead_one_of_its_name_when_that_one_s_lock_ends() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let master = cluster.master().await.unwrap();
    let ledger = Ledger::default();
    let other = ledger.consume(cluster.worker().await.unwrap());
    let mut named = Process::start("worker name=gw-1", &server, TTL);
    add_jobs(&master, 100).await;
    let (had, _) = named.wait_for_adds(50);
    named.kill();
    let again = Process::start("worker name=gw-1", &server, TTL);
    let (has, _) = again.wait_for_adds(50);
    assert_eq!(has.keys().collect::<HashSet<_>>(), had.keys().collect::<HashSet<_>>());
    assert_eq!(ledger.held_by(other.id()), 50, "nothing else moved");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_of_a_living_worker_s_name_takes_over_at_once_or_is_refused() {
    let server = RedisServer::start();
    // Long heartbeats: what is fast was pushed.
    let cluster = builder().lock_ttl(Duration::from_secs(120)).connect_url(server.url()).await.unwrap();
    let master = cluster.master().await.unwrap();
    let ledger = Ledger::default();
    let named = || WorkerOptions::default().name("gw-1");
    let first = ledger.consume(cluster.worker_with(named()).await.unwrap());
    let other = ledger.consume(cluster.worker().await.unwrap());
    add_jobs(&master, 100).await;
    until("all are held", || async { ledger.held().len() == 100 }).await;

    let refused = cluster.worker_with(named().name_conflict(NameConflict::Refuse)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NameTaken, "{refused}");
    assert!(refused.to_string().contains("gw-1"), "{refused}");
    assert_eq!(master.stats().await.unwrap().workers, 2, "it has left nothing behind");

    let second = ledger.consume(cluster.worker_with(named()).await.unwrap());
    assert_eq!(first.closed().await, CloseReason::Evicted);
    until("the newcomer has its jobs", || async { ledger.held_by(second.id()) == 50 }).await;
    assert_eq!(ledger.held_by(other.id()), 50, "nothing else moved");
    let names: Vec<_> = master.workers().await.unwrap().into_iter().map(|worker| worker.name).collect();
    assert_eq!(names, [None, Some("gw-1".to_owned())]);
    ledger.assert_clean();
}

//! A primary with a replica: what waits for it, and what a failover that loses writes leaves of the promises.

use std::time::Duration;

use assemblage::{CloseReason, Durability, ErrorKind};

use crate::support::server::Reply;
use crate::support::{Ledger, RedisServer, TTL, add_jobs, builder, until};

/// How long the sentinel takes a primary for alive that does not answer.
const DOWN_AFTER: &str = "1000";

/// A replica of this server, that has all it has.
async fn replica_of(primary: &RedisServer) -> RedisServer {
    let replica = RedisServer::start();
    replica.command(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]);
    until("the replica is in sync", || async {
        replica.command(&["INFO", "replication"]).text().contains("master_link_status:up")
    })
    .await;
    replica
}

#[tokio::test(flavor = "multi_thread")]
async fn with_durability_a_call_returns_when_the_replica_has_it_and_says_if_it_has_not() {
    let primary = RedisServer::with(&["--repl-diskless-sync-delay", "0"]);
    let replica = replica_of(&primary).await;
    let builder = builder().durability(Durability::Replicas(1)).lock_ttl(Duration::from_secs(3));
    let cluster = builder.connect_url(primary.url()).await.unwrap();
    let master = cluster.master().await.unwrap();
    for number in 0..50 {
        let id = master.add(&number).await.unwrap();
        let there = replica.command(&["HEXISTS", "{assemblage:test}:jobs", id.as_str()]).int();
        assert_eq!(there, 1, "when the call returns, the replica has the job");
        master.delete(&id).await.unwrap();
        assert_eq!(replica.command(&["HEXISTS", "{assemblage:test}:jobs", id.as_str()]).int(), 0);
    }
    replica.pause();
    let error = master.add(&"alone").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreplicated, "{error}");
    let added = error.job().expect("the id that it was given").clone();
    assert!(error.to_string().contains("0 of 1"), "{error}");
    replica.resume();
    until("what was done stays done", || async { master.job(&added).await.unwrap().is_some() }).await;
    until("and goes on", || async { master.add(&"together").await.is_ok() }).await;
}

// Promise: epochs never go back, and after the failover each job has one owner again.
#[tokio::test(flavor = "multi_thread")]
async fn a_failover_that_loses_writes_leaves_one_owner_and_epochs_that_grow() {
    let primary = RedisServer::with(&["--repl-diskless-sync-delay", "0"]);
    let proxy = crate::support::proxy::Proxy::start(primary.port());
    let mut replica = replica_of(&primary).await;
    let builder = builder().lock_ttl(4 * TTL);
    let cluster = builder.connect_url(proxy.url()).await.unwrap();
    let master = cluster.master().await.unwrap();
    let ledger = Ledger::default();
    let first = ledger.consume(cluster.worker().await.unwrap());
    let second = ledger.consume(cluster.worker().await.unwrap());
    let kept = add_jobs(&master, 40).await;
    until("all are held", || async { ledger.held().len() == 40 }).await;
    until("the replica has them", || async {
        replica.command(&["HLEN", "{assemblage:test}:owner"]).int() == 40
    })
    .await;
    // From here on the replica hears nothing: what is done now is lost.
    replica.command(&["REPLICAOF", "NO", "ONE"]);
    let lost = add_jobs(&master, 20).await;
    until("they are held", || async { ledger.held().len() == 60 }).await;
    master.delete_many(&kept[..5]).await.unwrap();
    until("the deleted are let go of", || async { ledger.held().len() == 55 }).await;
    // The name that they connect by leads to the replica now.
    proxy.switch_to(replica.port());
    until("what was lost is given up, and what was deleted is there again", || async {
        let held = ledger.held();
        kept.iter().all(|id| held.contains(id)) && lost.iter().all(|id| !held.contains(id))
    })
    .await;
    assert_eq!(ledger.held_by(first.id()) + ledger.held_by(second.id()), 40);
    let stats = master.stats().await.unwrap();
    assert_eq!((stats.jobs, stats.pending, stats.workers), (40, 0, 2));
    // The ledger has seen every epoch: none went back.
    ledger.assert_clean();
    replica.kill();
    assert_eq!(first.closed().await, CloseReason::LockExpired);
}

/// A sentinel that looks after this primary alone, and knows its replica.
async fn sentinel_of(primary: &RedisServer) -> RedisServer {
    let sentinel = RedisServer::sentinel();
    let port = primary.port().to_string();
    for words in [
        &["SENTINEL", "MONITOR", "mail", "127.0.0.1", &port, "1"][..],
        &["SENTINEL", "SET", "mail", "down-after-milliseconds", DOWN_AFTER],
        &["SENTINEL", "SET", "mail", "failover-timeout", "5000"],
    ] {
        assert_eq!(sentinel.command(words).text_or_error(), "OK");
    }
    until("the sentinel knows the replica", || async {
        sentinel.command(&["SENTINEL", "REPLICAS", "mail"]).list().len() == 1
    })
    .await;
    sentinel
}

/// A worker's jobs and a master's calls go on after the replica has taken over; `fail` brings that about.
async fn fail_over(fail: impl FnOnce(&RedisServer, &mut RedisServer), old_one_lives: bool) {
    let mut primary = RedisServer::with(&["--repl-diskless-sync-delay", "0"]);
    let replica = replica_of(&primary).await;
    let sentinel = sentinel_of(&primary).await;
    // Locks that outlive the failover: then no job moves for it.
    let builder = builder().lock_ttl(Duration::from_secs(30)).command_timeout(Duration::from_secs(2));
    let url = format!("redis-sentinel://127.0.0.1:{}?sentinelServiceName=mail", sentinel.port());
    let cluster = builder.connect_url(url).await.expect("connects by the sentinel");
    let master = cluster.master().await.unwrap();
    let ledger = Ledger::default();
    let _first = ledger.consume(cluster.worker().await.unwrap());
    let _second = ledger.consume(cluster.worker().await.unwrap());
    let ids = add_jobs(&master, 60).await;
    until("all are held", || async { ledger.held().len() == 60 }).await;
    until("the replica has them", || async {
        replica.command(&["HLEN", "{assemblage:test}:owner"]).int() == 60
    })
    .await;
    fail(&sentinel, &mut primary);
    // A server that changes its part closes connections.
    let part = |server: &RedisServer| match server.command(&["ROLE"]) {
        Reply::Array(role) => role[0].text(),
        _ => String::new(),
    };
    until("the replica is the primary", || async { part(&replica) == "master" }).await;
    // What is written to the old one before it knows is lost with it: that is not promised.
    until("the old primary is a replica", || async { !old_one_lives || part(&primary) == "slave" }).await;
    until("the master works again", || async { master.add(&"after").await.is_ok() }).await;
    until("what is added is pushed", || async { ledger.held().len() > 60 }).await;
    until("each has its new epoch", || async { ledger.updates() >= 60 }).await;
    assert!(ids.iter().all(|id| ledger.moves(id) == 1), "no job moved");
    assert!(replica.command(&["HLEN", "{assemblage:test}:owner"]).int() > 60);
    ledger.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_is_killed_is_replaced_by_its_replica_and_no_job_moves() {
    fail_over(|_, primary| primary.kill(), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_by_command_moves_no_job() {
    fail_over(
        |sentinel, _| {
            // It has to have asked the replica how it is, which it does now and then.
            let begin = std::time::Instant::now();
            while sentinel.command(&["SENTINEL", "FAILOVER", "mail"]).text_or_error() != "OK" {
                assert!(
                    begin.elapsed() < crate::support::PATIENCE,
                    "the sentinel finds no replica to promote"
                );
                std::thread::sleep(Duration::from_millis(50));
            }
        },
        true,
    )
    .await;
}

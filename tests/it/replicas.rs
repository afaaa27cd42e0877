//! A primary with a replica: what waits for it, and what a failover that loses writes leaves of the promises.

use std::time::Duration;

use assemblage::{CloseReason, Durability, ErrorKind};

use crate::support::{Ledger, RedisServer, TTL, add_jobs, builder, until};

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
    assert!(error.to_string().contains("0 of 1"), "{error}");
    replica.resume();
    until("what was done stays done", || async { master.stats().await.unwrap().jobs == 1 }).await;
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

//! A Redis Cluster in the place of one server: all promises hold there, on the node that has the keys.

use std::collections::HashSet;
use std::time::Duration;

use assemblage::{Cluster, Deleted, Notifications};

use crate::support::cluster::RedisCluster;
use crate::support::{Ledger, Process, RedisServer, TTL, add_jobs, builder, monotonic_us, until};

/// A key of the cluster that `builder` and the child processes use.
const KEY: &str = "{assemblage:test}:meta";

/// Connects by a node that has nothing of ours.
async fn by_another_node(nodes: &RedisCluster, ttl: Duration) -> Cluster {
    let other = (nodes.owner_of(KEY) + 1) % nodes.primaries.len();
    builder().lock_ttl(ttl).connect_url(nodes.url_of(other)).await.expect("connects")
}

// "One owner" and "the stream", with what the server is said to be.
#[tokio::test(flavor = "multi_thread")]
async fn in_a_redis_cluster_jobs_are_added_shared_deleted_and_handed_over() {
    let nodes = RedisCluster::start(3).await;
    let cluster = by_another_node(&nodes, TTL).await;
    assert!(cluster.server().cluster_mode);
    assert!(matches!(cluster.server().notifications, Notifications::TurnedOn { .. }), "{}", cluster.server());
    assert!(cluster.server().warnings.is_empty(), "{}", cluster.server());

    let master = cluster.master().await.unwrap();
    let ledger = Ledger::default();
    let first = ledger.consume(cluster.worker().await.unwrap());
    let second = ledger.consume(cluster.worker().await.unwrap());
    let mut ids = add_jobs(&master, 500).await;
    until("all are held", || async { ledger.held().len() == 500 }).await;
    assert_eq!(ledger.held_by(first.id()), 250, "each has its part");

    let rest = ids.split_off(100);
    master.delete_many(&ids).await.unwrap();
    until("the deleted ones are let go of", || async { ledger.held().len() == 400 }).await;
    let deleted = master.delete_and_wait(&rest[0]).await.unwrap();
    assert!(matches!(deleted, Deleted::Releasing { .. }), "{deleted:?}");
    assert!(!ledger.held().contains(&rest[0]), "nobody has it when the wait is over");

    first.handle.terminate().await;
    until("the second has all", || async { ledger.held_by(second.id()) == 399 }).await;
    assert_eq!(master.stats().await.unwrap().jobs, 399);
    ledger.assert_clean();

    let place = nodes.owner_of(KEY);
    for (index, node) in nodes.primaries.iter().enumerate() {
        assert_eq!(node.command(&["DBSIZE"]).int() > 0, index == place, "all keys are on one node");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_redis_cluster_a_killed_worker_s_jobs_go_to_another() {
    take_over(true).await;
}

// Promise: notifications are hints.
#[tokio::test(flavor = "multi_thread")]
async fn in_a_redis_cluster_a_takeover_needs_no_notifications() {
    take_over(false).await;
}

async fn take_over(notifications: bool) {
    let nodes = RedisCluster::start(3).await;
    let cluster = by_another_node(&nodes, TTL).await;
    let master = cluster.master().await.unwrap();
    let mut first = Process::worker_at(&nodes.url_of(0), TTL);
    let ids: HashSet<String> = add_jobs(&master, 500).await.iter().map(ToString::to_string).collect();
    let (held, _) = first.wait_for_adds(500);
    let second = Process::worker_at(&nodes.url_of(1), TTL);
    if !notifications {
        for node in &nodes.primaries {
            node.command(&["CONFIG", "SET", "notify-keyspace-events", ""]);
        }
    }
    first.kill();
    let killed = monotonic_us();
    let (taken, last) = second.wait_for_adds(500);
    assert_eq!(taken.keys().cloned().collect::<HashSet<_>>(), ids, "each job, once");
    assert!(taken.iter().all(|(job, epoch)| *epoch > held[job]), "at a later epoch");
    assert!(last - killed > u64::try_from(TTL.as_micros()).unwrap() / 2, "the lock was waited for");
    assert_eq!(master.workers().await.unwrap().len(), 1);
}

/// Longer than a node is away, so that the workers last.
const LONG: Duration = Duration::from_secs(20);

// "Nothing lost" and "one owner", through the loss of the one node that matters.
#[tokio::test(flavor = "multi_thread")]
async fn the_node_that_has_the_keys_restarts_and_all_goes_on() {
    let mut nodes = RedisCluster::start(3).await;
    let cluster = by_another_node(&nodes, LONG).await;
    let master = cluster.master().await.unwrap();
    let ledger = Ledger::default();
    let _workers =
        [ledger.consume(cluster.worker().await.unwrap()), ledger.consume(cluster.worker().await.unwrap())];
    add_jobs(&master, 100).await;
    until("all are held", || async { ledger.held().len() == 100 }).await;
    let owner = nodes.owner_of(KEY);
    nodes.primaries[owner].restart(true);
    goes_on(&master, &ledger, 100).await;
}

// The same by a planned failover: the replica takes over, with all writes, and the keys are at another address.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_takes_over_the_node_that_has_the_keys_as_was_planned() {
    fail_over(|_, replica| assert_eq!(replica.command(&["CLUSTER", "FAILOVER"]).text(), "OK")).await;
}

// And by the death of the node, which is for good.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_takes_over_from_the_node_that_has_the_keys_when_that_dies() {
    fail_over(|owner, _| owner.kill()).await;
}

async fn fail_over(end: impl FnOnce(&mut RedisServer, &RedisServer)) {
    let mut nodes = RedisCluster::start(3).await;
    let owner = nodes.owner_of(KEY);
    let replica = nodes.replica_of(owner).await;
    let cluster = by_another_node(&nodes, LONG).await;
    let master = cluster.master().await.unwrap();
    let ledger = Ledger::default();
    let _workers =
        [ledger.consume(cluster.worker().await.unwrap()), ledger.consume(cluster.worker().await.unwrap())];
    add_jobs(&master, 100).await;
    until("all are held", || async { ledger.held().len() == 100 }).await;
    until("the replica has it all", || async {
        let offset = |node: &RedisServer, field: &str| {
            let info = node.command(&["INFO", "replication"]).text();
            info.lines().find_map(|line| line.strip_prefix(field)).map(str::to_owned)
        };
        offset(&nodes.primaries[owner], "master_repl_offset:") == offset(&replica, "slave_repl_offset:")
    })
    .await;
    end(&mut nodes.primaries[owner], &replica);
    until("the replica is the primary", || async {
        replica.command(&["INFO", "replication"]).text().contains("role:master")
    })
    .await;
    goes_on(&master, &ledger, 100).await;
    // The node that has lost the keys says so to nobody who knows, and may live on: all move by themselves.
    until("each listens where the keys are now", || async {
        let listeners = |channel: &str| {
            let channel = format!("{{assemblage:test}}:{channel}");
            replica.command(&["PUBSUB", "SHARDNUMSUB", &channel]).list()[1].int()
        };
        listeners("control") == 3 && listeners("released") == 1
    })
    .await;
}

/// The cluster takes commands, pushes reach the workers, and nobody has lost or doubled a job.
async fn goes_on(master: &assemblage::Master, ledger: &Ledger, before: usize) {
    let mut added = None;
    for _ in 0..100 {
        match master.add("after").await {
            Ok(id) => {
                added = Some(id);
                break;
            }
            Err(error) => assert!(error.is_retryable(), "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let added = added.expect("the cluster comes back");
    until("the new job is held", || async { ledger.held().contains(&added) }).await;
    master.delete_and_wait(&added).await.unwrap();
    assert_eq!(ledger.held().len(), before, "all the others are held");
    ledger.assert_clean();
}

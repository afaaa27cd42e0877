//! What is left behind when everybody has gone: no task, no connection, no key but the few that PROTOCOL.md tells of.

use std::time::Duration;

use assemblage::{Cluster, Master, Task};
use futures::StreamExt;

use crate::support::{Ledger, RedisServer, add_jobs, builder, cluster, until};

fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

/// The server's connections but for the one that asks.
fn connections(server: &RedisServer) -> usize {
    server.command(&["CLIENT", "LIST"]).text().lines().count() - 1
}

fn keys(server: &RedisServer) -> Vec<String> {
    let mut keys: Vec<_> = server.command(&["KEYS", "*"]).list().iter().map(|key| key.text()).collect();
    keys.sort();
    keys.iter().map(|key| key.replace("{assemblage:test}:", "")).collect()
}

/// Everything that the crate has, at work.
async fn everything(cluster: &Cluster, master: &Master) {
    let ledger = Ledger::default();
    let first = ledger.consume(cluster.worker().await.unwrap());
    let second = ledger.consume(cluster.worker().await.unwrap());
    let mirror = cluster.mirror().await.unwrap();
    let mut watch = cluster.watch().await.unwrap();
    let ids = add_jobs(master, 100).await;
    until("all are held", || async { ledger.held().len() == 100 }).await;
    assert!(watch.next().await.is_some());
    second.handle.drain().await;
    master.delete_many(&ids).await.unwrap();
    until("all are gone", || async { master.stats().await.unwrap().jobs == 0 }).await;
    first.handle.terminate().await;
    second.handle.terminate().await;
    first.closed().await;
    second.closed().await;
    drop(mirror);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_cluster_whose_members_have_gone() {
    let server = RedisServer::start();
    let before = tasks();
    {
        let cluster = cluster(&server).await;
        let master = cluster.master().await.unwrap();
        everything(&cluster, &master).await;
    }
    until("no task is left", || async { tasks() == before }).await;
    until("no connection is left", || async { connections(&server) == 0 }).await;
    // What says which cluster it is, its clock, since when its workers are what they are, and what watchers may come
    // back to.
    assert_eq!(keys(&server), ["changes", "meta", "rev", "terms", "watch"]);
    assert_eq!(server.command(&["HKEYS", "{assemblage:test}:terms"]).list().len(), 1, "when it changed last");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_what_is_dropped_wherever_it_stands() {
    let server = RedisServer::start();
    let before = tasks();
    for _ in 0..3 {
        let cluster = builder().connect_url(server.url()).await.unwrap();
        let master = cluster.master().await.unwrap();
        add_jobs(&master, 20).await;
        let mut worker = cluster.worker().await.unwrap();
        let watch = cluster.watch().await.unwrap();
        let held = worker.next().await;
        let serving = tokio::spawn(
            cluster
                .serve(|task: Task| async move {
                    task.stopped().await;
                    Ok::<_, assemblage::Error>(())
                })
                .into_future(),
        );
        tokio::time::sleep(Duration::from_millis(50)).await; // in the middle of whatever it does
        serving.abort();
        drop((cluster, master, watch, worker, held));
    }
    until("no task is left", || async { tasks() == before }).await;
    until("no connection is left", || async { connections(&server) == 0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_what_does_not_come_about() {
    let server = RedisServer::start();
    let before = tasks();
    let cluster = cluster(&server).await;
    let alone = connections(&server);
    // Dropped half way: as a select that something else wins.
    for ms in 0..20 {
        let _ = tokio::time::timeout(Duration::from_micros(ms * 150), cluster.worker()).await;
        let _ = tokio::time::timeout(Duration::from_micros(ms * 150), cluster.master()).await;
        let _ = tokio::time::timeout(Duration::from_micros(ms * 150), cluster.watch()).await;
        let _ =
            tokio::time::timeout(Duration::from_micros(ms * 150), builder().connect_url(server.url())).await;
    }
    until("no connection but the cluster's is left", || async { connections(&server) == alone }).await;
    drop(cluster);
    until("no task is left", || async { tasks() == before }).await;
    until("no connection is left", || async { connections(&server) == 0 }).await;
}

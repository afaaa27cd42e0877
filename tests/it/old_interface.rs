//! Each row of the interface of the Node module of the same name, under what it is called here.

use assemblage::fred::prelude::*;
use assemblage::{CloseReason, Cluster, DeleteReason, Event};
use futures::{FutureExt, StreamExt};

use crate::support::{RedisServer, TTL, builder, cluster, next};

#[tokio::test]
async fn create_master_and_create_worker_with_client() {
    let server = RedisServer::start();
    let client = Builder::from_config(Config::from_url(&server.url()).unwrap()).build().unwrap();
    client.init().await.unwrap();
    let pool = Builder::from_config(Config::from_url(&server.url()).unwrap()).build_pool(2).unwrap();
    pool.init().await.unwrap();
    let embedded = builder().client(client.clone()).await.unwrap();
    let pooled = builder().pool(pool.clone()).await.unwrap();
    let (master, mut worker) = (pooled.master().await.unwrap(), embedded.worker().await.unwrap());
    let id = master.add("by the pool").await.unwrap();
    let Event::Add(job) = next(&mut worker).await else { panic!("an add") };
    assert_eq!(job.id(), &id);
    drop((job, worker, master, embedded, pooled));
    // The application's own are as they were.
    assert_eq!(client.ping::<String>(None).await.unwrap(), "PONG");
    assert_eq!(pool.ping::<String>(None).await.unwrap(), "PONG");
    client.quit().await.unwrap();
    pool.quit().await.unwrap();
}

#[tokio::test]
async fn host_and_port_are_in_the_url() {
    let server = RedisServer::start();
    let cluster =
        Cluster::builder("a").connect_url(format!("redis://127.0.0.1:{}", server.port())).await.unwrap();
    assert_eq!(cluster.server().version.split('.').count(), 3);
    let socket = Cluster::builder("a").connect_url(server.unix_url()).await.unwrap();
    assert_eq!(socket.server().run_id, cluster.server().run_id);
}

#[tokio::test]
async fn prefix_separates_clusters_of_one_id() {
    let server = RedisServer::start();
    let one = builder().prefix("one").connect_url(server.url()).await.unwrap();
    let two = builder().prefix("two").connect_url(server.url()).await.unwrap();
    one.master().await.unwrap().add(&1).await.unwrap();
    assert_eq!(two.master().await.unwrap().stats().await.unwrap().jobs, 0);
    assert_eq!(server.command(&["EXISTS", "{one:test}:jobs"]).int(), 1);
}

#[tokio::test]
async fn db_is_the_database() {
    let server = RedisServer::start();
    let cluster = builder().database(3).connect_url(server.url()).await.unwrap();
    let by_url = builder().connect_url(format!("{}/3", server.url())).await.unwrap();
    let mut worker = by_url.worker().await.unwrap();
    cluster.master().await.unwrap().add(&1).await.unwrap();
    assert!(matches!(next(&mut worker).await, Event::Add(_)));
    assert_eq!(server.command(&["DBSIZE"]).int(), 0, "nothing is in database 0");
}

#[tokio::test]
async fn add_job_gives_add_at_a_worker() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let mut worker = cluster.worker().await.unwrap();
    let id = cluster.master().await.unwrap().add(&42).await.unwrap();
    let Event::Add(job) = next(&mut worker).await else { panic!("an add") };
    assert_eq!((job.id(), job.payload::<i32>().unwrap()), (&id, 42));
}

#[tokio::test]
async fn delete_job_gives_delete_once_on_the_job() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let (master, mut worker) = (cluster.master().await.unwrap(), cluster.worker().await.unwrap());
    let id = master.add(&42).await.unwrap();
    let Event::Add(job) = next(&mut worker).await else { panic!("an add") };
    assert!(job.deleted().now_or_never().is_none());
    master.delete(&id).await.unwrap();
    master.delete(&id).await.unwrap();
    job.deleted().await;
    assert!(matches!(next(&mut worker).await, Event::Delete(_)));
    let last = master.add(&43).await.unwrap();
    let Event::Add(job) = next(&mut worker).await else { panic!("no second Delete") };
    assert_eq!(job.id(), &last);
}

#[tokio::test]
async fn job_delete_job_queues_the_deletion() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let mut worker = cluster.worker().await.unwrap();
    cluster.master().await.unwrap().add(&42).await.unwrap();
    let Event::Add(job) = next(&mut worker).await else { panic!("an add") };
    assert!(job.delete().await.unwrap());
    let Event::Delete(deletion) = next(&mut worker).await else { panic!("a delete") };
    assert_eq!(deletion.reason(), DeleteReason::Removed);
}

#[tokio::test]
async fn terminate_gives_a_delete_for_every_job_and_then_close() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let (master, mut worker) = (cluster.master().await.unwrap(), cluster.worker().await.unwrap());
    let ids = master.add_many(&[1, 2, 3]).await.unwrap();
    for _ in &ids {
        assert!(matches!(next(&mut worker).await, Event::Add(_)));
    }
    drop(worker.terminate());
    for _ in &ids {
        let Event::Delete(deletion) = next(&mut worker).await else { panic!("a delete") };
        assert_eq!(deletion.reason(), DeleteReason::Terminated);
    }
    assert!(matches!(next(&mut worker).await, Event::Close(CloseReason::Terminated)));
    assert!(worker.next().await.is_none());
    assert_eq!(master.stats().await.unwrap().pending, 3, "released to others");
}

#[tokio::test]
async fn close_comes_when_the_lock_has_expired() {
    let mut server = RedisServer::start();
    let cluster = cluster(&server).await;
    let mut worker = cluster.worker().await.unwrap();
    cluster.master().await.unwrap().add(&1).await.unwrap();
    assert!(matches!(next(&mut worker).await, Event::Add(_)));
    server.kill();
    let mut events = Vec::new();
    while let Some(event) = worker.next().await {
        events.push(event);
    }
    let [.., Event::Delete(deletion), Event::Close(CloseReason::LockExpired)] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(deletion.reason(), DeleteReason::LockExpired);
}

#[tokio::test]
async fn error_is_an_event_and_the_stream_goes_on() {
    let server = RedisServer::start();
    let cluster = builder().lock_ttl(10 * TTL).connect_url(server.url()).await.unwrap();
    let mut worker = cluster.worker().await.unwrap();
    let inbox = format!("{{assemblage:test}}:inbox:{}", worker.id());
    assert_eq!(server.command(&["SPUBLISH", &inbox, "garbage"]).int(), 1);
    assert!(matches!(next(&mut worker).await, Event::Error(_)));
    cluster.master().await.unwrap().add(&1).await.unwrap();
    assert!(matches!(next(&mut worker).await, Event::Add(_)));
}

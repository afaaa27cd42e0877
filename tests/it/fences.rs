//! `Fence::Strict` and `Fence::Lenient`: what each does when the worker cannot be sure of its lock.

use std::time::{Duration, Instant};

use assemblage::{CloseReason, DeleteReason, Event, Fence, Task, WorkerOptions};

use crate::support::{Ledger, Process, RedisServer, Report, add_jobs, builder, next, until};

const TTL: Duration = Duration::from_millis(1_000);

fn lenient() -> WorkerOptions {
    WorkerOptions::default().fence(Fence::Lenient)
}

/// A server that is away for ten TTLs, and then there again with all that it knew.
async fn be_away(server: &RedisServer) {
    server.pause();
    tokio::time::sleep(10 * TTL).await;
    server.resume();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_for_ten_ttls_stops_every_strict_worker() {
    let server = RedisServer::start();
    let cluster = builder().lock_ttl(TTL).connect_url(server.url()).await.unwrap();
    let master = cluster.master().await.unwrap();
    let ledger = Ledger::default();
    let first = ledger.consume(cluster.worker().await.unwrap());
    let second = ledger.consume(cluster.worker().await.unwrap());
    add_jobs(&master, 50).await;
    until("all are held", || async { ledger.held().len() == 50 }).await;
    be_away(&server).await;
    assert!(ledger.held().is_empty(), "they stopped before anybody could take their jobs");
    assert_eq!(first.closed().await, CloseReason::LockExpired);
    assert_eq!(second.closed().await, CloseReason::LockExpired);
    // The jobs wait for whoever comes.
    let _next = ledger.consume(cluster.worker().await.unwrap());
    until("all are held again", || async { ledger.held().len() == 50 }).await;
    ledger.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_for_ten_ttls_stops_no_lenient_worker_and_moves_no_job() {
    let server = RedisServer::start();
    let cluster = builder().lock_ttl(TTL).connect_url(server.url()).await.unwrap();
    let master = cluster.master().await.unwrap();
    let ledger = Ledger::default();
    let first = ledger.consume(cluster.worker_with(lenient()).await.unwrap());
    let second = ledger.consume(cluster.worker_with(lenient()).await.unwrap());
    let ids = add_jobs(&master, 50).await;
    until("all are held", || async { ledger.held().len() == 50 }).await;
    be_away(&server).await;
    // An add that comes after whatever the pause brought about.
    until("the server is there", || async { master.add(&"after").await.is_ok() }).await;
    tokio::time::sleep(2 * TTL).await;
    assert!(ids.iter().all(|id| ledger.moves(id) == 1 && ledger.held().contains(id)), "each is where it was");
    assert_eq!(ledger.held_by(first.id()) + ledger.held_by(second.id()), ledger.held().len());
    assert_eq!(master.stats().await.unwrap().workers, 2);
    ledger.assert_clean();
}

// A lenient worker that stops alone is no different: others take its jobs, and it is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_lenient_worker_whose_jobs_were_given_to_others_gives_them_up_when_it_hears_of_it() {
    let server = RedisServer::start();
    let cluster = builder().lock_ttl(TTL).connect_url(server.url()).await.unwrap();
    let master = cluster.master().await.unwrap();
    let first = Process::start("worker fence=lenient", &server, TTL);
    add_jobs(&master, 10).await;
    let (held, _) = first.wait_for_adds(10);
    let second = Process::start("worker fence=lenient", &server, TTL);
    first.signal(nix::sys::signal::Signal::SIGSTOP);
    let (taken, _) = second.wait_for_adds(10);
    assert!(taken.iter().all(|(job, epoch)| *epoch > held[job]), "a store can refuse the first one's writes");
    first.signal(nix::sys::signal::Signal::SIGCONT);
    let mut deleted = 0;
    loop {
        match first.next() {
            Some(Report::Delete { .. }) => deleted += 1,
            Some(Report::Close { reason, .. }) => break assert_eq!(reason, "LockExpired"),
            other => panic!("only Deletes before Close: {other:?}"),
        }
    }
    assert_eq!(deleted, 10);
}

/// How long after a call a lenient worker may take to leave without the server where nothing is held: one TTL, a second to
/// part, and what a busy machine adds. Far from for ever, and far from the release timeout of these tests.
const LEAVES_WITHIN: Duration = Duration::from_secs(5);

// Promise: nothing waits without bound. Who gives up everything does not wait for a server that has gone for good.
#[tokio::test(flavor = "multi_thread")]
async fn a_lenient_worker_that_is_terminated_leaves_although_the_server_is_gone() {
    let mut server = RedisServer::start();
    let cluster = builder().lock_ttl(TTL).connect_url(server.url()).await.unwrap();
    let master = cluster.master().await.unwrap();
    let ledger = Ledger::default();
    let worker = ledger.consume(cluster.worker_with(lenient()).await.unwrap());
    add_jobs(&master, 50).await;
    until("all are held", || async { ledger.held().len() == 50 }).await;
    server.kill();
    tokio::time::sleep(3 * TTL).await;
    assert_eq!(ledger.held().len(), 50, "it goes on until it is told to leave");
    let left = worker.handle.terminate();
    tokio::time::timeout(LEAVES_WITHIN, left).await.expect("terminate resolves");
    assert_eq!(worker.closed().await, CloseReason::LockExpired);
    assert!(ledger.held().is_empty());
    ledger.assert_clean();
}

// The same for a server that is silent, at once; when it is back, the jobs go to others by the lock that has ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_lenient_worker_that_is_terminated_leaves_although_the_server_hangs() {
    let server = RedisServer::start();
    let cluster = builder().lock_ttl(TTL).connect_url(server.url()).await.unwrap();
    let master = cluster.master().await.unwrap();
    let ledger = Ledger::default();
    let first = ledger.consume(cluster.worker_with(lenient()).await.unwrap());
    add_jobs(&master, 50).await;
    until("all are held", || async { ledger.held().len() == 50 }).await;
    let second = ledger.consume(cluster.worker_with(lenient()).await.unwrap());
    server.pause();
    let left = first.handle.terminate();
    tokio::time::timeout(LEAVES_WITHIN, left).await.expect("terminate resolves");
    assert_eq!(first.closed().await, CloseReason::LockExpired);
    assert!(!second.is_closed(), "who was not told to leave goes on");
    server.resume();
    until("the other one has them", || async { ledger.held_by(second.id()) == 50 }).await;
    ledger.assert_clean();
}

// Promise: one owner. What is held is not left behind: the handles have the release timeout, and no longer.
#[tokio::test(flavor = "multi_thread")]
async fn a_lenient_worker_that_leaves_without_the_server_waits_for_its_handles_up_to_the_release_timeout() {
    let server = RedisServer::start();
    let release_timeout = 3 * TTL;
    let cluster =
        builder().lock_ttl(TTL).release_timeout(release_timeout).connect_url(server.url()).await.unwrap();
    let master = cluster.master().await.unwrap();
    let mut worker = cluster.worker_with(lenient()).await.unwrap();
    add_jobs(&master, 1).await;
    let Event::Add(job) = next(&mut worker).await else { panic!("an add") };
    server.pause();
    let told = Instant::now();
    let left = tokio::spawn(worker.terminate());
    let (mut deleted, mut reason) = (None, None);
    while reason.is_none() {
        match next(&mut worker).await {
            Event::Delete(deletion) => deleted = Some(deletion.reason()),
            Event::Close(why) => reason = Some(why),
            _ => {}
        }
    }
    assert!(told.elapsed() >= release_timeout, "a handle was out");
    assert_eq!((deleted, reason), (Some(DeleteReason::Terminated), Some(CloseReason::LockExpired)));
    tokio::time::timeout(LEAVES_WITHIN, left).await.expect("terminate resolves").unwrap();
    assert!(told.elapsed() < release_timeout + LEAVES_WITHIN);
    drop(job);
}

// Promise: nothing is left behind of a worker that is dropped.
#[tokio::test]
async fn a_lenient_worker_that_is_dropped_ends_although_the_server_is_gone() {
    let mut server = RedisServer::start();
    let cluster = builder().lock_ttl(TTL).connect_url(server.url()).await.unwrap();
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let worker = cluster.worker_with(lenient()).await.unwrap();
    assert!(tasks() > before);
    server.kill();
    drop(worker);
    let told = Instant::now();
    until("its tasks have ended", || async { tasks() <= before }).await;
    assert!(told.elapsed() < LEAVES_WITHIN);
}

// Promise: a process that is told to end does. The handlers have stopped long before.
#[tokio::test(flavor = "multi_thread")]
async fn a_graceful_shutdown_of_a_lenient_worker_ends_although_the_server_is_gone() {
    let mut server = RedisServer::start();
    let cluster = builder().lock_ttl(TTL).connect_url(server.url()).await.unwrap();
    let master = cluster.master().await.unwrap();
    let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
    let (shut_down, shutdown) = tokio::sync::oneshot::channel::<()>();
    let handler = move |task: Task| {
        begun.send(()).unwrap();
        async move {
            task.stopped().await;
            Ok::<_, assemblage::Error>(())
        }
    };
    let worker = cluster.worker_with(lenient()).await.unwrap();
    let serving = tokio::spawn(worker.serve(handler).with_graceful_shutdown(shutdown).into_future());
    add_jobs(&master, 1).await;
    begins.recv().await.unwrap();
    server.kill();
    drop(shut_down);
    tokio::time::timeout(LEAVES_WITHIN, serving).await.expect("it ends").unwrap().unwrap();
}

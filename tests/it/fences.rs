//! `Fence::Strict` and `Fence::Lenient`: what each does when the worker cannot be sure of its lock.

use std::time::Duration;

use assemblage::{CloseReason, Fence, WorkerOptions};

use crate::support::{Ledger, Process, RedisServer, Report, add_jobs, builder, until};

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

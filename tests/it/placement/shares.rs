//! Capacity, weight, rebalancing, a rate of takeover, limits.

use std::time::{Duration, Instant};

use assemblage::{AddOptions, ErrorKind, Event, JobId, Rebalance, WorkerOptions};

use crate::support::{Ledger, Process, RedisServer, TTL, add_jobs, builder, cluster, next, until};

/// As fast as it goes: nothing is waited for, and all that is too much moves at once.
fn at_once() -> Rebalance {
    Rebalance::default().share(1.0).delay(Duration::ZERO)
}

/// Some heartbeats, in which whatever wants to move would.
async fn some_heartbeats() {
    tokio::time::sleep(2 * TTL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_worker_gets_nothing_and_the_oldest_waiting_job_goes_out_when_room_appears() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let master = cluster.master().await.unwrap();
    let mut worker = cluster.worker_with(WorkerOptions::default().capacity(3)).await.unwrap();
    let ids = add_jobs(&master, 6).await;
    let mut held = Vec::new();
    for id in &ids[..3] {
        let Event::Add(job) = next(&mut worker).await else { panic!("an add") };
        assert_eq!(job.id(), id);
        held.push(job);
    }
    assert_eq!(master.stats().await.unwrap().pending, 3);
    // A release makes room.
    master.delete(&ids[0]).await.unwrap();
    let Event::Delete(deletion) = next(&mut worker).await else { panic!("a delete") };
    assert_eq!(master.stats().await.unwrap().pending, 3, "as long as it is held, there is no room");
    held.remove(0);
    drop(deletion);
    let Event::Add(job) = next(&mut worker).await else { panic!("an add") };
    assert_eq!(job.id(), &ids[3], "the oldest");
    held.push(job);
    // So does a larger capacity, and a join.
    worker.set_capacity(Some(4)).unwrap();
    let Event::Add(job) = next(&mut worker).await else { panic!("an add") };
    assert_eq!(job.id(), &ids[4]);
    held.push(job);
    let mut other = cluster.worker_with(WorkerOptions::default().capacity(3)).await.unwrap();
    let Event::Add(job) = next(&mut other).await else { panic!("an add") };
    assert_eq!(job.id(), &ids[5]);
    let workers = master.workers().await.unwrap();
    assert_eq!(
        workers.iter().map(|w| (w.jobs, w.capacity)).collect::<Vec<_>>(),
        [(4, Some(4)), (1, Some(3))]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_given_more_than_it_can_hold_when_a_full_worker_is_killed() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let master = cluster.master().await.unwrap();
    let mut first = Process::start("worker capacity=40", &server, TTL);
    let second = Process::start("worker capacity=50", &server, TTL);
    let ids = add_jobs(&master, 80).await;
    let held = first.wait_for_adds(40).0;
    second.wait_for_adds(40);
    first.kill();
    second.wait_for_adds(10);
    until("the rest waits", || async { master.stats().await.unwrap().pending == 30 }).await;
    // What was the first one's is what waits; what the second has, stays.
    let third = Process::start("worker", &server, TTL);
    let (taken, _) = third.wait_for_adds(30);
    assert!(taken.keys().all(|job| held.contains_key(job)), "{} of {}", taken.len(), ids.len());
    assert_eq!(master.stats().await.unwrap().pending, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_shared_by_weight() {
    let server = RedisServer::start();
    let cluster = builder().rebalance(at_once()).connect_url(server.url()).await.unwrap();
    let master = cluster.master().await.unwrap();
    let ledger = Ledger::default();
    let strong = ledger.consume(cluster.worker_with(WorkerOptions::default().weight(3)).await.unwrap());
    let weak = ledger.consume(cluster.worker().await.unwrap());
    add_jobs(&master, 400).await;
    until("all are held", || async { ledger.held().len() == 400 }).await;
    assert_eq!((ledger.held_by(strong.id()), ledger.held_by(weak.id())), (300, 100));
    // It may change while they run.
    weak.handle.set_weight(5).unwrap();
    until("it has what is due to it", || async {
        (230..=250).contains(&ledger.held_by(weak.id())) && ledger.held().len() == 400
    })
    .await;
    ledger.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_joins_gets_its_share_and_then_nothing_moves_any_more() {
    let server = RedisServer::start();
    let rebalance = Rebalance::default().share(0.5).delay(Duration::ZERO);
    let cluster = builder().rebalance(rebalance).connect_url(server.url()).await.unwrap();
    let master = cluster.master().await.unwrap();
    let ledger = Ledger::default();
    let first = ledger.consume(cluster.worker().await.unwrap());
    let ids = add_jobs(&master, 300).await;
    until("all are held", || async { ledger.held().len() == 300 }).await;
    let second = ledger.consume(cluster.worker().await.unwrap());
    let third = ledger.consume(cluster.worker().await.unwrap());
    // Within the hysteresis: no two differ by a twentieth of a fair share of 100.
    let even = || {
        let shares = [&first, &second, &third].map(|consumer| ledger.held_by(consumer.id()));
        let spread = shares.iter().max().unwrap() - shares.iter().min().unwrap();
        shares.iter().sum::<usize>() == 300 && spread < 5
    };
    until("the shares are even", || async { even() }).await;
    let moves: Vec<_> = ids.iter().map(|id| ledger.moves(id)).collect();
    some_heartbeats().await;
    assert!(ids.iter().zip(&moves).all(|(id, before)| ledger.moves(id) == *before), "it stands still");
    let moved: usize = moves.iter().map(|moves| moves - 1).sum();
    assert!((190..=215).contains(&moved), "{moved} moves for 200 that had to");
    ledger.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_rebalancing_a_job_stays_where_it_is() {
    let server = RedisServer::start();
    let cluster = builder().rebalance(None).connect_url(server.url()).await.unwrap();
    let master = cluster.master().await.unwrap();
    let ledger = Ledger::default();
    let first = ledger.consume(cluster.worker().await.unwrap());
    add_jobs(&master, 100).await;
    until("all are held", || async { ledger.held().len() == 100 }).await;
    let _second = ledger.consume(cluster.worker().await.unwrap());
    some_heartbeats().await;
    assert_eq!(ledger.held_by(first.id()), 100);
}

// Promise: one owner. The mover waits for the handle, however long that takes.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_to_move_stays_as_long_as_a_handle_is_out() {
    let server = RedisServer::start();
    let cluster = builder().rebalance(at_once()).connect_url(server.url()).await.unwrap();
    let master = cluster.master().await.unwrap();
    let mut first = cluster.worker().await.unwrap();
    add_jobs(&master, 2).await;
    let (Event::Add(one), Event::Add(two)) = (next(&mut first).await, next(&mut first).await) else {
        panic!("two adds")
    };
    let mut second = cluster.worker().await.unwrap();
    let Event::Delete(deletion) = next(&mut first).await else { panic!("a delete") };
    assert_eq!(deletion.reason(), assemblage::DeleteReason::Rebalanced);
    let moving = deletion.id().clone();
    drop(deletion);
    assert!(tokio::time::timeout(TTL, futures::StreamExt::next(&mut second)).await.is_err(), "it is held");
    let (moved, _stays) = if one.id() == &moving { (one, two) } else { (two, one) };
    let epoch = moved.epoch();
    drop(moved);
    let Event::Add(job) = next(&mut second).await else { panic!("an add") };
    assert!(job.id() == &moving && job.epoch() > epoch);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_smaller_capacity_gives_away_what_is_above_it() {
    let server = RedisServer::start();
    let cluster = builder().connect_url(server.url()).await.unwrap();
    let master = cluster.master().await.unwrap();
    let ledger = Ledger::default();
    let first = ledger.consume(cluster.worker().await.unwrap());
    add_jobs(&master, 50).await;
    until("all are held", || async { ledger.held().len() == 50 }).await;
    let second = ledger.consume(cluster.worker().await.unwrap());
    first.handle.set_capacity(Some(20)).unwrap();
    until("it holds no more", || async {
        ledger.held_by(first.id()) == 20 && ledger.held_by(second.id()) == 30
    })
    .await;
    ledger.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_goes_at_the_rate_that_the_others_take() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let master = cluster.master().await.unwrap();
    let mut first = Process::start("worker", &server, TTL);
    add_jobs(&master, 200).await;
    first.wait_for_adds(200);
    let second = Process::start("worker rate=100", &server, TTL);
    first.kill();
    second.wait_for_adds(1);
    let begin = Instant::now();
    until("the rest waits, and is seen", || async { master.stats().await.unwrap().pending > 0 }).await;
    second.wait_for_adds(199);
    // 200 at 100 a second, a tenth of a second's at once.
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(1_500), "{took:?}");
    assert_eq!(master.stats().await.unwrap().pending, 0);
    // What a master adds is not held back.
    let begin = Instant::now();
    add_jobs(&master, 300).await;
    second.wait_for_adds(300);
    assert!(begin.elapsed() < Duration::from_millis(2_500), "{:?}", begin.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_above_a_limit_is_refused_with_what_to_do() {
    let server = RedisServer::start();
    let cluster = builder().max_jobs(3).max_workers(2).connect_url(server.url()).await.unwrap();
    let master = cluster.master().await.unwrap();
    let id = JobId::new("mine").unwrap();
    let mine = || AddOptions::default().id(id.clone());
    assert!(master.add_with(&1, mine()).await.unwrap().is_new());
    let error = master.add_many(&[1, 2, 3]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitReached, "{error}");
    assert!(error.to_string().contains("max_jobs"), "{error}");
    assert_eq!(master.stats().await.unwrap().jobs, 1, "a batch is all or nothing");
    add_jobs(&master, 2).await;
    assert_eq!(master.add(&1).await.unwrap_err().kind(), ErrorKind::LimitReached);
    assert!(!master.add_with(&1, mine()).await.unwrap().is_new(), "what is there is there, at the limit too");
    let (_first, _second) = (cluster.worker().await.unwrap(), cluster.worker().await.unwrap());
    let error = cluster.worker().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitReached, "{error}");
    assert!(error.to_string().contains("max_workers"), "{error}");
}

//! Drains, evictions, rolling restarts.

use std::time::{Duration, Instant};

use assemblage::{CloseReason, DeleteReason, Event, Rebalance};

use crate::support::{Ledger, PATIENCE, RedisServer, add_jobs, builder, cluster, next, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_worker_gives_up_its_jobs_stays_and_goes_on_when_it_is_resumed() {
    let server = RedisServer::start();
    let cluster = builder().rebalance(None).connect_url(server.url()).await.unwrap();
    let master = cluster.master().await.unwrap();
    let ledger = Ledger::default();
    let first = ledger.consume(cluster.worker().await.unwrap());
    let second = ledger.consume(cluster.worker().await.unwrap());
    let ids = add_jobs(&master, 100).await;
    until("all are held", || async { ledger.held().len() == 100 }).await;
    tokio::time::timeout(PATIENCE, first.handle.drain()).await.expect("it is drained");
    until("the other has all", || async { ledger.held_by(second.id()) == 100 }).await;
    assert!(ids.iter().all(|id| ledger.moves(id) <= 2), "each moved once at most");
    let more = add_jobs(&master, 10).await;
    until("the other has them", || async { ledger.held_by(second.id()) == 110 }).await;
    let workers = master.workers().await.unwrap();
    assert_eq!(workers.iter().filter(|worker| worker.accepts_jobs).count(), 1);
    // Twice is as good as once.
    tokio::time::timeout(PATIENCE, first.handle.drain()).await.expect("it is drained already");
    first.handle.resume();
    until("it takes part again", || async {
        master.workers().await.unwrap().iter().all(|worker| worker.accepts_jobs)
    })
    .await;
    add_jobs(&master, 30).await;
    until("it has the new ones: it holds the least", || async { ledger.held_by(first.id()) == 30 }).await;
    assert!(more.iter().all(|id| ledger.moves(id) == 1));
    ledger.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_waits_for_the_handles_and_may_be_called_off() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let master = cluster.master().await.unwrap();
    let mut worker = cluster.worker().await.unwrap();
    let id = master.add(&1).await.unwrap();
    let Event::Add(job) = next(&mut worker).await else { panic!("an add") };
    let drained = tokio::spawn(worker.drain());
    let Event::Delete(deletion) = next(&mut worker).await else { panic!("a delete") };
    assert_eq!(deletion.reason(), DeleteReason::Drained);
    assert!(!drained.is_finished(), "a handle is out");
    worker.resume();
    tokio::time::timeout(PATIENCE, drained).await.expect("called off").unwrap();
    until("it takes jobs again", || async { master.workers().await.unwrap()[0].accepts_jobs }).await;
    // What was on its way out still goes, and comes back as there is nobody else.
    let epoch = job.epoch();
    drop((job, deletion));
    let Event::Add(job) = next(&mut worker).await else { panic!("an add") };
    assert!(job.id() == &id && job.epoch() > epoch);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_drains_resumes_and_evicts_a_worker_by_its_number() {
    let server = RedisServer::start();
    // Long heartbeats: what is fast was pushed.
    let cluster =
        builder().lock_ttl(Duration::from_secs(120)).rebalance(None).connect_url(server.url()).await.unwrap();
    let master = cluster.master().await.unwrap();
    let ledger = Ledger::default();
    let first = ledger.consume(cluster.worker().await.unwrap());
    let second = ledger.consume(cluster.worker().await.unwrap());
    add_jobs(&master, 100).await;
    until("all are held", || async { ledger.held().len() == 100 }).await;
    let number = first.id();
    assert!(master.drain(number).await.unwrap());
    until("the other has all", || async { ledger.held_by(second.id()) == 100 }).await;
    let drained = |yes| {
        let master = master.clone();
        async move {
            let workers = master.workers().await.unwrap();
            workers
                .iter()
                .any(|worker| worker.id == number && worker.drained == yes && worker.accepts_jobs != yes)
        }
    };
    until("that is seen", || drained(true)).await;
    assert!(master.resume(number).await.unwrap());
    until("that too", || drained(false)).await;
    add_jobs(&master, 20).await;
    until("it has the new ones", || async { ledger.held_by(number) == 20 }).await;
    assert!(master.evict(number).await.unwrap());
    assert_eq!(first.closed().await, CloseReason::Evicted);
    until("the other has all", || async { ledger.held_by(second.id()) == 120 }).await;
    assert!(!master.evict(number).await.unwrap() && !master.drain(number).await.unwrap(), "there is none");
    ledger.assert_clean();
}

// Each worker in turn is drained, goes, and is replaced, as a deployment does it.
#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_moves_each_job_twice_at_most_and_leaves_none_without_an_owner() {
    let server = RedisServer::start();
    // Long heartbeats: what is left to one, or to the end of a lock, stays without an owner for longer than anybody waits
    // here.
    let cluster = builder()
        .lock_ttl(Duration::from_secs(120))
        .rebalance(Rebalance::default())
        .connect_url(server.url())
        .await
        .unwrap();
    let master = cluster.master().await.unwrap();
    let ledger = Ledger::default();
    let mut workers = Vec::new();
    for _ in 0..5 {
        workers.push(ledger.consume(cluster.worker().await.unwrap()));
    }
    let ids = add_jobs(&master, 10_000).await;
    until("all are held", || async { ledger.held().len() == 10_000 }).await;
    let begin = Instant::now();
    for old in workers {
        tokio::time::timeout(PATIENCE, old.handle.drain()).await.expect("drained");
        tokio::time::timeout(PATIENCE, old.handle.terminate()).await.expect("gone");
        let new = ledger.consume(cluster.worker().await.unwrap());
        drop(new.handle);
    }
    until("all are held", || async { ledger.held().len() == 10_000 }).await;
    let moves: Vec<usize> = ids.iter().map(|id| ledger.moves(id) - 1).collect();
    let most = moves.iter().max().copied().unwrap_or(0);
    println!(
        "{} moves of 10,000 jobs in {:?}, at most {most} of one; without an owner for {:?} at most",
        moves.iter().sum::<usize>(),
        begin.elapsed(),
        ledger.longest_gap(),
    );
    assert!(most <= 2, "a job moved {most} times");
    // Handlers clean up at once here: some 0.3 s, for so many at once. The margin is for a machine that stalls.
    assert!(ledger.longest_gap() < Duration::from_secs(10), "{:?}", ledger.longest_gap());
    ledger.assert_clean();
}

//! A job that kills every worker that takes it.

use std::collections::HashSet;
use std::time::Instant;

use assemblage::JobState;

use crate::support::{PATIENCE, Process, RedisServer, TTL, add_jobs, cluster, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_aborts_its_workers_is_set_aside_and_the_innocent_go_on() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let master = cluster.master().await.unwrap();
    let mut workers: Vec<_> = (0..8).map(|_| Process::start("worker", &server, TTL)).collect();
    let innocent = add_jobs(&master, 1_000).await;
    let poison = master.add(&"abort").await.unwrap();
    until("it is set aside", || async {
        master.job(&poison).await.unwrap().unwrap().state() == JobState::Quarantined
    })
    .await;
    let stats = master.stats().await.unwrap();
    assert_eq!((stats.quarantined, stats.jobs), (1, 1_001), "it, and nothing else");
    let stored = master.job(&poison).await.unwrap().unwrap();
    assert!((3..=5).contains(&stored.crashes()), "after {} crashes", stored.crashes());
    let victims: HashSet<_> = stored.crash_history().iter().map(|crash| crash.worker).collect();
    assert_eq!(victims.len() as u32, stored.crashes(), "each of them another worker's");
    // Whoever is left holds all the others.
    let begin = Instant::now();
    until("all are held again", || async {
        let workers = master.workers().await.unwrap();
        let held: u64 = workers.iter().map(|worker| worker.jobs).sum();
        workers.len() == 8 - victims.len() && held == 1_000
    })
    .await;
    assert!(begin.elapsed() < PATIENCE);
    for id in &innocent {
        let state = master.job(id).await.unwrap().unwrap().state();
        assert!(matches!(state, JobState::Assigned { .. }), "{id} is {state:?}");
    }

    // Another chance: the worker that takes it is killed too, but nobody after that.
    let left = workers.iter_mut().filter_map(|worker| worker.is_alive().then_some(worker)).count();
    assert!(master.requeue(&poison).await.unwrap());
    assert!(!master.requeue(&poison).await.unwrap(), "it is not there any more");
    until("it kills one more", || async { master.workers().await.unwrap().len() < left }).await;
    master.delete(&poison).await.unwrap();
}

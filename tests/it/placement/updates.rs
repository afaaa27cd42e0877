//! `master.update`: the owner gets the new payload, and so does whoever holds the job later.

use assemblage::{AddOptions, Event, JobId, Updated};

use crate::support::{Ledger, PATIENCE, RedisServer, add_jobs, cluster, next, until};

#[tokio::test]
async fn the_owner_gets_the_new_payload_at_the_same_epoch() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let master = cluster.master().await.unwrap();
    let mut worker = cluster.worker().await.unwrap();
    let id = master.add(&"one").await.unwrap();
    let Event::Add(job) = next(&mut worker).await else { panic!("an add") };
    assert_eq!(master.update(&id, &"two").await.unwrap(), Updated::Pushed);
    let Event::Update(newer) = next(&mut worker).await else { panic!("an update") };
    assert_eq!(newer.payload::<&str>().unwrap(), "two");
    assert_eq!(job.payload::<&str>().unwrap(), "one", "a handle has what it was given with");
    assert_eq!((newer.id(), newer.epoch()), (job.id(), job.epoch()));
    // Both are handles of one hold.
    master.delete(&id).await.unwrap();
    let Event::Delete(deletion) = next(&mut worker).await else { panic!("a delete") };
    drop((newer, deletion));
    assert!(master.job(&id).await.unwrap().is_some(), "still held");
    drop(job);
    until("it is gone", || async { master.job(&id).await.unwrap().is_none() }).await;
    assert_eq!(master.update(&id, &"three").await.unwrap(), Updated::Unknown);
}

#[tokio::test]
async fn a_consumer_that_is_slow_sees_the_last_of_many_updates() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let master = cluster.master().await.unwrap();
    let mut worker = cluster.worker().await.unwrap();
    let id = master.add(&0).await.unwrap();
    let Event::Add(_job) = next(&mut worker).await else { panic!("an add") };
    let mark = master.add(&"mark").await.unwrap();
    let Event::Add(marked) = next(&mut worker).await else { panic!("an add") };
    for number in 1..=100 {
        master.update(&id, &number).await.unwrap();
    }
    let last = master.add(&"last").await.unwrap();
    until("the last is there", || async {
        matches!(master.job(&last).await.unwrap().unwrap().state(), assemblage::JobState::Assigned { .. })
    })
    .await;
    // What comes after them on the same inbox, and is known without a poll, tells that all of them are there.
    master.delete(&mark).await.unwrap();
    tokio::time::timeout(PATIENCE, marked.deleted()).await.expect("it comes");
    let Event::Update(job) = next(&mut worker).await else { panic!("an update") };
    assert_eq!(job.payload::<i32>().unwrap(), 100);
    let Event::Add(job) = next(&mut worker).await else { panic!("one update only") };
    assert_eq!(job.id(), &last);
}

#[tokio::test]
async fn a_job_that_waits_is_given_out_with_its_newest_payload() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let master = cluster.master().await.unwrap();
    let id = JobId::new("waits").unwrap();
    let _ = master.add_with(&1, AddOptions::default().id(id.clone())).await.unwrap();
    assert_eq!(master.update(&id, &2).await.unwrap(), Updated::Stored);
    let mut worker = cluster.worker().await.unwrap();
    let Event::Add(job) = next(&mut worker).await else { panic!("an add") };
    assert_eq!(job.payload::<i32>().unwrap(), 2);
}

// Promise: notifications are hints.
#[tokio::test(flavor = "multi_thread")]
async fn updates_come_however_often_the_subscription_is_killed() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let master = cluster.master().await.unwrap();
    let ledger = Ledger::default();
    let _worker = ledger.consume(cluster.worker().await.unwrap());
    let ids = add_jobs(&master, 20).await;
    until("all are held", || async { ledger.held().len() == 20 }).await;
    for round in 0..10 {
        server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        for id in &ids {
            master.update(id, &format!("round {round}")).await.unwrap();
        }
    }
    until("all have the last", || async { ids.iter().all(|id| ledger.payload(id) == "round 9") }).await;
    assert!(ids.iter().all(|id| ledger.moves(id) == 1), "no job moved");
    ledger.assert_clean();
}

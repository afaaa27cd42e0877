//! Release by drop: a job goes on, or is gone, when its last handle is dropped, and not before.

use std::time::Duration;

use assemblage::{AddOptions, Added, CloseReason, DeleteReason, Deleted, ErrorKind, Event, JobId, JobState};
use futures::{FutureExt, StreamExt};

use crate::support::{Ledger, PATIENCE, RedisServer, add_jobs, builder, cluster, next, until};

// Promise: one owner. The next owner must wait while the job is still held.
#[tokio::test]
async fn a_job_that_is_deleted_and_added_again_waits_for_its_last_owner() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let master = cluster.master().await.unwrap();
    let mut first = cluster.worker().await.unwrap();
    let id = JobId::new("mailbox").unwrap();
    let options = AddOptions::default().id(id.clone());
    assert_eq!(master.add_with(&1, options.clone()).await.unwrap(), Added::New(id.clone()));
    let Event::Add(job) = next(&mut first).await else { panic!("an add") };
    let mut second = cluster.worker().await.unwrap();

    assert!(matches!(master.delete(&id).await.unwrap(), Deleted::Releasing { .. }));
    assert_eq!(master.add_with(&2, options.clone()).await.unwrap(), Added::New(id.clone()));
    assert_eq!(master.add_with(&3, options).await.unwrap(), Added::Existing(id.clone()));
    let Event::Delete(deletion) = next(&mut first).await else { panic!("a delete") };
    job.deleted().now_or_never().expect("the job's own listeners know too");
    assert!(matches!(master.job(&id).await.unwrap().unwrap().state(), JobState::Releasing { .. }));
    // One handle after the other: the job is held to the last.
    let clone = job.clone();
    drop(job);
    drop(deletion);
    assert!(next_within(&mut second, 100).await.is_none() && next_within(&mut first, 1).await.is_none());
    drop(clone);
    // The first or the second, both are free now.
    let Some(Event::Add(again)) = futures::stream::select(&mut first, &mut second).next().await else {
        panic!("an add")
    };
    assert_eq!(again.payload::<i32>().unwrap(), 2, "what was added last");
}

async fn next_within(worker: &mut assemblage::Worker, ms: u64) -> Option<Event> {
    tokio::time::timeout(Duration::from_millis(ms), worker.next()).await.ok().flatten()
}

#[tokio::test]
async fn a_handler_that_holds_on_too_long_is_passed_over_and_that_is_said() {
    let server = RedisServer::start();
    let cluster =
        builder().release_timeout(Duration::from_millis(300)).connect_url(server.url()).await.unwrap();
    let master = cluster.master().await.unwrap();
    let mut worker = cluster.worker().await.unwrap();
    let id = master.add(&"stuck").await.unwrap();
    let Event::Add(job) = next(&mut worker).await else { panic!("an add") };
    tokio::time::timeout(PATIENCE, master.delete_and_wait(&id))
        .await
        .expect("resolves by the timeout")
        .unwrap();
    assert!(master.job(&id).await.unwrap().is_none(), "gone although a handle is out");
    let mut said = false;
    while !said {
        match next(&mut worker).await {
            Event::Error(error) => {
                assert_eq!((error.kind(), error.job()), (ErrorKind::ReleaseTimeout, Some(&id)));
                said = true;
            }
            Event::Delete(deletion) => assert_eq!(deletion.id(), &id),
            other => panic!("{other:?}"),
        }
    }
    drop(job);
}

#[tokio::test(flavor = "multi_thread")]
async fn terminate_gives_a_delete_for_each_job_and_the_jobs_to_others() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let master = cluster.master().await.unwrap();
    let ledger = Ledger::default();
    let first = ledger.consume(cluster.worker().await.unwrap());
    let ids = add_jobs(&master, 500).await;
    until("all are held", || async { ledger.held().len() == 500 }).await;
    let second = ledger.consume(cluster.worker().await.unwrap());
    let left = first.handle.terminate();
    assert_eq!(first.closed().await, CloseReason::Terminated);
    tokio::time::timeout(PATIENCE, left).await.expect("terminate resolves");
    until("all are held again", || async { ledger.held().len() == 500 }).await;
    assert_eq!(ledger.held_by(second.id()), 500);
    assert!(
        ids.iter().all(|id| ledger.moves(id) == 2),
        "each moved once: none came back to the one that leaves"
    );
    assert_eq!(master.workers().await.unwrap().len(), 1);
    ledger.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn terminate_waits_for_handles() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let master = cluster.master().await.unwrap();
    let mut first = cluster.worker().await.unwrap();
    master.add(&1).await.unwrap();
    let Event::Add(job) = next(&mut first).await else { panic!("an add") };
    let mut second = cluster.worker().await.unwrap();
    let left = tokio::spawn(first.terminate());
    let Event::Delete(deletion) = next(&mut first).await else { panic!("a delete") };
    assert_eq!(deletion.reason(), DeleteReason::Terminated);
    assert!(next_within(&mut second, 100).await.is_none(), "nobody has it while it is held");
    assert!(!left.is_finished());
    drop((job, deletion));
    assert!(matches!(next(&mut second).await, Event::Add(_)));
    assert!(matches!(next(&mut first).await, Event::Close(CloseReason::Terminated)));
    assert!(first.next().await.is_none());
    left.await.unwrap();
}

// Dropping the worker without terminate does the same in the background.
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_worker_s_jobs_go_on_at_once_but_for_those_still_held() {
    let server = RedisServer::start();
    let cluster = builder().lock_ttl(Duration::from_secs(60)).connect_url(server.url()).await.unwrap();
    let master = cluster.master().await.unwrap();
    let mut first = cluster.worker().await.unwrap();
    add_jobs(&master, 20).await;
    let Event::Add(kept) = next(&mut first).await else { panic!("an add") };
    let ledger = Ledger::default();
    let _second = ledger.consume(cluster.worker().await.unwrap());
    drop(first);
    until("all but one go on", || async { ledger.held().len() == 19 }).await;
    tokio::time::timeout(PATIENCE, kept.deleted()).await.expect("its holder is told");
    assert!(!ledger.held().contains(kept.id()));
    drop(kept);
    until("the last one too", || async { ledger.held().len() == 20 }).await;
    until("the worker has left", || async { master.workers().await.unwrap().len() == 1 }).await;
    ledger.assert_clean();
}

#[tokio::test]
async fn delete_and_wait_resolves_when_the_owner_is_killed_too() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let master = cluster.master().await.unwrap();
    let mut process = crate::support::Process::worker(&server, crate::support::TTL);
    let id = master.add(&1).await.unwrap();
    process.wait_for_adds(1);
    process.kill();
    tokio::time::timeout(PATIENCE, master.delete_and_wait(&id)).await.expect("resolves at the reap").unwrap();
    assert!(master.job(&id).await.unwrap().is_none());
}

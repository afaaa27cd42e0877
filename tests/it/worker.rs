//! The main road: jobs are added, held, deleted; what a worker's stream and a master's calls say of it.

use assemblage::{AddOptions, CloseReason, DeleteReason, Deleted, ErrorKind, Event, JobId, JobState};
use futures::{FutureExt, StreamExt};

use crate::support::{RedisServer, TTL, add_jobs, builder, cluster, next, until};

#[tokio::test]
async fn a_job_is_added_held_deleted_and_gone() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let master = cluster.master().await.unwrap();
    let mut worker = cluster.worker().await.unwrap();

    let id = master.add(&("user@example.com", 993u16)).await.unwrap();
    let Event::Add(job) = next(&mut worker).await else { panic!("an add") };
    assert_eq!(job.id(), &id);
    assert_eq!(job.payload::<(&str, u16)>().unwrap(), ("user@example.com", 993));

    let waiting = tokio::spawn({
        let (master, id) = (master.clone(), id.clone());
        async move { master.delete_and_wait(&id).await.unwrap() }
    });
    let Event::Delete(deletion) = next(&mut worker).await else { panic!("a delete") };
    assert_eq!(deletion.reason(), DeleteReason::Removed);
    assert!(!waiting.is_finished());
    drop((job, deletion));
    assert!(matches!(waiting.await.unwrap(), Deleted::Releasing { .. }));
    assert!(master.job(&id).await.unwrap().is_none());
    assert_eq!(master.delete(&id).await.unwrap(), Deleted::Unknown);

    let done = worker.terminate();
    assert!(matches!(next(&mut worker).await, Event::Close(CloseReason::Terminated)));
    assert!(worker.next().await.is_none());
    done.await;
    assert_eq!(master.stats().await.unwrap().workers, 0);
}

#[tokio::test]
async fn a_worker_may_delete_its_job() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let master = cluster.master().await.unwrap();
    let mut worker = cluster.worker().await.unwrap();
    let id = master.add(&1).await.unwrap();
    let Event::Add(job) = next(&mut worker).await else { panic!("an add") };
    assert!(job.delete().await.unwrap());
    let Event::Delete(deletion) = next(&mut worker).await else { panic!("a delete") };
    assert_eq!(
        (deletion.id(), deletion.reason(), deletion.epoch()),
        (&id, DeleteReason::Removed, job.epoch())
    );
    assert!(job.delete().await.unwrap(), "deleted already, and still held");
    drop(deletion);
    drop(job);
    until("it is gone", || async { master.job(&id).await.unwrap().is_none() }).await;
}

// A late delete by the owner of a life that is over must not end the next one (rule 8).
#[tokio::test]
async fn a_job_s_own_delete_means_the_life_that_it_belongs_to() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let master = cluster.master().await.unwrap();
    let mut worker = cluster.worker().await.unwrap();
    let options = AddOptions::default().id(JobId::new("again").unwrap());
    let id = master.add_with(&1, options.clone()).await.unwrap().into_id();
    let Event::Add(old) = next(&mut worker).await else { panic!("an add") };
    master.delete(&id).await.unwrap();
    let _ = master.add_with(&2, options).await.unwrap();
    assert!(matches!(next(&mut worker).await, Event::Delete(_)));
    assert!(!old.delete().await.unwrap(), "that life is over");
    drop(old);
    let Event::Add(new) = next(&mut worker).await else { panic!("the new life is there") };
    assert_eq!(new.payload::<i32>().unwrap(), 2);
}

#[tokio::test]
async fn a_payload_that_is_not_what_was_asked_for_is_that_job_s_error_and_no_more() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let master = cluster.master().await.unwrap();
    let mut worker = cluster.worker().await.unwrap();
    let id = master.add(&"a secret text").await.unwrap();
    master.add(&7).await.unwrap();
    let Event::Add(text) = next(&mut worker).await else { panic!("an add") };
    let Event::Add(number) = next(&mut worker).await else { panic!("an add") };
    let error = text.payload::<u64>().unwrap_err();
    assert_eq!((error.kind(), error.job()), (ErrorKind::Decode, Some(&id)));
    assert!(!format!("{error} {error:?} {text:?}").contains("secret"), "no payload in any text");
    assert_eq!(text.payload::<&str>().unwrap(), "a secret text", "another type fits, and borrows");
    assert_eq!(number.payload::<u64>().unwrap(), 7, "the next job is as good as ever");
}

// What waits for a slow consumer is at most one change a job, and the worker lives on meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_stops_polling_keeps_its_lock_and_sees_only_what_is_left() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let master = cluster.master().await.unwrap();
    let mut worker = cluster.worker().await.unwrap();
    let kept = master.add(&"kept").await.unwrap();
    for _ in 0..20 {
        let ids = add_jobs(&master, 100).await;
        for deleted in master.delete_many(&ids).await.unwrap() {
            assert_ne!(deleted, Deleted::Unknown);
        }
    }
    until("what came and went unseen is gone", || async { master.stats().await.unwrap().jobs == 1 }).await;
    tokio::time::sleep(2 * TTL).await; // that it outlives its lock's time without being polled is the point
    let Event::Add(job) = next(&mut worker).await else { panic!("the one that is left") };
    assert_eq!(job.id(), &kept);
    assert!(worker.next().now_or_never().is_none(), "nothing else");
    assert_eq!(master.workers().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_payload_over_the_limit_is_refused_before_anything_is_written() {
    let server = RedisServer::start();
    let cluster = builder().max_payload(1_000).connect_url(server.url()).await.unwrap();
    let master = cluster.master().await.unwrap();
    let error = master.add(&"x".repeat(1_000)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PayloadTooLarge);
    let error = master.add_many(&["fits".to_owned(), "x".repeat(1_000)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PayloadTooLarge);
    assert_eq!(master.stats().await.unwrap().jobs, 0);
}

#[tokio::test]
async fn a_master_lists_what_there_is() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let master = cluster.master().await.unwrap();
    let mut ids = add_jobs(&master, 1_000).await;
    let listed: Vec<_> = master.jobs().map(|job| job.unwrap()).collect().await;
    assert!(listed.iter().all(|job| job.state == JobState::Pending));
    let mut found: Vec<_> = listed.into_iter().map(|job| job.id).collect();
    ids.sort();
    found.sort();
    found.dedup();
    assert_eq!(ids, found);
    let worker = cluster.worker().await.unwrap();
    until("it has them", || async { master.stats().await.unwrap().pending == 0 }).await;
    let info = master.workers().await.unwrap();
    assert_eq!((info.len(), info[0].id, info[0].jobs), (1, worker.id(), 1_000));
    assert_eq!(info[0].pid, std::process::id());
    assert!(info[0].accepts_jobs && info[0].lock_remaining <= TTL);
}

// Jobs without a worker wait in order.
#[tokio::test]
async fn waiting_jobs_come_in_the_order_in_which_they_were_added() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let master = cluster.master().await.unwrap();
    let ids = add_jobs(&master, 500).await;
    let mut worker = cluster.worker().await.unwrap();
    for id in ids {
        let Event::Add(job) = next(&mut worker).await else { panic!("an add") };
        assert_eq!(job.id(), &id);
    }
}

// The gap is for what was lost. A burst that the worker has in its hands is taken in whole.
#[tokio::test]
async fn a_burst_of_frames_is_taken_in_without_asking_for_a_snapshot() {
    let server = RedisServer::start();
    let cluster = builder().lock_ttl(10 * TTL).connect_url(server.url()).await.unwrap();
    let mut worker = cluster.worker().await.unwrap();
    cluster.master().await.unwrap().add(&0).await.unwrap();
    assert!(matches!(next(&mut worker).await, Event::Add(_)), "its first sync is over");

    let mut monitor = server.connect();
    monitor.command(&["MONITOR"]);
    let url = server.url();
    // This thread, which is the worker's too, is busy meanwhile: the frames pile up in front of it.
    std::thread::spawn(move || {
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let cluster = builder().connect_url(url).await.unwrap();
            add_jobs(&cluster.master().await.unwrap(), 1_000).await;
        });
    })
    .join()
    .unwrap();
    for _ in 0..1_000 {
        assert!(matches!(next(&mut worker).await, Event::Add(_)));
    }
    server.command(&["PING", "the end"]);
    let (mut adds, mut syncs) = (0, 0);
    loop {
        let line = format!("{:?}", monitor.read());
        if line.contains("the end") {
            break;
        }
        // By the keys that follow each other in no other script.
        adds += usize::from(line.contains(":pending\" \"{assemblage:test}:load\" \"{assemblage:test}:inbox"));
        syncs +=
            usize::from(line.contains(":assigned\" \"{assemblage:test}:workers\" \"{assemblage:test}:inbox"));
    }
    assert!(adds >= 5, "the monitor shows scripts: {adds}");
    assert_eq!(syncs, 0);
}

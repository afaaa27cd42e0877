//! Stopped by a lost lock or aborted at the deadline: one handler at once, ever.

use super::*;

// Promise: one owner, for handlers that ignore that they are to stop, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_does_not_stop_is_aborted_before_its_job_goes_on() {
    let server = RedisServer::start();
    let timeout = Duration::from_secs(5);
    let cluster =
        builder().lock_ttl(3 * timeout).release_timeout(timeout).connect_url(server.url()).await.unwrap();
    let master = cluster.master().await.unwrap();
    let runs = Runs::default();
    let serve = serve_as(&cluster, &runs, |_, _task| async move { pending::<Result<()>>().await });
    let serve = spawn(serve);
    let id = master.add(&"stuck").await.unwrap();
    let other = master.add(&"stuck, and not deleted").await.unwrap();
    until("both work", || async { runs.running() == 2 }).await;
    let deleted = Instant::now();
    tokio::time::timeout(PATIENCE, master.delete_and_wait(&id)).await.expect("resolves").unwrap();
    assert!(!runs.is_running(&id), "it was aborted before the job went on");
    let lasted = runs.ended(&id)[0] - deleted;
    assert!(lasted >= timeout * 8 / 10, "it had its time: {lasted:?}");
    until("that is said", || async { !runs.errors_of(&id).is_empty() }).await;
    let errors = runs.errors_of(&id);
    assert_eq!(errors.len(), 1, "and the worker has nothing to complain of: {errors:?}");
    assert!(errors[0].0 == ErrorKind::Handler && errors[0].1.contains("aborted"), "{errors:?}");
    assert!(runs.is_running(&other));
    serve.abort();
}

// Promise: rejoin as a new worker after a lost lock, with never two handlers of a job; honest failure meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_lock_stops_the_handlers_and_a_new_worker_gets_the_jobs_again() {
    let server = RedisServer::start();
    let quick = Duration::from_millis(500);
    let cluster = builder().command_timeout(quick).connect_url(server.url()).await.unwrap();
    let master = cluster.master().await.unwrap();
    let runs = Runs::default();
    let serve = serve_as(&cluster, &runs, |_, task| async move {
        if task.payload::<String>()?.ends_with('3') {
            pending::<()>().await; // one in ten does not hear
        }
        task.stopped().await;
        assert_eq!(task.reason(), Some(DeleteReason::LockExpired));
        assert!(task.deadline().unwrap() <= Instant::now() + TTL / 5, "the fence margin");
        Ok::<_, Error>(())
    });
    let serve = spawn(serve);
    let ids = add_jobs(&master, 30).await;
    until("all are handled", || async { runs.running() == 30 }).await;
    let before = master.workers().await.unwrap()[0].id;

    server.pause();
    until("the handlers have stopped", || async { runs.running() == 0 }).await;
    let failed_joins = || {
        let book = runs.0.lock().unwrap();
        book.errors.iter().filter(|error| error.to_string().contains("joining is tried again")).count()
    };
    until("joining fails and is tried again", || async { failed_joins() >= 2 }).await;
    server.resume();

    until("all are handled again", || async { runs.running() == 30 }).await;
    let workers = master.workers().await.unwrap();
    assert!(workers.iter().all(|worker| worker.id != before), "by a new worker");
    for id in &ids {
        let begun = runs.begun(id);
        assert!(begun.len() >= 2 && begun[1].1 > begun[0].1, "again, at a later epoch: {begun:?}");
    }
    runs.assert_clean();
    assert!(!serve.is_finished());
    serve.abort();
}

// Promise: never two handlers of a job at once in a process, even where one blocks its thread and cannot be aborted.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_job_that_comes_back_waits_for_a_handler_that_blocks() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let master = cluster.master().await.unwrap();
    let runs = Runs::default();
    let (unblock, blocked) = mpsc::channel::<()>();
    let blocked = Arc::new(Mutex::new(blocked));
    let serve = spawn(serve_as(&cluster, &runs, move |runs, task| {
        let blocked = blocked.clone();
        async move {
            if task.id().as_str() == "blocks" && runs.begun(task.id()).len() == 1 {
                let _ = blocked.lock().unwrap().recv_timeout(PATIENCE);
            }
            task.stopped().await;
            Ok::<_, Infallible>(())
        }
    }));
    let (blocks, blocks_again) = named("blocks");
    let (other, other_again) = named("other");
    for options in [&blocks_again, &other_again] {
        let _ = master.add_with(&1, options.clone()).await.unwrap();
    }
    until("both work", || async { runs.running() == 2 }).await;

    server.command(&["FLUSHALL"]);
    until("the worker and the good handler have gone", || async { !runs.is_running(&other) }).await;
    for options in [&blocks_again, &other_again] {
        let added = || async { master.add_with(&2, options.clone()).await.is_ok() };
        until("it is added anew", added).await;
    }
    until("the new worker has both, and works on the other", || async {
        let state = master.job(&blocks).await.unwrap().map(|job| job.state());
        matches!(state, Some(JobState::Assigned { .. })) && runs.is_running(&other)
    })
    .await;
    tokio::time::sleep(Duration::from_millis(200)).await; // time to go wrong in
    assert_eq!(runs.begun(&blocks).len(), 1, "its first handler is still at it");
    unblock.send(()).unwrap();
    until("then it begins anew", || async { runs.begun(&blocks).len() == 2 && runs.is_running(&blocks) })
        .await;
    runs.assert_clean();
    serve.abort();
}

// Promise: one owner. What was to stop within the release timeout has the fence margin when the lock goes.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_is_lost_while_a_handler_stops_brings_its_deadline_nearer() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let master = cluster.master().await.unwrap();
    let (runs, reasons) = (Runs::default(), Arc::new(Mutex::new(Vec::new())));
    let serve = spawn({
        let reasons = reasons.clone();
        serve_as(&cluster, &runs, move |_, task| {
            let reasons = reasons.clone();
            async move {
                task.stopped().await;
                loop {
                    let left = task.deadline().unwrap() - Instant::now();
                    reasons.lock().unwrap().push((task.reason().unwrap(), left));
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                #[expect(unreachable_code, reason = "it says what the handler returns")]
                Ok::<_, Error>(())
            }
        })
    });
    let id = master.add(&1).await.unwrap();
    until("it works", || async { runs.is_running(&id) }).await;
    master.delete(&id).await.unwrap();
    until("it stops", || async { !reasons.lock().unwrap().is_empty() }).await;
    let (reason, left) = reasons.lock().unwrap()[0];
    assert!(reason == DeleteReason::Removed && left > Duration::from_secs(10), "{reason:?} {left:?}");
    let lost = Instant::now();
    server.command(&["FLUSHALL"]);
    until("it was aborted", || async { !runs.is_running(&id) }).await;
    assert!(
        lost.elapsed() < Duration::from_secs(15),
        "long before the release timeout: {:?}",
        lost.elapsed()
    );
    let (reason, left) = *reasons.lock().unwrap().last().unwrap();
    assert!(reason == DeleteReason::ClusterReset && left < TTL / 5, "{reason:?} {left:?}");
    runs.assert_clean();
    serve.abort();
}

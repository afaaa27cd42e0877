//! Started, reported, started again, updated.

use super::*;

// Promise: with the handler's end the job is released, and not before.
#[tokio::test(flavor = "multi_thread")]
async fn each_job_has_a_handler_and_a_deleted_one_is_gone_when_its_handler_has_cleaned_up() {
    let server = RedisServer::start();
    // Longer than the test waits: it is by its end that a handler lets go, and not by the timeout.
    let cluster = builder()
        .lock_ttl(Duration::from_secs(15))
        .release_timeout(Duration::from_secs(600))
        .connect_url(server.url())
        .await
        .unwrap();
    let master = cluster.master().await.unwrap();
    let (runs, cleaning, clean) =
        (Runs::default(), Arc::new(AtomicBool::new(false)), Arc::new(Semaphore::new(0)));
    let serve = spawn({
        let (cleaning, clean) = (cleaning.clone(), clean.clone());
        serve_as(&cluster, &runs, move |_, task| {
            let (cleaning, clean) = (cleaning.clone(), clean.clone());
            async move {
                assert!(task.deadline().is_none() && task.reason().is_none() && !task.is_stopped());
                let token = task.cancellation_token();
                task.stopped().await;
                assert!(token.is_cancelled() && task.is_stopped());
                assert_eq!(task.reason(), Some(DeleteReason::Removed));
                assert!(task.deadline().unwrap() > Instant::now());
                cleaning.store(true, SeqCst);
                let _ = clean.acquire().await;
                Ok::<_, Infallible>(())
            }
        })
    });
    let ids = add_jobs(&master, 3).await;
    until("each has its handler", || async { runs.running() == 3 }).await;

    let waiting = tokio::spawn({
        let (master, id) = (master.clone(), ids[0].clone());
        async move { master.delete_and_wait(&id).await.unwrap() }
    });
    until("the handler cleans up", || async { cleaning.load(SeqCst) }).await;
    tokio::time::sleep(Duration::from_millis(100)).await; // time to go wrong in
    assert!(!waiting.is_finished(), "held while its handler cleans up");
    assert!(matches!(master.job(&ids[0]).await.unwrap().unwrap().state(), JobState::Releasing { .. }));
    clean.add_permits(1);
    tokio::time::timeout(PATIENCE, waiting).await.expect("resolves").unwrap();
    assert!(!runs.is_running(&ids[0]) && runs.running() == 2, "the others go on");
    assert!(ids.iter().all(|id| runs.begun(id).len() == 1));
    runs.assert_clean();
    serve.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_is_done_for_good_deletes_its_job_and_is_not_started_again() {
    let server = Arc::new(RedisServer::start());
    let cluster = steady(&server).await;
    let master = cluster.master().await.unwrap();
    let runs = Runs::default();
    let serve = spawn({
        let server = server.clone();
        serve_as(&cluster, &runs, move |_, task| {
            let server = server.clone();
            async move {
                // The `Delete` is lost and comes by a sync: the handler has ended long before.
                server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
                assert!(task.delete().await?);
                Ok::<_, Error>(())
            }
        })
        .restart_backoff(Duration::from_millis(1), Duration::from_millis(1))
    });
    for _ in 0..10 {
        let id = master.add(&1).await.unwrap();
        until("it is gone", || async { master.job(&id).await.unwrap().is_none() }).await;
        until("its handler, too", || async { !runs.begun(&id).is_empty() && !runs.is_running(&id) }).await;
        assert_eq!(runs.begun(&id).len(), 1);
    }
    runs.assert_clean();
    serve.abort();
}

// Promise: an error is one job's, has its id, and does not make a handler spin.
#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_fails_is_reported_and_started_again_after_waits_that_grow() {
    let server = RedisServer::start();
    let cluster = steady(&server).await;
    let master = cluster.master().await.unwrap();
    let runs = Runs::default();
    let serve = serve_as(&cluster, &runs, |_, task| async move {
        let _: u64 = task.payload()?;
        task.stopped().await;
        Ok::<_, Error>(())
    });
    let serve = spawn(serve.restart_backoff(Duration::from_millis(40), Duration::from_millis(200)));
    let bad = master.add(&"a secret text").await.unwrap();
    let good = master.add(&7).await.unwrap();
    until("it was tried seven times", || async { runs.begun(&bad).len() >= 7 }).await;

    let (begun, ended) = (runs.begun(&bad), runs.ended(&bad));
    for (n, least) in [40, 80, 160, 200, 200, 200].into_iter().enumerate() {
        let waited = begun[n + 1].0 - ended[n];
        assert!(waited >= Duration::from_millis(least), "wait {n}: {waited:?}");
    }
    let errors = runs.errors_of(&bad);
    assert!(errors.len() >= 6);
    for (kind, text) in &errors {
        assert_eq!(*kind, ErrorKind::Handler);
        assert!(text.contains("started again in") && text.contains(bad.as_str()), "{text}");
        assert!(!text.contains("secret"), "no payload in any text: {text}");
    }
    {
        let book = runs.0.lock().unwrap();
        let source = std::error::Error::source(&book.errors[0]).expect("the handler's own error");
        assert_eq!(source.downcast_ref::<Error>().expect("as it was").kind(), ErrorKind::Decode);
        assert!(!format!("{:?}", book.errors).contains("secret"));
    }
    assert!(runs.is_running(&good) && runs.begun(&good).len() == 1 && runs.errors_of(&good).is_empty());
    // While it waits for its next try it holds the job, and lets go of it at once.
    tokio::time::timeout(PATIENCE, master.delete_and_wait(&bad)).await.expect("resolves").unwrap();
    serve.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_caught_and_reported_with_its_job_and_the_others_go_on() {
    let server = RedisServer::start();
    let cluster = steady(&server).await;
    let master = cluster.master().await.unwrap();
    let runs = Runs::default();
    let serve = spawn({
        let listener = runs.listener();
        let runs = runs.clone();
        let handler = move |task: Task| {
            // The first panics before there is a future, the second in it, each twice.
            let run = runs.begin(&task);
            let (what, first) = (task.payload::<String>().unwrap(), runs.begun(task.id()).len() <= 2);
            assert!(what != "at once" || !first, "at once, a test's panic");
            async move {
                let _run = run;
                assert!(what != "later" || !first, "later, a test's panic");
                task.stopped().await;
                Ok::<_, Infallible>(())
            }
        };
        let listener = move |error| {
            listener(error);
            panic!("a listener's own panic");
        };
        cluster.serve(handler).on_error(listener).restart_backoff(Duration::from_millis(1), TTL)
    });
    let fine = master.add("fine").await.unwrap();
    until("one works", || async { runs.is_running(&fine) }).await;
    for what in ["at once", "later"] {
        let id = master.add(what).await.unwrap();
        until("it works in the end", || async { runs.begun(&id).len() == 3 && runs.is_running(&id) }).await;
        let errors = runs.errors_of(&id);
        assert_eq!(errors.len(), 2, "{errors:?}");
        let (kind, text) = &errors[0];
        assert_eq!(*kind, ErrorKind::Handler);
        assert!(text.contains("panicked") && text.contains(what) && text.contains(id.as_str()), "{text}");
    }
    assert_eq!(runs.begun(&fine).len(), 1, "it was not disturbed");
    assert!(runs.0.lock().unwrap().violations.is_empty());
    assert!(!serve.is_finished());
    serve.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_returns_while_its_job_is_held_is_started_again_and_a_long_run_resets_the_wait() {
    const LONGEST: Duration = Duration::from_millis(1_500);
    let server = RedisServer::start();
    let cluster = steady(&server).await;
    let master = cluster.master().await.unwrap();
    let runs = Runs::default();
    let serve = serve_as(&cluster, &runs, |runs, task| async move {
        match runs.begun(task.id()).len() {
            ..=7 => {}
            8 => tokio::time::sleep(LONGEST).await,
            _ => task.stopped().await,
        }
        Ok::<_, Infallible>(())
    });
    let serve = spawn(serve.restart_backoff(Duration::from_millis(15), LONGEST));
    let id = master.add(&1).await.unwrap();
    until("it was started nine times", || async { runs.begun(&id).len() == 9 }).await;
    let (begun, ended) = (runs.begun(&id), runs.ended(&id));
    assert!(begun[7].0 - ended[6] >= Duration::from_millis(15 << 6), "the wait has grown");
    assert!(begun[8].0 - ended[7] < Duration::from_millis(15 << 6), "after a long run it is the first again");
    assert!(runs.errors_of(&id).is_empty(), "to return is no error");
    serve.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn updated_resolves_with_the_newest_once_for_all_that_was_missed() {
    let mut server = RedisServer::durable();
    let cluster = builder().lock_ttl(Duration::from_secs(15)).connect_url(server.url()).await.unwrap();
    let master = cluster.master().await.unwrap();
    let (runs, tasks) = (Runs::default(), Arc::new(Mutex::new(Vec::<Task>::new())));
    let serve = spawn({
        let (runs, tasks) = (runs.clone(), tasks.clone());
        cluster.serve(move |task| {
            tasks.lock().unwrap().push(task.clone());
            obey(runs.clone(), task)
        })
    });
    let id = master.add(&"payload").await.unwrap();
    until("it is handled", || async { runs.is_running(&id) }).await;
    let task = tasks.lock().unwrap()[0].clone();
    assert!(task.updated().now_or_never().is_none(), "nothing has changed");
    let mut epochs = vec![task.epoch()];
    for _ in 0..2 {
        // Another run of the server: each assignment gets a new epoch, by an update.
        server.restart(true);
        until("there is a new epoch", || async { task.epoch() > epochs[epochs.len() - 1] }).await;
        epochs.push(task.epoch());
    }
    let newest = tokio::time::timeout(PATIENCE, task.updated()).await.expect("there was one");
    assert_eq!((newest.epoch(), newest.payload::<&str>().unwrap()), (epochs[2], "payload"));
    assert!(task.updated().now_or_never().is_none(), "one for both");
    assert!(task.clone().updated().now_or_never().is_none());
    assert!(tasks.lock().unwrap()[0].updated().now_or_never().is_some(), "another handle counts by itself");
    assert_eq!(runs.begun(&id).len(), 1, "it was not started again");
    assert!(!format!("{task:?}").contains("payload"));
    serve.abort();
}

// A worker that was made before is the first to be served.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_can_be_served() {
    let server = RedisServer::start();
    let cluster = steady(&server).await;
    let master = cluster.master().await.unwrap();
    let worker = cluster.worker().await.unwrap();
    let number = worker.id();
    let runs = Runs::default();
    let serve = spawn({
        let runs = runs.clone();
        worker.serve(move |task| obey(runs.clone(), task))
    });
    master.add(&1).await.unwrap();
    until("it is handled", || async { runs.running() == 1 }).await;
    let workers = master.workers().await.unwrap();
    assert_eq!((workers.len(), workers[0].id), (1, number));
    serve.abort();
}

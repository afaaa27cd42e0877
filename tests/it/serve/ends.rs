//! How a `serve` ends: shut down, dropped, without rights, by SIGTERM, evicted.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_graceful_shutdown_stops_every_handler_and_hands_the_jobs_over() {
    let server = RedisServer::start();
    let cluster = steady(&server).await;
    let master = cluster.master().await.unwrap();
    // One book for both: a job that two of them handle at once is a violation.
    let runs = Runs::default();
    let (shut, shutdown) = oneshot::channel::<()>();
    let first = spawn(serve_well(&cluster, &runs).with_graceful_shutdown(shutdown));
    let ids = add_jobs(&master, 200).await;
    until("all are handled", || async { runs.running() == 200 }).await;
    let second = spawn(serve_well(&cluster, &runs));
    until("there are two", || async { master.workers().await.unwrap().len() == 2 }).await;
    shut.send(()).unwrap();
    ended(first).await.expect("a shutdown is no error");
    until("all are handled again", || async { runs.running() == 200 }).await;
    assert!(ids.iter().all(|id| runs.begun(id).len() == 2 && runs.ended(id).len() == 1));
    assert_eq!(master.workers().await.unwrap().len(), 1);
    runs.assert_clean();
    assert!(runs.0.lock().unwrap().errors.is_empty());
    second.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_while_there_is_no_server_ends_it_too() {
    let mut server = RedisServer::start();
    let quick = Duration::from_millis(300);
    let cluster = builder().command_timeout(quick).connect_url(server.url()).await.unwrap();
    let runs = Runs::default();
    let (shut, shutdown) = oneshot::channel::<()>();
    let serve = spawn(serve_well(&cluster, &runs).with_graceful_shutdown(shutdown));
    cluster.master().await.unwrap().add(&1).await.unwrap();
    until("it is handled", || async { runs.running() == 1 }).await;
    server.kill();
    let tried =
        || runs.0.lock().unwrap().errors.iter().any(|error| error.to_string().contains("tried again"));
    until("joining fails", || async { tried() }).await;
    assert_eq!(runs.running(), 0);
    drop(shut); // a future that resolves with an error has resolved
    ended(serve).await.expect("a shutdown is no error");
}

// Promise: what no waiting mends is an error, and not a loop.
#[tokio::test(flavor = "multi_thread")]
async fn rights_that_were_withdrawn_end_it_with_that_error() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let runs = Runs::default();
    let serve = spawn(serve_well(&cluster, &runs));
    cluster.master().await.unwrap().add(&1).await.unwrap();
    until("it is handled", || async { runs.running() == 1 }).await;
    server.command(&["ACL", "SETUSER", "default", "-@all", "+ping"]);
    assert_eq!(ended(serve).await.unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!(runs.running(), 0);

    let handler = |_task: Task| async { Ok::<_, Error>(()) };
    let refused = cluster.serve(handler).restart_backoff(TTL, TTL / 2).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidSetting);
}

// Promise: every task has an owner. Dropping the future leaves nothing running.
#[tokio::test(flavor = "multi_thread")]
async fn dropping_it_stops_everything_and_leaves_no_task() {
    let server = RedisServer::start();
    let cluster = builder().lock_ttl(Duration::from_secs(60)).connect_url(server.url()).await.unwrap();
    let master = cluster.master().await.unwrap();
    let runs = Runs::default();
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    master.stats().await.unwrap();
    let before = tasks();
    let mut serve = serve_well(&cluster, &runs).into_future();
    add_jobs(&master, 50).await;
    tokio::select! {
        result = &mut serve => panic!("{result:?}"),
        () = until("all are handled", || async { runs.running() == 50 }) => {}
    }
    assert!(tasks() > before + 50);
    drop(serve);
    until("every handler is gone", || async { runs.running() == 0 }).await;
    until("the worker has left and its jobs wait, long before its lock ends", || async {
        let stats = master.stats().await.unwrap();
        (stats.workers, stats.pending) == (0, 50)
    })
    .await;
    until("no task is left", || async { tasks() <= before }).await;
    assert!(runs.0.lock().unwrap().errors.is_empty());
}

// The stop of a handler does not depend on whether somebody polls the future.
#[tokio::test(flavor = "multi_thread")]
async fn handlers_are_stopped_while_nobody_polls_the_future() {
    let server = RedisServer::start();
    let cluster = steady(&server).await;
    let master = cluster.master().await.unwrap();
    let runs = Runs::default();
    let mut serve = serve_well(&cluster, &runs).into_future();
    assert!((&mut serve).now_or_never().is_none(), "begun by the first poll");
    let id = master.add(&1).await.unwrap();
    until("it is handled", || async { runs.is_running(&id) }).await;
    tokio::time::timeout(PATIENCE, master.delete_and_wait(&id)).await.expect("resolves").unwrap();
    drop(serve);
}

// A real process and a real signal: what a deployment does.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_gets_sigterm_hands_its_jobs_over_and_exits_with_success() {
    let server = RedisServer::start();
    // A lock that outlives the test: the jobs move because they are handed over.
    let ttl = Duration::from_secs(120);
    let cluster = steady(&server).await;
    let master = cluster.master().await.unwrap();
    let mut process = Process::serve(&server, ttl);
    add_jobs(&master, 20).await;
    let (held, _) = process.wait_for_adds(20);
    let runs = Runs::default();
    let second = spawn(serve_well(&cluster, &runs));
    until("there are two", || async { master.workers().await.unwrap().len() == 2 }).await;

    process.signal(Signal::SIGTERM);
    let mut deleted = HashSet::new();
    let closed = process.wait_for(|report| match report {
        Report::Delete { job, .. } => !deleted.insert(job.clone()),
        Report::Close { .. } => true,
        _ => false,
    });
    assert!(matches!(&closed, Report::Close { reason, .. } if reason == "Ok"), "{closed:?}");
    assert_eq!(deleted.len(), 20, "each was cleaned up");
    let status = process.wait();
    assert!(status.success(), "{status}");
    until("all are handled by the other", || async { runs.running() == 20 }).await;
    for (job, epoch) in held {
        let begun = runs.begun(&JobId::new(job).unwrap());
        assert!(begun.len() == 1 && begun[0].1 > epoch, "at a later epoch");
    }
    second.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_evicted_is_not_replaced_and_one_with_options_keeps_them_when_it_is() {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let master = cluster.master().await.unwrap();
    let options = assemblage::WorkerOptions::default().capacity(3).name("gw-1");
    let serving = tokio::spawn(
        cluster
            .serve(|task: Task| async move {
                task.stopped().await;
                Ok::<_, assemblage::Error>(())
            })
            .options(options)
            .into_future(),
    );
    add_jobs(&master, 5).await;
    until("it holds what it can", || async {
        let workers = master.workers().await.unwrap();
        workers.iter().any(|worker| worker.jobs == 3 && worker.name.as_deref() == Some("gw-1"))
    })
    .await;
    let number = master.workers().await.unwrap()[0].id;
    assert!(master.evict(number).await.unwrap());
    tokio::time::timeout(PATIENCE, serving).await.expect("it ends").expect("no panic").expect("in order");
    until("nobody is left", || async { master.workers().await.unwrap().is_empty() }).await;
    assert_eq!(master.stats().await.unwrap().pending, 5);
}

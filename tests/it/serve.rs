//! `serve`: a handler for each job, started, stopped, started again and aborted as promised; one at once, ever.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use assemblage::{AddOptions, Cluster, DeleteReason, Error, ErrorKind, JobId, JobState, Result, Serve, Task};
use futures::FutureExt;
use nix::sys::signal::Signal;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;

use crate::support::{PATIENCE, Process, RedisServer, Report, TTL, add_jobs, builder, cluster, until};

/// What the handlers of a test did: each says when it begins, and ends by dropping its [`Run`].
#[derive(Clone, Default)]
struct Runs(Arc<Mutex<Book>>);

#[derive(Default)]
struct Book {
    running: HashSet<JobId>,
    begun: HashMap<JobId, Vec<(Instant, u64)>>,
    ended: HashMap<JobId, Vec<Instant>>,
    errors: Vec<Error>,
    violations: Vec<String>,
}

struct Run {
    runs: Runs,
    job: JobId,
}

impl Runs {
    fn begin(&self, task: &Task) -> Run {
        let mut book = self.0.lock().unwrap();
        let (job, epoch) = (task.id().clone(), task.epoch().get());
        if !book.running.insert(job.clone()) {
            book.violations.push(format!("{job}: two handlers at once"));
        }
        let begun = book.begun.entry(job.clone()).or_default();
        let older = begun.last().is_some_and(|(_, before)| *before > epoch);
        begun.push((Instant::now(), epoch));
        if older {
            book.violations.push(format!("{job}: an older epoch"));
        }
        drop(book);
        Run { runs: self.clone(), job }
    }

    /// Makes a listener for `on_error`.
    fn listener(&self) -> impl Fn(Error) + Send + Sync + 'static {
        let runs = self.clone();
        move |error| runs.0.lock().unwrap().errors.push(error)
    }

    fn running(&self) -> usize {
        self.0.lock().unwrap().running.len()
    }

    fn is_running(&self, job: &JobId) -> bool {
        self.0.lock().unwrap().running.contains(job)
    }

    fn begun(&self, job: &JobId) -> Vec<(Instant, u64)> {
        self.0.lock().unwrap().begun.get(job).cloned().unwrap_or_default()
    }

    fn ended(&self, job: &JobId) -> Vec<Instant> {
        self.0.lock().unwrap().ended.get(job).cloned().unwrap_or_default()
    }

    /// The errors that were reported of a job, as kind and text.
    fn errors_of(&self, job: &JobId) -> Vec<(ErrorKind, String)> {
        let book = self.0.lock().unwrap();
        let of_job = book.errors.iter().filter(|error| error.job() == Some(job));
        of_job.map(|error| (error.kind(), error.to_string())).collect()
    }

    /// Fails the test if a promise was broken, or what a handler asserts: its panic was caught.
    fn assert_clean(&self) {
        let book = self.0.lock().unwrap();
        assert!(book.violations.is_empty(), "{:#?}", book.violations);
        let panics: Vec<_> =
            book.errors.iter().filter(|error| error.to_string().contains("panicked")).collect();
        assert!(panics.is_empty(), "{panics:#?}");
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let mut book = self.runs.0.lock().unwrap();
        book.running.remove(&self.job);
        book.ended.entry(self.job.clone()).or_default().push(Instant::now());
    }
}

/// A good handler: works until it is to stop.
async fn obey(runs: Runs, task: Task) -> Result<()> {
    let _run = runs.begin(&task);
    task.stopped().await;
    Ok(())
}

/// Serves with good handlers.
fn serve_well(cluster: &Cluster, runs: &Runs) -> Serve {
    let listener = runs.listener();
    let runs = runs.clone();
    cluster.serve(move |task| obey(runs.clone(), task)).on_error(listener)
}

fn spawn(serve: Serve) -> JoinHandle<Result<()>> {
    tokio::spawn(serve.into_future())
}

/// What a `Serve` ended with, which it must.
async fn ended(serve: JoinHandle<Result<()>>) -> Result<()> {
    tokio::time::timeout(PATIENCE, serve).await.expect("it ends").expect("it does not panic")
}

/// A cluster whose workers keep their locks on a machine that is busy.
async fn steady(server: &RedisServer) -> Cluster {
    builder().lock_ttl(Duration::from_secs(15)).connect_url(server.url()).await.unwrap()
}

fn named(id: &str) -> (JobId, AddOptions) {
    let id = JobId::new(id).unwrap();
    (id.clone(), AddOptions::default().id(id))
}

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
        let listener = runs.listener();
        let (runs, cleaning, clean) = (runs.clone(), cleaning.clone(), clean.clone());
        let serve = cluster.serve(move |task: Task| {
            let (runs, cleaning, clean) = (runs.clone(), cleaning.clone(), clean.clone());
            async move {
                let _run = runs.begin(&task);
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
        });
        serve.on_error(listener)
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
        let listener = runs.listener();
        let (runs, server) = (runs.clone(), server.clone());
        let serve = cluster.serve(move |task: Task| {
            let (runs, server) = (runs.clone(), server.clone());
            async move {
                let _run = runs.begin(&task);
                // The `Delete` is lost and comes by a sync: the handler has ended long before.
                server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
                assert!(task.delete().await?);
                Ok::<_, Error>(())
            }
        });
        serve.on_error(listener).restart_backoff(Duration::from_millis(1), Duration::from_millis(1))
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
    let serve = spawn({
        let listener = runs.listener();
        let runs = runs.clone();
        let serve = cluster.serve(move |task: Task| {
            let runs = runs.clone();
            async move {
                let _run = runs.begin(&task);
                let _: u64 = task.payload()?;
                task.stopped().await;
                Ok::<_, Error>(())
            }
        });
        serve.on_error(listener).restart_backoff(Duration::from_millis(40), Duration::from_millis(200))
    });
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
    let serve = spawn({
        let listener = runs.listener();
        let runs = runs.clone();
        let serve = cluster.serve(move |task: Task| {
            let runs = runs.clone();
            async move {
                let _run = runs.begin(&task);
                match runs.begun(task.id()).len() {
                    ..=7 => {}
                    8 => tokio::time::sleep(LONGEST).await,
                    _ => task.stopped().await,
                }
                Ok::<_, Infallible>(())
            }
        });
        serve.on_error(listener).restart_backoff(Duration::from_millis(15), LONGEST)
    });
    let id = master.add(&1).await.unwrap();
    until("it was started nine times", || async { runs.begun(&id).len() == 9 }).await;
    let (begun, ended) = (runs.begun(&id), runs.ended(&id));
    assert!(begun[7].0 - ended[6] >= Duration::from_millis(15 << 6), "the wait has grown");
    assert!(begun[8].0 - ended[7] < Duration::from_millis(15 << 6), "after a long run it is the first again");
    assert!(runs.errors_of(&id).is_empty(), "to return is no error");
    serve.abort();
}

// Promise: one owner, for handlers that ignore that they are to stop, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_does_not_stop_is_aborted_before_its_job_goes_on() {
    let server = RedisServer::start();
    let timeout = Duration::from_secs(5);
    let cluster =
        builder().lock_ttl(3 * timeout).release_timeout(timeout).connect_url(server.url()).await.unwrap();
    let master = cluster.master().await.unwrap();
    let runs = Runs::default();
    let serve = spawn({
        let listener = runs.listener();
        let runs = runs.clone();
        let serve = cluster.serve(move |task: Task| {
            let runs = runs.clone();
            async move {
                let _run = runs.begin(&task);
                pending::<Result<()>>().await
            }
        });
        serve.on_error(listener)
    });
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
    let serve = spawn({
        let listener = runs.listener();
        let runs = runs.clone();
        let serve = cluster.serve(move |task: Task| {
            let runs = runs.clone();
            async move {
                let _run = runs.begin(&task);
                if task.payload::<String>()?.ends_with('3') {
                    pending::<()>().await; // one in ten does not hear
                }
                task.stopped().await;
                assert_eq!(task.reason(), Some(DeleteReason::LockExpired));
                assert!(task.deadline().unwrap() <= Instant::now() + TTL / 5, "the fence margin");
                Ok::<_, Error>(())
            }
        });
        serve.on_error(listener)
    });
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
    let serve = spawn({
        let listener = runs.listener();
        let runs = runs.clone();
        let serve = cluster.serve(move |task: Task| {
            let (runs, blocked) = (runs.clone(), blocked.clone());
            async move {
                let _run = runs.begin(&task);
                if task.id().as_str() == "blocks" && runs.begun(task.id()).len() == 1 {
                    let _ = blocked.lock().unwrap().recv_timeout(PATIENCE);
                }
                task.stopped().await;
                Ok::<_, Infallible>(())
            }
        });
        serve.on_error(listener)
    });
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
        let listener = runs.listener();
        let (runs, reasons) = (runs.clone(), reasons.clone());
        let serve = cluster.serve(move |task: Task| {
            let (runs, reasons) = (runs.clone(), reasons.clone());
            async move {
                let _run = runs.begin(&task);
                task.stopped().await;
                loop {
                    let left = task.deadline().unwrap() - Instant::now();
                    reasons.lock().unwrap().push((task.reason().unwrap(), left));
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                #[expect(unreachable_code, reason = "it says what the handler returns")]
                Ok::<_, Error>(())
            }
        });
        serve.on_error(listener)
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
